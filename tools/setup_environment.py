"""The Python environment that the host runs in: made once, marked as whole by a stamp that is written last."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, STDOUT

from . import Failure
from .setup_host import HOSTS, ROOT

VENV = ROOT / ".venv"
TORCH = ["torch==2.14.1", "torchvision==0.29.1"]
TORCHAUDIO = "torchaudio==2.11.0"  # asks for an older torch than it needs, hence --no-deps
SPACE = 9e9  # bytes; on Linux torch brings CUDA along
UNFINISHED = "unfinished"

REASONS = {  # what pip says -> what to do
    "No space left": "The disk is full: free about 9 GB and try again.",
    "Not enough space": "The disk is full: free about 9 GB and try again.",
    "Temporary failure in name resolution": "There is no network: connect, or set COMFYUI_PATH to a ComfyUI that you have, and try again.",
    "Failed to establish a new connection": "There is no network: connect, or set COMFYUI_PATH to a ComfyUI that you have, and try again.",
    "getaddrinfo failed": "There is no network: connect, or set COMFYUI_PATH to a ComfyUI that you have, and try again.",
    "Read timed out": "The network is too slow or broke off: try again.",
    "Permission denied": "pip may not write here: make this folder and pip's cache writable.",
}


@contextlib.contextmanager
def alone(lock: Path = HOSTS / "lock") -> Iterator[None]:
    """One set-up at a time: two would take each other's folders for leftovers. The lock goes when its process does."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Failure("Another run.py is setting things up here: wait until it has finished, then try again.") from error
        for leftover in lock.parent.glob("part-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def python_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(pins: Sequence[str]) -> str:
    """Names what is installed, so that a changed pin is noticed."""
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def ensure_venv(venv: Path, pins: Sequence[str], install: Callable[[Path], None], base: Path | None = None) -> Path:
    """The Python of an environment in which `install(python)` has run to its end, for these pins.

    With `base`, the packages of that environment are seen too, so only what differs need be installed.
    """
    stamp = venv / "freesteer.stamp"
    wanted = fingerprint(pins)
    found = stamp.read_text() if stamp.is_file() else None
    usable = python_in(venv).exists()  # it points at a Python that may have been uninstalled
    if found == wanted and usable:
        return python_in(venv)
    if found is None and venv.exists():
        raise Failure(f"{venv} is an environment that run.py did not make: move it away and try again.")
    if found is not None and (found == UNFINISHED or not usable):
        discard(venv)
    fresh = not venv.exists()
    try:
        venv.mkdir(parents=True, exist_ok=True)
        stamp.write_text(UNFINISHED)
        if fresh:
            make_venv(venv, base)
        install(python_in(venv))
    except BaseException as error:
        if fresh:
            discard(venv)
        elif isinstance(error, Failure) and found:
            stamp.write_text(found)  # pip refused before it changed anything
        raise
    stamp.write_text(wanted)
    return python_in(venv)


def discard(folder: Path) -> None:
    """Takes the folder out of sight at once, so that no interrupt leaves a part of it under its name."""
    part = HOSTS / f"part-{folder.name}-{os.getpid()}"
    folder.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def make_venv(venv: Path, base: Path | None) -> None:
    missing = [name for name in ("venv", "ensurepip") if find_spec(name) is None]
    if missing:
        raise Failure(f"This Python has no {missing[0]} module: install it, on Debian and Ubuntu with `apt install python3-venv`.")
    code, said = watch([sys.executable, "-m", "venv", str(venv)])
    if code != 0:
        raise Failure(explain(said, f"The environment {venv} could not be made"))
    if base is not None:
        ours, theirs = site_packages(python_in(venv)), site_packages(python_in(base))
        (ours / "base.pth").write_text(f"import site; site.addsitedir({str(theirs)!r})\n")


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def pip(python: Path, *arguments: str) -> None:
    code, said = watch([str(python), "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
    if code != 0:
        raise Failure(explain(said, f"pip {arguments[0]} did not succeed"))


def watch(command: Sequence[str]) -> tuple[int, str]:
    """Runs a tool and returns its exit code and its last lines; on a terminal the current line is shown in place.

    When this process is stopped, the tool is stopped with all that it has started, before anything is cleaned up.
    """
    said: deque[str] = deque(maxlen=60)
    process = subprocess.Popen(command, stdout=PIPE, stderr=STDOUT, text=True, errors="replace", start_new_session=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line)
            if sys.stdout.isatty():
                print(f"\r  {line.strip()[:76]:76}", end="\r", flush=True)
        code = process.wait()
    except BaseException:
        stop(process)
        raise
    if sys.stdout.isatty():
        print(" " * 78, end="\r")
    return code, "".join(said)


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a process that has a session of its own, and what it started: as Ctrl-C would, then by force."""
    if sys.platform == "win32":
        process.kill()
        process.wait()
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(5)


def explain(output: str, what: str) -> str:
    """One sentence for a failed tool: the remedy where the cause is known, else the tool's own last error."""
    for sign, sentence in REASONS.items():
        if sign in output:
            return sentence
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return f"{what}: {(errors or lines)[-1].removeprefix('ERROR: ')}"


def check_space(folder: Path = ROOT, needed: float = SPACE) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Failure(f"ComfyUI and torch need about {needed / 1e9:.0f} GB and {free / 1e9:.1f} GB are free: make room and try again.")


def host_requirements(host: Path) -> str:
    """A file with the host's requirements but torch's three packages, which are pinned here."""
    lines = (host / "requirements.txt").read_text().splitlines()
    kept = [line for line in lines if line.strip() not in ("torch", "torchvision", "torchaudio")]
    file = HOSTS / f"requirements-{host.name}.txt"
    file.write_text("\n".join(kept) + "\n")
    return str(file)
