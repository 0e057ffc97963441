"""Wrong signs are made, noticed or listed, in a copy: tried on a package of two files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from freesteer.tools import Failure, mutants
from freesteer.tools.load_pack import ROOT

SUMS = """
def total(values, factor=2.0):
    summed = 0
    for value in values:
        summed += factor * value
    return summed


def countdown(n):
    while n:
        n -= 1


def unseen(a):
    return -a
"""
TESTS = """
from core.sums import countdown, total

def test_total():
    assert total([1, 2]) == 6

def test_countdown():
    countdown(4)
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack with one module and one test file; its tests import it by the name that `imports` knows as a neighbour."""
    for name, text in (("core/__init__.py", ""), ("core/sums.py", SUMS), ("tests/core/test_sums.py", TESTS), ("pytest.ini", "[pytest]\n")):
        (tmp_path / "pack" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pack" / name).write_text(text)
    (tmp_path / "pack" / "conftest.py").write_text("import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parent))\n")
    return tmp_path / "pack"


def test_every_operator_comparison_constant_and_sign_is_changed_once() -> None:
    source = b"x += a[1] + 0.5 if a > 0 and not b == 5 else -c is d"
    assert [change.changed.decode() for change in mutants.changes_of(Path("a.py"), source)] == [
        "x -= a[1] + 0.5 if a > 0 and not b == 5 else -c is d",
        "x += a[2] + 0.5 if a > 0 and not b == 5 else -c is d",
        "x += a[1] - 0.5 if a > 0 and not b == 5 else -c is d",
        "x += a[1] + 1.0 if a > 0 and not b == 5 else -c is d",
        "x += a[1] + 0.5 if a <= 0 and not b == 5 else -c is d",
        "x += a[1] + 0.5 if a > 1 and not b == 5 else -c is d",
        "x += a[1] + 0.5 if a > 0 or not b == 5 else -c is d",
        "x += a[1] + 0.5 if a > 0 and b == 5 else -c is d",
        "x += a[1] + 0.5 if a > 0 and not b != 5 else -c is d",
        "x += a[1] + 0.5 if a > 0 and not b == 6 else -c is d",
        "x += a[1] + 0.5 if a > 0 and not b == 5 else c is d",
        "x += a[1] + 0.5 if a > 0 and not b == 5 else -c is not d",
    ]


def test_what_often_computes_the_same_is_not_drawn() -> None:
    source = b"LEAST = 3\nlog.info(1, 2)\nx[-1] < 300 - y"
    changed = [change.changed.decode() for change in mutants.changes_of(Path("a.py"), source)]
    lines = [text.splitlines()[-1] for text in changed]
    assert lines == ["x[-2] < 300 - y", "x[-1] >= 300 - y", "x[-1] < 600 - y", "x[-1] < 300 + y"]


def test_annotations_decorators_and_messages_are_left_alone() -> None:
    source = b'@cache(1)\ndef f(x: "a | b", y: C[2] | None) -> D[3]:\n    raise E(f"{x + 1}")\n'
    assert mutants.changes_of(Path("a.py"), source) == []


def test_places_are_counted_in_bytes() -> None:
    source = "é = 'é' * (n  # not n * n\n    * 3)\n".encode()
    (first, second, third) = mutants.changes_of(Path("a.py"), source)
    assert first.changed.decode().startswith("é = 'é' / (n")
    assert second.changed.decode() == "é = 'é' * (n  # not n * n\n    / 3)\n"
    assert third.changed.decode().endswith("* 4)\n")


def test_the_nearest_tests_come_first() -> None:
    rings = mutants.nearest_tests(ROOT, Path("core/freecontrol/tints.py"))
    assert rings[0] == ["tests/core/freecontrol/test_conditions.py", "tests/core/freecontrol/test_tints.py"]
    assert "tests/core/freecontrol/test_semantic_basis.py" in rings[1]
    assert "tests/nodes/freecontrol/test_views.py" in rings[2] and all(file.startswith("tests/nodes/freecontrol/") for file in rings[2])
    anywhere, nodes = mutants.nearest_tests(ROOT, Path("playground/image/models.py"))
    assert "tests/nodes/conftest.py" not in anywhere and "tests/playground/test_model.py" in anywhere
    assert "tests/nodes/splats/test_splats.py" in nodes and not set(nodes) & set(anywhere)


@pytest.mark.slow
def test_mutants_are_killed_time_out_or_survive_and_the_pack_stays_as_it_is(pack: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "GRACE", 1)
    mutants.main(["--only", "core/sums.py", "--jobs", "2"], pack)
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1]) == {"mutants": 7, "killed": 4, "timed out": 1, "survived": 2, "detected": 0.714, "seed": 0}
    assert "timed out core/sums.py:11: n -= 1  ->  n += 1" in said
    assert "killed    core/sums.py:5: summed += factor * value  ->  summed -= factor * value" in said
    assert said.splitlines()[-3:-1] == ["  core/sums.py:11: n -= 1  ->  n -= 2", "  core/sums.py:15: return -a  ->  return a"]
    assert (pack / "core" / "sums.py").read_text() == SUMS


def test_a_seed_draws_the_same_mutants(pack: Path) -> None:
    changes = mutants.all_changes(pack, ["core"])
    assert mutants.draw(changes, 3, 1) == mutants.draw(changes, 3, 1) != mutants.draw(changes, 3, 2)
    assert sorted(mutants.draw(changes, 100, 1)) == sorted(changes)


def test_what_is_not_there_or_fails_already_is_said(pack: Path) -> None:
    with pytest.raises(Failure, match="no Python file in core/gone"):
        mutants.main(["--only", "core/gone"], pack)
    (pack / "tests" / "core" / "test_sums.py").write_text("def test_wrong(): assert False")
    with pytest.raises(Failure, match="fail without any change"):
        mutants.main(["--only", "core", "--count", "1"], pack)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that stands for Ctrl-C in a child process")
def test_an_interrupt_tells_what_is_known_and_leaves_nothing(pack: Path, tmp_path: Path) -> None:
    (pack / "tests" / "core" / "test_sums.py").write_text(TESTS + "\ndef test_slowly():\n    __import__('time').sleep(1)\n")
    (tmp_path / "temporary").mkdir()
    code = "import pathlib, tools.mutants; tools.mutants.main(['--only', 'core'], pathlib.Path('pack'))"
    environ = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        first = next(line for line in process.stdout if "core/sums.py" in line)
        time.sleep(0.5)  # into the next one
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert first.split()[0] in ("killed", "survived", "timed")
    assert json.loads(rest.splitlines()[-1])["mutants"] >= 1
    assert list((tmp_path / "temporary").iterdir()) == []
