"""python -m tools.mutants [--count 100] [--seed 0] [--only PATH ...] [--jobs 1]: would the tests notice a wrong sign?

Changes one operator, comparison, constant or sign at a time in core/ and host/, in a copy of the pack, and runs the tests that
are nearest to it. A mutant is killed when a test fails, or times out when they take far longer than they should. One that
survives is either no error at all (it computes the same) or a test that is missing: it is shown as a line to look at.
"""

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from . import Failure
from .setup_environment import stop
from .setup_host import ROOT

FLOORS = ("core", "host")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "output", "runs")  # .git, .venv, .host: none of them is the pack
SLOWER, GRACE = 3, 20  # a run may take SLOWER times as long as without the change, and GRACE seconds more
TUNED = 20  # whole numbers from here on count nothing, but were tried out
KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"

COMPARISONS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", ">="), ast.LtE: ("<=", ">"), ast.Gt: (">", "<="), ast.GtE: (">=", "<"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"), ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip


class Change(NamedTuple):
    """Bytes `start` to `stop` of the text `source` of a file (its path below the root) become `new`."""

    path: Path
    source: bytes
    start: int
    stop: int
    new: bytes

    @property
    def changed(self) -> bytes:
        return self.source[: self.start] + self.new + self.source[self.stop :]

    def __str__(self) -> str:
        """`core/a.py:12: x + 1  ->  x - 1`: the line before and after."""
        row, begin = self.source.count(b"\n", 0, self.start), self.source.rfind(b"\n", 0, self.start) + 1
        old, new = (text[begin:].split(b"\n", 1)[0].decode().strip() for text in (self.source, self.changed))
        return f"{self.path.as_posix()}:{row + 1}: {old}  ->  {new}"


class Result(NamedTuple):
    change: Change
    verdict: str


def changes_of(path: Path, source: bytes) -> list[Change]:
    """All of a file, in the order of its text. Annotations, decorators and messages are left alone: they compute nothing. So is what
    often computes the same: `<` beside `<=` of what is measured, 300 beside 301 of what is tuned, and the sign of -1, which may name the
    axis that 1 does; comparisons are turned round instead, large numbers doubled, and -1 becomes -2."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def begin(node: Any) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def end(node: Any) -> int:
        return starts[node.end_lineno - 1] + node.end_col_offset

    def between(left: Any, right: Any, symbols: tuple[str, str]) -> Change:
        """The operator that stands between two operands; from the right, as comments stand before it."""
        old, new = (symbol.encode() for symbol in symbols)
        at = source.rindex(old, end(left), begin(right))
        return Change(path, source, at, at + len(old), new)

    found: list[Change] = []
    for node in computing(ast.parse(source)):
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                known = zip(operands, operands[1:], node.ops, strict=False)
                found += [between(left, right, COMPARISONS[type(each)]) for left, right, each in known]
            case ast.BoolOp():
                pairs = zip(node.values, node.values[1:], strict=False)
                found += [between(left, right, OPERATORS[type(node.op)]) for left, right in pairs]
            case ast.BinOp(op=operator) if type(operator) in OPERATORS:
                found.append(between(node.left, node.right, OPERATORS[type(operator)]))
            case ast.AugAssign(op=operator) if type(operator) in OPERATORS:
                found.append(between(node.target, node.value, OPERATORS[type(operator)]))
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                found.append(Change(path, source, begin(node), begin(node.operand), b""))
            case ast.Constant(value=bool() | int() | float() as value):
                found.append(Change(path, source, begin(node), end(node), other(value).encode()))
    return sorted(found, key=lambda change: change.start)


def other(value: bool | int | float) -> str:
    """A value that is near, and wrong: of a count the next, of what is tuned or measured the double."""
    if isinstance(value, bool):
        return str(not value)
    counts = isinstance(value, int) and value < TUNED
    return str(value + 1) if counts or value == 0 else str(2 * value)


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that compute. `strict=` is left out too: it only states what holds; constants with a name, which were tried out,
    so that others near them are as right; what is logged; and of -1 there is the 1 alone."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
            pass
        case ast.Assign(targets=[ast.Name(id=name)]) if name.isupper():
            return
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
            return
        case _:
            yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            stated = isinstance(child, ast.keyword) and child.arg == "strict"
            if isinstance(child, ast.AST) and not stated and not isinstance(child, ast.JoinedStr):
                yield from computing(child)


def all_changes(root: Path, places: Sequence[str] = FLOORS) -> list[Change]:
    """In these folders and files."""
    found: list[Change] = []
    for place in places:
        files = [root / place] if (root / place).is_file() else sorted((root / place).rglob("*.py"))
        if not files:
            raise Failure(f"There is no Python file in {place}: give folders or files below {root}, as core/freecontrol.")
        found += [change for file in files for change in changes_of(file.relative_to(root), file.read_bytes())]
    return found


def draw(changes: Sequence[Change], count: int, seed: int) -> list[Change]:
    """At random, each at most once."""
    return random.Random(seed).sample(changes, min(count, len(changes)))


def imports(file: Path, module: str) -> bool:
    """Whether a test file imports a module of the pack, `core.geometry.cameras`, or a name from it."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            continue
        if f"freesteer.{module}" in names:
            return True
    return False


