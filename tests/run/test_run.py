"""run.py as its users meet it: what goes wrong is one sentence with the remedy, exit code 1, and no traceback."""

import ast
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from freesteer.tools import Failure, cli, server, setup_host, workplace
from freesteer.tools.load_pack import ROOT


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run([sys.executable, str(ROOT / "run.py"), *arguments], capture_output=True, text=True, env=environment, timeout=120)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(("version", "sentence"), [((3, 9), "needs Python 3.10 or newer and this is 3.9"), ((3, 10), ""), ((3, 13), "")])
def test_an_old_python_is_refused(version: tuple[int, int], sentence: str) -> None:
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.refusal(version).startswith(f"FreeSteer {sentence}" if sentence else "")
    assert bool(module.refusal(version)) == bool(sentence)


def test_a_python_that_the_pins_do_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    with pytest.raises(Failure, match=r"3\.10 to 3\.13.*COMFYUI_PATH"):
        workplace.set_up("0.30.0")


def test_a_wrong_comfyui_path_is_refused(tmp_path: Path) -> None:
    assert "there is no main.py" in refused(run("demo", COMFYUI_PATH=str(tmp_path)))


def test_a_missing_module_of_a_users_own_comfyui_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(Failure, match=r"has no no_such_module: install with `.* -m pip install -r .*requirements\.txt"):
        workplace.users_own(tmp_path, ["json", "no_such_module"])


