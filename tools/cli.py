"""The commands of run.py."""

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from . import Failure, server
from .setup_host import ARCHIVES, HOSTS, ROOT, link_folder
from .workplace import Workplace, find_chromium, keep_memory, prepare

RUNTIME = ("torch", "torchsde", "aiohttp", "PIL", "einops", "kornia", "safetensors")
DEMOS = {what: ROOT / "workflows" / "api" / f"{name}.json" for what, name in (("pictures", "freecontrol"), ("video", "demo_video"))}
TOGETHER = ("-n", "2", "--no-loadscope-reorder")  # processes, since tiny models gain nothing from threads; see tests/conftest.py
QUICK = ("-m", "not slow", "--ignore", "tests/server")


class Terminated(KeyboardInterrupt):
    """Told to stop by a signal that, unlike Ctrl-C, the child processes did not get."""


def main(arguments: Sequence[str]) -> int:
    options, rest = parser().parse_known_args(arguments)
    for name in ("SIGTERM", "SIGHUP"):  # the second: a terminal that is closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), terminate)
    try:
        return options.command(options, rest)
    except Failure as failure:
        print(failure, file=sys.stderr)
    except OSError as error:
        print(f"This could not be done: {error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
    return 1


def terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="run.py", description="Sets up what is missing, then does one of these.", allow_abbrev=False)
    commands = root.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace, list[str]], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    demos = add("demo", demo, "steers pictures, or clips, with the real ComfyUI, headless on the CPU, and shows them on one sheet")
    demos.add_argument("what", nargs="?", choices=DEMOS, default="pictures", help="pictures unless told")
    tests = add("test", test, "every test; further arguments go to pytest")
    tests.add_argument("--host", choices=ARCHIVES, help="another ComfyUI")
    tests.add_argument("--quick", action="store_true", help="without those marked slow, and without a server: less than 3 minutes")
    add("serve", serve, "ComfyUI with the pack, for a person").add_argument("--port", type=int, help="8188 unless told")
    add("bench", bench, "one benchmark; further arguments go to it").add_argument("name", help="one in benchmarks/, without .py")
    add("train", train, "makes the playground's weights again; further arguments go to it")
    add("lint", lint, "ruff and pyright")
    add("mutants", mutants, "changes one sign at a time in a copy, and lists what the tests do not notice; further arguments go to it")
    return root


def run(command: Sequence[str], place: Workplace) -> int:
    """Runs a child process to its end. When this one is stopped, the child gets the time to stop what it has started."""
    process = subprocess.Popen(command, cwd=ROOT, env=place.environ)
    try:
        return process.wait()
    except KeyboardInterrupt as stop:
        if isinstance(stop, Terminated):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        raise


def refuse_rest(rest: Sequence[str]) -> None:
    if rest:
        raise Failure(f"This command takes no {' '.join(rest)}: see `python run.py --help`.")


def demo(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_rest(rest)
    start = time.monotonic()
    keep_memory()
    place = prepare(None, RUNTIME)
    print("Starting ComfyUI.", flush=True)
    with tempfile.TemporaryDirectory() as folder, server.serving(place.python, place.host, Path(folder)) as running:
        code = run([str(place.python), "-m", "tools.demo", running.url, str(DEMOS[options.what]), str(ROOT / "output")], place)
        if running.process.poll() is not None:
            raise Failure(f"ComfyUI stopped (exit code {running.process.returncode}). {running.last_words()}")
    if code == 0:
        print(f"Done in {time.monotonic() - start:.0f} s.")
    return code


def test(options: argparse.Namespace, rest: Sequence[str]) -> int:
    keep_memory()
    place = prepare(options.host, [*RUNTIME, "pytest", "xdist"])
    if not options.quick and find_chromium() is None:
        print("There is no chromium or chrome here: the browser tests will not run.", flush=True)
    whole = options.quick or all(word.startswith("-") for word in rest)  # no part of the tests is named
    rest = [*(TOGETHER if whole else ()), *(QUICK if options.quick else ()), *rest]
    return run([str(place.python), "-m", "pytest", *rest], place)


def serve(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_rest(rest)
    if options.port is not None:
        server.check_port(options.port)
    place = prepare(None, RUNTIME)
    port = options.port or server.first_free_port(8188)
    ours = place.host.parent == HOSTS
    words = [] if server.has_accelerator(place.python) else ["--cpu"]
    words += ["--output-directory", str(ROOT / "output")] if ours else []
    with server.running(place.python, place.host, port, words) as process:
        running = server.Server(process, f"http://{server.LOOPBACK}:{port}", Path())
        server.wait_until_ready(running, 600)
        print(f"\nFreeSteer is at {running.url}: open it, then Workflow > Browse templates > FreeSteer. Ctrl-C stops it.\n", flush=True)
        if server.has_display():
            webbrowser.open(running.url)
        return process.wait()


def bench(options: argparse.Namespace, rest: Sequence[str]) -> int:
    files = {file.stem: file for file in (ROOT / "benchmarks").rglob("*.py") if "__main__" in file.read_text(encoding="utf-8")}
    if options.name not in files:
        raise Failure(f"There is no benchmark {options.name}: choose from {', '.join(sorted(files))}.")
    return run_module(".".join(files[options.name].relative_to(ROOT).with_suffix("").parts), rest)


def train(options: argparse.Namespace, rest: Sequence[str]) -> int:
    keep_memory()
    return run_module("playground.train", rest)


def run_module(name: str, rest: Sequence[str]) -> int:
    place = prepare(None, RUNTIME)
    return run([str(place.python), str(ROOT / "tools" / "inside.py"), name, *rest], place)


def mutants(options: argparse.Namespace, rest: Sequence[str]) -> int:
    place = prepare(None, [*RUNTIME, "pytest"])
    return run([str(place.python), "-m", "tools.mutants", *rest], place)


def lint(options: argparse.Namespace, rest: Sequence[str]) -> int:
    refuse_rest(rest)
    place = prepare(None, ["ruff", "pyright"])
    alias = HOSTS / "types" / "freesteer"  # the name that tests import the pack by
    if not alias.exists():
        link_folder(alias, ROOT)
    python = str(place.python)
    commands = (["ruff", "check"], ["ruff", "format", "--check", "--quiet"], ["pyright", "--pythonpath", python])
    codes = [run([python, "-m", *command], place) for command in commands]
    for line in long_signatures(place.python):
        print(line)
    return max(codes)


def long_signatures(python: Path, folder: Path = ROOT) -> list[str]:
    """Functions with more parameters than pyproject.toml's max-args, the longest last; told, and not refused.

    A node's `execute` is none of them: it has as many as the node has inputs.
    """
    command = [str(python), "-m", "ruff", "check", "--select", "PLR0913", "--exit-zero", "--output-format", "json", str(folder)]
    found = []
    for each in json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout):
        path, row = Path(each["filename"]), each["location"]["row"]
        name = path.read_text(encoding="utf-8").splitlines()[row - 1].partition("def ")[2].partition("(")[0]
        if name != "execute":
            count = int(re.findall(r"\d+", each["message"])[0])
            found.append((count, f"{path.relative_to(folder).as_posix()}:{row}: {name} has {count} parameters: could some be one thing?"))
    return [line for _, line in sorted(found)]
