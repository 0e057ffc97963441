"""The environment is stamped only when it is whole; every way to fail says in one sentence what to do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from freesteer.tools import Failure, setup_environment
from freesteer.tools.setup_environment import UNFINISHED, alone, check_space, ensure_venv, explain, pip, python_in, watch


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an environment would go; made as a bare folder, which is quick."""

    def bare(venv: Path, base: Path | None) -> None:
        python_in(venv).parent.mkdir(parents=True)
        python_in(venv).touch()

    monkeypatch.setattr(setup_environment, "make_venv", bare)
    monkeypatch.setattr(setup_environment, "HOSTS", tmp_path)
    return tmp_path / ".venv"


def nothing(python: Path) -> None:
    assert python.exists()


def refuse(python: Path) -> None:
    raise Failure("refused")


def interrupt(python: Path) -> None:
    raise KeyboardInterrupt


def test_a_whole_environment_is_not_touched_again(venv: Path) -> None:
    python = ensure_venv(venv, ["torch==1"], nothing)
    assert ensure_venv(venv, ["torch==1"], refuse) == python == python_in(venv)


@pytest.mark.parametrize("stop", [refuse, interrupt])
def test_a_first_installation_that_does_not_end_leaves_nothing(venv: Path, stop) -> None:
    with pytest.raises((Failure, KeyboardInterrupt)):
        ensure_venv(venv, ["torch==1"], stop)
    assert list(venv.parent.iterdir()) == []
    assert ensure_venv(venv, ["torch==1"], nothing).exists()


def test_an_environment_whose_process_was_killed_is_made_again(venv: Path) -> None:
    ensure_venv(venv, ["torch==1"], nothing)
    (venv / "freesteer.stamp").write_text(UNFINISHED)
    (venv / "half").touch()
    ensure_venv(venv, ["torch==1"], nothing)
    assert not (venv / "half").exists()


def test_changed_pins_are_added_and_a_refusal_keeps_what_worked(venv: Path) -> None:
    ensure_venv(venv, ["torch==1"], nothing)
    (venv / "kept").touch()
    with pytest.raises(Failure):
        ensure_venv(venv, ["torch==2"], refuse)
    ensure_venv(venv, ["torch==1"], refuse)
    ensure_venv(venv, ["torch==2"], nothing)
    assert (venv / "kept").exists()


def test_an_interrupted_change_is_made_again_from_the_start(venv: Path) -> None:
    ensure_venv(venv, ["torch==1"], nothing)
    (venv / "perhaps broken").touch()
    with pytest.raises(KeyboardInterrupt):
        ensure_venv(venv, ["torch==2"], interrupt)
    ensure_venv(venv, ["torch==2"], nothing)
    assert not (venv / "perhaps broken").exists()


def test_an_environment_whose_python_is_gone_is_made_again(venv: Path) -> None:
    ensure_venv(venv, ["torch==1"], nothing)
    python_in(venv).unlink()
    assert ensure_venv(venv, ["torch==1"], nothing).exists()


def test_a_users_own_environment_is_left_alone(venv: Path) -> None:
    venv.mkdir()
    (venv / "theirs").touch()
    with pytest.raises(Failure, match="did not make: move it away"):
        ensure_venv(venv, ["torch==1"], nothing)
    assert (venv / "theirs").exists()


def test_a_second_set_up_at_the_same_time_is_told_to_wait(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"), pytest.raises(Failure, match="Another"), alone(tmp_path / "lock"):
        pass
    with alone(tmp_path / "lock"):
        pass


def test_leftovers_of_a_killed_set_up_are_removed(tmp_path: Path) -> None:
    (tmp_path / "part-1" / "deep").mkdir(parents=True)
    (tmp_path / "ComfyUI-1").mkdir()
    with alone(tmp_path / "lock"):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ComfyUI-1", "lock"]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full"),
        ("WARNING: Retrying ... Temporary failure in name resolution\nERROR: No matching distribution found for torch", "no network"),
        ("ReadTimeoutError: Read timed out.", "too slow or broke off: try again"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "writable"),
        ("Collecting torch\nERROR: No matching distribution found for torch==9\n", "pip failed: No matching distribution found for"),
        ("", "pip failed: it said nothing"),
    ],
)
def test_a_failure_of_pip_is_one_sentence(output: str, sentence: str) -> None:
    said = explain(output, "pip failed")
    assert sentence in said
    assert "\n" not in said


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_an_interrupt_stops_a_tool_and_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)"
    tool = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    main = threading.main_thread().ident
    assert main is not None

    def interrupt_when_started() -> None:
        until(lambda: pid.is_file() and pid.read_text() != "")
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt_when_started, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        watch([sys.executable, "-c", tool])
    until(lambda: not alive(int(pid.read_text())))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_failing_pip_raises_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="requirements file"):
        pip(Path(sys.executable), "download", "-r", str(tmp_path / "missing.txt"), "--dest", str(tmp_path))


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="make room"):
        check_space(tmp_path, needed=1e18)
    check_space(tmp_path, needed=1)


def test_a_python_without_venv_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup_environment, "find_spec", lambda name: None if name == "ensurepip" else name)
    with pytest.raises(Failure, match="python3-venv"):
        setup_environment.make_venv(tmp_path, None)


@pytest.mark.slow
def test_a_real_environment_on_top_of_another_sees_its_packages(tmp_path: Path) -> None:
    base = ensure_real(tmp_path / "base", None)
    (setup_environment.site_packages(base) / "only_in_base.py").write_text("value = 7")
    top = ensure_real(tmp_path / "top", tmp_path / "base")
    said = subprocess.run([str(top), "-c", "import only_in_base; print(only_in_base.value)"], capture_output=True, text=True)
    assert said.stdout.strip() == "7"


def ensure_real(venv: Path, base: Path | None) -> Path:
    setup_environment.make_venv(venv, base)
    return python_in(venv)
