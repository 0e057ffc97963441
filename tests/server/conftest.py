"""One real server with the pack for all tests here, and what there is to test: nodes, workflows."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from freesteer.tools.load_pack import ROOT, host_path
from freesteer.tools.server import Server, serving

UI_WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
LOADERS = ("CheckpointLoaderSimple", "LoadVideo")
API_WORKFLOWS = sorted((ROOT / "workflows" / "api").glob("*.json"))
OLD = ROOT / "tests" / "data" / "v0_1"  # what version 0.1 came with: it has to work for ever
WORKFLOWS = {
    "ui_workflow": UI_WORKFLOWS, "api_workflow": API_WORKFLOWS,
    "old_ui_workflow": sorted(OLD.glob("*.json")), "old_api_workflow": sorted((OLD / "api").glob("*.json")),
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`ui_workflow` and its like stand for every workflow of that kind."""
    for name, files in WORKFLOWS.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, files, ids=[file.stem for file in files], scope="module")


def lacking(message: str) -> NoReturn:
    """Skips a test on a machine of somebody's own; in CI, what is lacking there would never be noticed."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """ComfyUI on a free port, with this pack and no other: `get`, `post`, `run(api_workflow) -> outputs`, `log`, `folder`.

    It looks for checkpoints in `folder`/checkpoints too.
    """
    host = host_path()
    if host is None:
        lacking("server tests need ComfyUI: use `python run.py test`, or set COMFYUI_PATH")
    folder = tmp_path_factory.mktemp("server")
    (folder / "checkpoints").mkdir()
    paths = folder / "paths.yaml"
    paths.write_text(json.dumps({"tests": {"base_path": str(folder), "checkpoints": "checkpoints"}}))
    with serving(Path(sys.executable), host, folder, more=["--extra-model-paths-config", str(paths)]) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server: Server) -> dict[str, Any]:
    """What the server tells about every node type."""
    return server.get("/object_info")


def load(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def skip_without_splats(workflow: Path, object_info: dict[str, Any]) -> None:
    if "ReconstructSplats" in workflow.read_text(encoding="utf-8") and "SplatToFile3D" not in object_info:
        pytest.skip("this ComfyUI has no splats: 0.23 and newer have")


def needs_files(workflow: Path) -> bool:
    """Whether it loads what only its user has."""
    return any(loader in workflow.read_text(encoding="utf-8") for loader in LOADERS)
