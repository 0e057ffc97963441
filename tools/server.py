"""The real ComfyUI server on a loopback port, started and stopped with a `with`, and spoken to as its users do."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from . import Failure
from .setup_host import link_pack

Process = subprocess.Popen[bytes]
LOOPBACK = "127.0.0.1"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would look for 127.0.0.1 on its own machine


class Server(NamedTuple):
    """A running server. `log` is the file that it writes to."""

    process: Process
    url: str
    log: Path

    def get(self, path: str) -> Any:
        """The answer at `path`: decoded when it is JSON, bytes otherwise."""
        return self.ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any) -> Any:
        data = json.dumps(body).encode()
        return self.ask(urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}))

    def ask(self, request: urllib.request.Request) -> Any:
        try:
            with DIRECT.open(request, timeout=60) as answer:
                content = answer.read()
                return json.loads(content) if "json" in answer.headers.get("Content-Type", "") and content else content
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{request.full_url} answered {error.code}: {readable(error.read())}") from error
        except OSError as error:
            raise RuntimeError(f"The server does not answer ({error}). {self.last_words()}") from error

    def run(self, workflow: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
        """Queues a workflow in API format, waits, and returns its outputs by node. Raises what a node raised."""
        job = self.post("/prompt", {"prompt": workflow})["prompt_id"]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get(f"/history/{job}")
            if job in history:
                return outputs(history[job])
            time.sleep(0.1)
        raise TimeoutError(f"The workflow did not finish in {seconds:.0f} s. {self.last_words()}")

    @property
    def folder(self) -> Path:
        """Where it keeps its files."""
        return self.log.parent

    def last_words(self, lines: int = 15) -> str:
        return last_words(self.log, lines)


def outputs(entry: dict[str, Any]) -> dict[str, Any]:
    """The outputs in an entry of the server's history, or the error that ended it."""
    for kind, message in entry["status"]["messages"]:
        if kind == "execution_error":
            where = f"{message['node_type']} (node {message['node_id']})"
            raise RuntimeError(f"{where} failed: {message['exception_message'].strip()}\n{''.join(message['traceback'])}")
        if kind == "execution_interrupted":
            raise RuntimeError("The workflow was interrupted.")
    return entry["outputs"]


def readable(answer: bytes) -> str:
    """What the server says against a workflow, node by node."""
    try:
        found = json.loads(answer)
        said = [found["error"]["message"]]
        for node, problem in found.get("node_errors", {}).items():
            said += [f"{problem['class_type']} (node {node}): {error['message']}: {error['details']}" for error in problem["errors"]]
        return "; ".join(said)
    except (ValueError, KeyError, TypeError):
        return answer[:500].decode(errors="replace")


def last_words(log: Path, lines: int = 15) -> str:
    said = log.read_text(errors="replace").splitlines()[-lines:] if log.is_file() else []
    return "\n".join(["The end of its log:", *(f"  {line}" for line in said)]) if said else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def first_free_port(wanted: int) -> int:
    try:
        check_port(wanted)
    except Failure:
        return free_port()
    return wanted


def check_port(port: int) -> None:
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            raise Failure(f"Port {port} cannot be used ({error}): stop what runs there, or give another one with --port.") from error


def known_options(host: Path, options: Sequence[Sequence[str]]) -> list[str]:
    """Those options, each a list of words, that this version of the host knows."""
    source = (host / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    return [word for option in options if f'"{option[0]}"' in source for word in option]


def folder_options(folder: Path) -> list[list[str]]:
    """Keeps all that the server writes in one folder."""
    kinds = ("output", "temp", "user", "input")
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{(folder / 'comfyui.db').as_posix()}"  # older hosts fail with one in memory
    return [[f"--{kind}-directory", str(folder / kind)] for kind in kinds] + [["--database-url", database]]


@contextlib.contextmanager
def serving(
    python: Path, host: Path, folder: Path, port: int | None = None, seconds: float = 600, more: Sequence[str] = ()
) -> Iterator[Server]:
    """A headless server on the CPU with this pack and no other, which keeps its files and its log in `folder`.

    `more`: further words for its command line.
    """
    options = [["--cpu"], ["--disable-all-custom-nodes"], ["--whitelist-custom-nodes", link_pack(host)], ["--disable-api-nodes"]]
    port = port or free_port()
    words = [*known_options(host, [*options, *folder_options(folder)]), *more]
    log = folder / "server.log"
    with log.open("wb") as file, running(python, host, port, words, file) as process:
        server = Server(process, f"http://{LOOPBACK}:{port}", log)
        wait_until_ready(server, seconds)
        yield server


@contextlib.contextmanager
def running(python: Path, host: Path, port: int, words: Sequence[str], log: IO[bytes] | None = None) -> Iterator[Process]:
    """The server's process, on loopback and nothing else; it ends with the block, however that ends."""
    command = [str(python), "main.py", "--listen", LOOPBACK, "--port", str(port), "--disable-auto-launch", *words]
    errors = subprocess.STDOUT if log else None
    process = subprocess.Popen(command, cwd=host, stdin=subprocess.DEVNULL, stdout=log, stderr=errors)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(server: Server, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise Failure(f"ComfyUI stopped while it started (exit code {server.process.returncode}). {server.last_words()}")
        with contextlib.suppress(RuntimeError):
            server.get("/system_stats")
            return
        time.sleep(0.2)
    raise Failure(f"ComfyUI did not answer within {seconds:.0f} s. {server.last_words()}")


def has_accelerator(python: Path) -> bool:
    """Whether the torch of that environment sees a GPU."""
    code = "import sys, torch; sys.exit(not (torch.cuda.is_available() or torch.backends.mps.is_available()))"
    return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0


def has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