def test_the_environment_beside_a_users_own_comfyui_is_used(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    python = workplace.python_in(tmp_path / "venv")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert workplace.users_own(tmp_path, ["json"]) == (python, tmp_path)


def test_comfyui_path_and_host_together_are_refused(tmp_path: Path) -> None:
    assert "unset COMFYUI_PATH, or leave --host out" in refused(run("test", "--host", "0.16.3", COMFYUI_PATH=str(tmp_path)))


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = refused(run("serve", "--port", str(taken.getsockname()[1])))
    assert "give another one with --port" in said


def test_an_unknown_benchmark_names_those_that_there_are() -> None:
    said = refused(run("bench", "no_such_benchmark"))
    assert (ROOT / "benchmarks" / "playground" / "playground.py").is_file()
    assert "playground" in said
    assert "scenes" not in said  # what benchmarks share


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What run.py would have run; nothing is set up."""
    run: list[list[str]] = []
    monkeypatch.setattr(cli, "prepare", lambda version, needs: workplace.Workplace(Path("python"), Path("host")))
    monkeypatch.setattr(cli, "find_chromium", lambda: "chromium")
    monkeypatch.setattr(cli, "run", lambda command, place: run.append(list(command)) or 0)
    return run


def test_a_benchmark_is_found_in_the_folder_of_its_system(commands: list[list[str]]) -> None:
    assert cli.main(["bench", "freecontrol_invariance", "--quick"]) == 0
    assert [command[-2:] for command in commands] == [["benchmarks.freecontrol.freecontrol_invariance", "--quick"]]


def test_memory_is_kept_for_the_next_tensor_but_where_it_is_measured(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"MALLOC_TOP_PAD_": "7"})  # a user's own
    assert cli.main(["bench", "full_size"]) == 0 and set(os.environ) == {"MALLOC_TOP_PAD_"}
    assert cli.main(["train"]) == 0 and set(os.environ) == set(workplace.KEPT_MEMORY)
    assert os.environ["MALLOC_TOP_PAD_"] == "7"


def test_no_two_benchmarks_have_one_name() -> None:
    files = [file for file in (ROOT / "benchmarks").rglob("*.py") if "__main__" in file.read_text(encoding="utf-8")]
    assert len(files) == len({file.stem for file in files}) > 5


def test_all_tests_and_quick_ones_run_in_two_processes(commands: list[list[str]]) -> None:
    for words in (["test", "-x"], ["test", "tests/core", "-x"], ["test", "--quick", "-x", "tests/core"]):
        assert cli.main(words) == 0
    everything, part, quick = (command[3:] for command in commands)
    assert everything == [*cli.TOGETHER, "-x"]
    assert part == ["tests/core", "-x"]
    assert quick == [*cli.TOGETHER, "-m", "not slow", "--ignore", "tests/server", "-x", "tests/core"]


SIGNATURES = """
def few(a, b): ...
def many(
    a, b, *, c, d
): ...
async def some(a, b, c): ...
class Node:
    def execute(cls, a, b, c): ...
"""


def test_functions_of_many_parameters_are_listed_but_for_a_nodes_execute(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff.lint.pylint]\nmax-args = 2\n")
    (tmp_path / "a.py").write_text(SIGNATURES)
    found = [line.partition(" parameters")[0] for line in cli.long_signatures(Path(sys.executable), tmp_path)]
    assert found == ["a.py:6: some has 3", "a.py:3: many has 4"]


def test_arguments_that_a_command_does_not_take_are_refused() -> None:
    assert "takes no --fast" in refused(run("demo", "--fast"))


@pytest.mark.parametrize("version", setup_host.ARCHIVES)
def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path: Path, version: str) -> None:
    host = fake_host(tmp_path, f"print('host {version}')\nraise SystemExit('out of luck')")
    said = rf"(?s)exit code 1.*host {version}\n  out of luck"
    with pytest.raises(Failure, match=said), server.serving(Path(sys.executable), host, tmp_path):
        pass


def test_a_server_that_never_answers_is_given_up_and_stopped(tmp_path: Path) -> None:
    host = fake_host(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    with pytest.raises(Failure, match="did not answer within 1 s"), server.serving(Path(sys.executable), host, tmp_path, seconds=1):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "server.log").read_text()), 0)


def test_the_server_gets_loopback_and_only_the_options_that_it_knows(tmp_path: Path) -> None:
    host = fake_host(tmp_path, "import sys\nprint(*sys.argv[1:])", options='"--cpu" "--output-directory"')
    with pytest.raises(Failure), server.serving(Path(sys.executable), host, tmp_path, port=12345):
        pass
    words = (tmp_path / "server.log").read_text().split()
    assert words[:6] == ["--listen", "127.0.0.1", "--port", "12345", "--disable-auto-launch", "--cpu"]
    assert re.findall("--[a-z-]+", " ".join(words[6:])) == ["--output-directory"]


ANSWERING = """
import http.server, os, pathlib, sys
pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that stands for Ctrl-C in a child process")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_run_py_stops_the_server_too(tmp_path: Path, stop: signal.Signals) -> None:
    host = fake_host(tmp_path, ANSWERING)
    (host / "system_stats").touch()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and hands that on
    environ = {**os.environ, "COMFYUI_PATH": str(host), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    command = [sys.executable, str(ROOT / "run.py"), "serve", "--port", str(server.free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert any("Ctrl-C stops it" in line for line in process.stdout)
        process.send_signal(stop)
        assert process.wait(20) == 1
        assert "Stopped." in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(int((host / "pid").read_text()), 0)


def fake_host(folder: Path, main: str, options: str = "") -> Path:
    host = folder / "host"
    (host / "custom_nodes").mkdir(parents=True)
    (host / "comfy").mkdir()
    (host / "comfy" / "cli_args.py").write_text(options)
    (host / "main.py").write_text(main)
    return host


def test_the_requirements_are_the_same_for_pip_and_for_the_registry() -> None:
    listed = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    declared = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert declared is not None
    assert re.findall(r'"(.*?)"', declared[1]) == listed


def ignored() -> set[str]:
    """Folders and files that the registry leaves out."""
    return {line.rstrip("/") for line in (ROOT / ".comfyignore").read_text().split()}


def imported(file: Path) -> set[str]:
    """Top folders of the pack that a file imports from, relatively."""
    depth = len(file.relative_to(ROOT).parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_nothing_that_users_install_imports_what_the_registry_leaves_out() -> None:
    assert ignored() >= {"benchmarks", "tests", "tools", ".ci", ".github"} and all((ROOT / name).exists() for name in ignored())
    shipped = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file() and folder.name not in ignored()]
    assert {folder.name for folder in shipped} >= {"core", "host", "recipes", "nodes", "playground", "training"}
    files = [file for folder in shipped for file in folder.rglob("*.py")]
    assert [file for file in files if imported(file) & ignored()] == []
    assert "core" in imported(ROOT / "nodes" / "common" / "scenes.py")  # `imported` sees what there is


def test_only_the_repository_of_the_pyproject_publishes() -> None:
    owner = re.search(r"repository_owner == '(\w+)'", (ROOT / ".github" / "workflows" / "publish.yml").read_text())
    assert owner is not None
    assert f'Repository = "https://github.com/{owner[1]}/freesteer"' in (ROOT / "pyproject.toml").read_text()
