"""The workflows that come with the pack fit its nodes, and run."""

import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from freesteer.tools.server import Server
from PIL import Image

from .conftest import API_WORKFLOWS, OLD, UI_WORKFLOWS, load, needs_files, skip_without_splats

VIDEOS = {"splats": 2, "splats_flight": 1, "peekaboo_clip": 2, "freecontrol_clip": 3, "freeinit": 2}  # that a workflow saves
CLIPS = ("demo_video", "freecontrol_clip", "freeinit", "peekaboo_clip")
FRONTEND_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}


def test_there_are_workflows_of_both_kinds() -> None:
    assert UI_WORKFLOWS
    assert {file.stem for file in API_WORKFLOWS} >= {file.stem for file in UI_WORKFLOWS}


def assert_known(workflow: dict[str, Any], object_info: dict[str, Any]) -> None:
    """Every node, input and choice of an API workflow is one that the server knows, and none that it needs is missing."""
    for node, data in workflow.items():
        kind = data["class_type"]
        assert kind in object_info, f"node {node}"
        schema = object_info[kind]["input"]
        required, optional = schema.get("required", {}), schema.get("optional", {})
        assert {name.split(".")[0] for name in data["inputs"]} <= {*required, *optional}, f"node {node}, {kind}"
        assert set(required) <= set(data["inputs"]), f"node {node}, {kind}"
        for name, value in data["inputs"].items():
            choices = choices_of({**required, **optional}.get(name))
            assert choices is None or not kind.startswith("FreeSteer") or value in choices, f"node {node}, {kind}: {name}"


def choices_of(spec: Any) -> list[Any] | None:
    """What an input may be, if it is a choice: hosts tell it in two ways."""
    if spec and isinstance(spec[0], list):
        return spec[0]
    return spec[1]["options"] if spec and spec[0] == "COMBO" else None


def test_every_node_and_input_exists(api_workflow: Path, object_info: dict[str, Any]) -> None:
    skip_without_splats(api_workflow, object_info)
    assert_known(load(api_workflow), object_info)


def test_the_nodes_know_the_workflows_of_0_1(old_api_workflow: Path, object_info: dict[str, Any]) -> None:
    skip_without_splats(old_api_workflow, object_info)
    assert_known(load(old_api_workflow), object_info)


def test_a_lost_node_input_or_choice_is_noticed(object_info: dict[str, Any]) -> None:
    for number, change in (("3", {"class_type": "FreeSteerGone"}), ("3", {"gone": 1}), ("3", {"shape": "gone"}), ("7", {"steps": None})):
        workflow = load(OLD / "api" / "freecontrol.json")
        inputs = {**workflow[number]["inputs"], **change}
        workflow[number] = {"class_type": change.get("class_type", workflow[number]["class_type"]), "inputs": inputs}
        for name in [name for name, value in change.items() if value is None or name == "class_type"]:
            inputs.pop(name)
        with pytest.raises(AssertionError, match=f"node {number}"):
            assert_known(workflow, object_info)


def test_every_node_type_of_the_picture_exists(ui_workflow: Path, object_info: dict[str, Any]) -> None:
    skip_without_splats(ui_workflow, object_info)
    workflow = load(ui_workflow)
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs", [])
    known = {*object_info, *FRONTEND_ONLY, *(graph["id"] for graph in subgraphs)}
    for graph in (workflow, *subgraphs):
        assert {node["type"] for node in graph["nodes"]} <= known


def test_the_template_browser_has_the_workflow_and_its_picture(ui_workflow: Path, server: Server) -> None:
    assert ui_workflow.stem in server.get("/api/workflow_templates")["FreeSteer"]
    picture = server.get(f"/api/workflow_templates/FreeSteer/{ui_workflow.stem}.jpg")
    assert min(Image.open(io.BytesIO(picture)).size) >= 200


def loaded(file: Path) -> dict[str, Any]:
    """A workflow as it is, but of clips with fewer steps, for time."""
    workflow = load(file)
    for data in workflow.values() if file.stem in CLIPS else ():
        for name, most in {"steps": 6, "extra_passes": 2}.items():
            if name in data["inputs"]:
                data["inputs"][name] = min(data["inputs"][name], most)
    return workflow


