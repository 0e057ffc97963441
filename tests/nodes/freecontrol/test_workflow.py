# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""The API workflow fits the nodes' schemas: seen without a server, in a second."""

import json

import pytest
from freesteer.nodes.freecontrol.structure import GUIDE, READING
from freesteer.recipes.freecontrol.steps import BasisSettings
from freesteer.tools.load_pack import ROOT

from ..conftest import CLASSES

WORKFLOW = json.loads((ROOT / "workflows" / "api" / "freecontrol.json").read_text(encoding="utf-8"))
OURS = {number: node for number, node in WORKFLOW.items() if node["class_type"].startswith("FreeSteer")}


@pytest.mark.parametrize("number", OURS)
def test_inputs_are_those_of_the_schema(number):
    node = OURS[number]
    inputs = CLASSES[node["class_type"]].GET_SCHEMA().inputs
    assert {i.id for i in inputs if not i.optional} <= set(node["inputs"]) <= {i.id for i in inputs}
    for i in inputs:
        if getattr(i, "options", None) and i.id in node["inputs"]:
            assert node["inputs"][i.id] in i.options


def test_it_saves_what_the_demo_lays_out():
    prefixes = {node["inputs"]["filename_prefix"] for node in WORKFLOW.values() if node["class_type"] == "SaveImage"}
    assert prefixes == {"freesteer/condition", "freesteer/unsteered", "freesteer/steered"}
    assert any(node["class_type"] == "FreeSteerOverlap" for node in WORKFLOW.values())


def test_it_shows_the_defaults():
    (inputs,) = [node["inputs"] for node in OURS.values() if node["class_type"] == "FreeSteerFreeControlFromImage"]
    shown = (inputs["strength"], inputs["end_percent"], inputs["appearance"], inputs["method"], inputs["cfg"])
    assert shown == (GUIDE.strength, GUIDE.end, GUIDE.appearance, READING.method, BasisSettings().cfg)
