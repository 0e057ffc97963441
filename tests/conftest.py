"""Loads the pack under a legal name, with the real host when there is one: then relative and `freesteer.` imports work.

At the end of a run it tells where the time went.
"""

import importlib.util
import os
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

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


def scope(test: str) -> str:
    """What one worker does as a whole, by the id of a test: all that needs a server; of the rest, a file."""
    file = test.partition("::")[0]
    return "server" if file.startswith("tests/server/") else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers: what needs a server first, as it takes longest."""
    if BESIDE_OTHERS:
        items.sort(key=lambda item: scope(item.nodeid) != "server")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return ByScope(config, log)


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
