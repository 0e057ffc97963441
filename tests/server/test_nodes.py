"""What the server tells of our nodes: all are there, and each says what it does."""

import asyncio
from typing import Any

import pytest
from freesteer.tools.load_pack import ROOT
from freesteer.tools.server import Server


@pytest.fixture(scope="module")
def ours(server: Server, object_info: dict[str, Any]) -> dict[str, Any]:
    return {name: info for name, info in object_info.items() if name.startswith("FreeSteer")}


def test_the_server_has_exactly_the_nodes_of_the_pack(ours: dict[str, Any]) -> None:
    from freesteer.nodes import comfy_entrypoint

    async def listed() -> set[str]:
        extension = await comfy_entrypoint()
        return {node.GET_SCHEMA().node_id for node in await extension.get_node_list()}

    assert set(ours) == asyncio.run(listed())
    assert ours


def test_the_pack_is_imported_without_complaint(server: Server) -> None:
    lines = server.log.read_text(errors="replace").splitlines()
    assert [line for line in lines if "FreeSteer" in line and ("Cannot import" in line or "comfy_entrypoint" in line)] == []
    assert [line for line in lines if "seconds" in line and line.endswith("FreeSteer")]


def test_every_node_input_and_output_is_explained(ours: dict[str, Any]) -> None:
    silent = [name for name, info in ours.items() if not info["description"]]
    for name, info in ours.items():
        for kind in ("required", "optional"):
            inputs = info["input"].get(kind, {})
            silent += [f"{name}.{key}" for key, spec in inputs.items() if not (len(spec) > 1 and spec[1].get("tooltip"))]
    assert silent == []


def test_every_node_is_in_the_packs_own_category(ours: dict[str, Any]) -> None:
    assert [name for name, info in ours.items() if not info["category"].lower().startswith("freesteer")] == []


def test_help_pages_belong_to_nodes_and_are_served(server: Server, ours: dict[str, Any]) -> None:
    pages = sorted((ROOT / "web" / "docs").glob("*.md"))
    assert {page.stem for page in pages} <= set(ours)
    for page in pages:
        assert server.get(f"/extensions/FreeSteer/docs/{page.name}") == page.read_bytes()