def nearest_tests(root: Path, path: Path) -> list[list[str]]:
    """Test files in rings, the nearest first, as pytest takes them: those that import the module, from the folder of the same
    name or, if none there does, from anywhere; then the others of that folder; then those of the nodes: of the folder of the system's
    name, or of all nodes where none has it, since then all may use the module."""
    module = ".".join(path.with_suffix("").parts)
    tests = root / "tests"
    inside = sorted((tests / path.parent).glob("test_*.py"))
    near = [file for file in inside if imports(file, module)]
    if not near:
        near = [file for file in sorted(tests.rglob("test_*.py")) if imports(file, module)]
    far = [file for file in inside if file not in near]
    system = tests / "nodes" / path.parent.name
    nodes = sorted((system if system.is_dir() else tests / "nodes").rglob("test_*.py"))
    rings = (near, far, [file for file in nodes if file not in near])
    return [[file.relative_to(root).as_posix() for file in ring] for ring in rings if ring]


class Tests:
    """Runs tests in copies of the pack, and stops them when it is told to."""

    def __init__(self) -> None:
        self.stopped = False
        self._running: set[subprocess.Popen[str]] = set()
        self._usual: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def run(self, copy: Path, files: Sequence[str], seconds: float | None = None) -> int | None:
        """pytest's exit code; None where the time is over."""
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # two changes in one second look alike to Python's cache
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=copy, env=environ, text=True, start_new_session=True, **pipes)
        with self._lock:
            self._running.add(process)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                stop(process)
            with self._lock:
                self._running.discard(process)

    def limit(self, copy: Path, files: Sequence[str]) -> float:
        """Seconds that these tests may take; measured once, without any change. They have to pass."""
        key = tuple(files)
        if key not in self._usual:
            started = time.monotonic()
            code = self.run(copy, files)
            if code and not self.stopped:
                raise Failure(f"Tests fail without any change ({' '.join(files)}): see `python run.py test {' '.join(files)}`.")
            self._usual[key] = time.monotonic() - started
        return SLOWER * self._usual[key] + GRACE

    def stop(self) -> None:
        self.stopped = True
        with self._lock:
            running = list(self._running)
        for process in running:
            stop(process)


def judge(tests: Tests, copy: Path, change: Change) -> str:
    """What the tests say of a change: the nearest first, wider only if they do not notice it."""
    file = copy / change.path
    for ring in nearest_tests(copy, change.path):
        seconds = tests.limit(copy, ring)
        file.write_bytes(change.changed)
        try:
            code = tests.run(copy, ring, seconds)
        finally:
            file.write_bytes(change.source)
        if code != 0:
            return TIMED_OUT if code is None else KILLED
    return SURVIVED


def examine(changes: Sequence[Change], root: Path, jobs: int) -> Generator[Result, None, None]:
    """Results as they come. Each of `jobs` has a copy of the pack; nothing is written below `root`."""
    tests = Tests()
    copies: SimpleQueue[Path] = SimpleQueue()

    def one(change: Change) -> Result | None:
        if tests.stopped:
            return None
        copy = copies.get()
        try:
            verdict = judge(tests, copy, change)
        finally:
            copies.put(copy)
        return None if tests.stopped else Result(change, verdict)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            shutil.copytree(root, Path(folder) / f"pack_{number}", ignore=LEFT_OUT, ignore_dangling_symlinks=True)
            copies.put(Path(folder) / f"pack_{number}")
        try:
            yield from filter(None, pool.map(one, changes))
        finally:
            tests.stop()


def report(results: Sequence[Result], seed: int) -> None:
    """The survivors, one a line, and last a line of JSON."""
    survivors = sorted(change for change, verdict in results if verdict == SURVIVED)
    print("\nSurvivors:", *(survivors or ["none"]), sep="\n  ")
    counted = Counter(verdict for _, verdict in results)
    detected = counted[KILLED] + counted[TIMED_OUT]
    numbers = {"mutants": len(results), **{verdict: counted[verdict] for verdict in (KILLED, TIMED_OUT, SURVIVED)}}
    print(json.dumps({**numbers, "detected": round(detected / max(len(results), 1), 3), "seed": seed}), flush=True)


def main(arguments: Sequence[str], root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(prog="run.py mutants", description="Would the tests notice a wrong sign?", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=100, help="how many changes, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", nargs="+", default=FLOORS, help="folders or files, as core/freecontrol; core and host unless told")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    options = parser.parse_args(arguments)
    found = all_changes(root, options.only)
    chosen = draw(found, options.count, options.seed)
    print(f"{len(chosen)} of {len(found)} possible changes.", flush=True)
    results: list[Result] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.closing(examine(chosen, root, max(options.jobs, 1))) as coming:
            for result in coming:
                results.append(result)
                print(f"{result.verdict:9} {result.change}", flush=True)
    finally:  # of an interrupt too: what is known is told
        report(results, options.seed)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