def test_the_workflow_runs(api_workflow: Path, server: Server, object_info: dict[str, Any]) -> None:
    skip_without_splats(api_workflow, object_info)
    if needs_files(api_workflow):
        pytest.skip("needs files of the user: see test_checkpoint.py, and the test of splats_video below")
    server.post("/free", {"free_memory": True})  # or ComfyUI 0.20 tells no outputs of what the browser ran before
    outputs = server.run(loaded(api_workflow))
    assert outputs
    texts = [text for output in outputs.values() for text in output.get("text", [])]
    told = [re.search(r"result and condition: (\d\.\d+), unsteered (\d\.\d+)", text) for text in texts]
    for overlap in filter(None, told):
        assert float(overlap[1]) > float(overlap[2]) + 0.3
    assert any(told) == (api_workflow.stem == "freecontrol")
    errors = [re.search(r"^ATE (\d\.\d+)", text) for text in texts]
    assert all(float(error[1]) < 0.02 for error in errors if error)
    assert any(errors) == (api_workflow.stem == "splats")
    files = [file for output in outputs.values() for file in output.get("images", [])]
    videos = [file for file in files if file["filename"].endswith(".mp4")]
    assert len(videos) == VIDEOS.get(api_workflow.stem, 0)
    assert all(len(server.get("/view?" + urlencode(file))) > 5_000 for file in videos)
    for file in [file for file in files if file not in videos]:
        picture = np.asarray(Image.open(io.BytesIO(server.get("/view?" + urlencode(file)))))
        assert picture.std() > 2, f"{file['filename']} is blank"


def test_a_video_becomes_splats_without_the_depth_nodes(server: Server, object_info: dict[str, Any]) -> None:
    """The template for a user's clip, whose depth nodes need a model that cannot be had here, and may be left out."""
    file = next(file for file in API_WORKFLOWS if file.stem == "splats_video")
    skip_without_splats(file, object_info)
    clip = {"kind": "sideways", "frames": 10, "width": 96, "height": 72, "as_estimated": False, "seed": 0}
    filmed = server.run({
        "1": {"class_type": "FreeSteerPlaygroundClip", "inputs": clip},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 12.0}},
        "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "clip", "format": "mp4", "codec": "h264"}},
    })  # fmt: skip
    video = filmed["3"]["images"][0]
    workflow = {node: data for node, data in load(file).items() if data["class_type"] not in ("LoadDA3Model", "DA3Inference", "DA3Render")}
    of_kind = {data["class_type"]: data["inputs"] for data in workflow.values()}
    of_kind["LoadVideo"]["file"] = f"{video['filename']} [{video['type']}]"
    del of_kind["FreeSteerReconstructSplats"]["depth"]
    of_kind["FreeSteerReconstructSplats"]["preset"] = "preview"
    outputs = server.run(workflow)
    kinds = {workflow[node]["class_type"]: output for node, output in outputs.items()}
    assert kinds["FreeSteerPreviewCameraPath"]["images"] and "cameras_0" in kinds["FreeSteerSaveCameraPath"]["text"][0]


def test_the_workflow_of_0_1_runs(server: Server) -> None:
    """With fewer pictures and steps, for time."""
    workflow = load(OLD / "api" / "freecontrol.json")
    for node in workflow.values():
        node["inputs"].update({name: value for name, value in {"batch_size": 2, "steps": 4}.items() if name in node["inputs"]})
    outputs = server.run(workflow)
    assert {node: len(output["images"]) for node, output in outputs.items() if "images" in output} == dict.fromkeys(
        ("11", "12", "13", "14"), 2
    )
    (text,) = outputs["14"]["text"]
    assert re.search(r"result and condition: \d\.\d+, unsteered \d\.\d+", text)


def saving(prefix: str | None) -> dict[str, Any]:
    image = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    inputs = {"images": ["1", 0]} if prefix is None else {"images": ["1", 0], "filename_prefix": prefix}
    return {"1": image, "2": {"class_type": "SaveImage", "inputs": inputs}}


def test_a_wrong_workflow_is_refused_with_the_name_of_its_node(server: Server) -> None:
    with pytest.raises(RuntimeError, match=r"SaveImage \(node 2\): Required input is missing: filename_prefix"):
        server.run(saving(None))


def test_an_error_in_a_node_is_raised_with_its_name(server: Server) -> None:
    with pytest.raises(RuntimeError, match=r"SaveImage \(node 2\) failed: .*outside the output folder"):
        server.run(saving("../outside"))
