"""Loads the pack under a legal name, with the real host when there is one: then relative and `freesteer.` imports work.

At the end of a run it tells where the time went.
"""

import importlib.util
import os
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("load_pack", Path(__file__).parents[1] / "tools" / "load_pack.py")
assert spec is not None and spec.loader is not None
loader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loader)

signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the fixtures' servers are stopped then too
BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
if BESIDE_OTHERS:
    os.environ["OMP_NUM_THREADS"] = "1"  # of servers, too: threads that wait for each other are slower than none
torch.set_num_threads(1 if BESIDE_OTHERS else min(2, torch.get_num_threads()))  # OMP_NUM_THREADS says less
sys.modules.setdefault(loader.ROOT.name, loader.load_pack())  # pytest imports the root folder as a package of its own name

LEVELS = 2  # of folders below tests/ in the table of times
SLOW = 3  # seconds; a test of more should be marked so, or `--quick` will not be
times: defaultdict[str, float] = defaultdict(float)
counts: Counter[str] = Counter()
slow: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers: what needs a server is done by one of them, and first, as it takes longest; of all else, each file by one."""
    if not BESIDE_OTHERS:
        return
    files = {item: item.nodeid.partition("::")[0] for item in items}
    items.sort(key=lambda item: not files[item].startswith("tests/server/"))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("server" if files[item].startswith("tests/server/") else files[item]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Adds up seconds, of fixtures too, by folder."""
    folder = "/".join(Path(report.nodeid.partition("::")[0]).parent.parts[: 1 + LEVELS])
    times[folder] += report.duration
    counts[folder] += report.when == "call"
    if report.when == "call" and report.duration > SLOW and "slow" not in report.keywords and folder != "tests/server":
        slow.append(f"{report.duration:8.1f} s  {report.nodeid}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not times:
        return  # nothing ran
    terminalreporter.section("seconds by folder")
    for folder in sorted(times, key=lambda folder: -times[folder]):
        terminalreporter.line(f"{times[folder]:8.1f} s  {counts[folder]:5} tests  {folder}")
    terminalreporter.line(f"{sum(times.values()):8.1f} s  {counts.total():5} tests")
    if slow:
        terminalreporter.section("slow, and not marked so")
        terminalreporter.line("\n".join(slow))
