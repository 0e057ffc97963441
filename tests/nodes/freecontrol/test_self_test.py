# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""The self-test: its report on the playground, what its words say, and what it refuses."""

import json
from pathlib import Path

import folder_paths
import pytest
import torch
from freesteer.nodes.common.checks import InputError
from freesteer.nodes.freecontrol import from_image, self_test
from freesteer.nodes.freecontrol.self_test import PLAYGROUND, words
from freesteer.playground.image import models
from freesteer.recipes.freecontrol.steps import BasisSettings

from ..conftest import CLASSES, World, run


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


def inputs(world: World, **changed):
    return {"model": world.model, "clip": world.clip, "vae": world.vae, "latent": world.latent, "steps": 2, **changed}


@pytest.mark.slow
def test_it_finds_the_playground_as_good_as_it_says(output: Path) -> None:
    model, clip, vae = models.load()
    given = {
        "model": model, "clip": clip, "vae": vae, "latent": {"samples": torch.zeros(3, 4, 16, 16)}, "prompt": "a red star on grass",
        "shape": "star", "seed": 0, "steps": 25, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "normal", "name": "tests/one",
    }  # fmt: skip
    with torch.inference_mode():
        made = CLASSES["FreeSteerSelfTest"].execute(**given)
    sheet, text = made.result
    report = json.loads(text)
    assert json.loads((output / "tests" / "one_00001_.json").read_text()) == report
    assert "Saved as tests/one_00001_.json" in made.ui["text"][0]
    assert sheet.ndim == 4 and sheet.shape[-1] == 3 and len(made.ui["images"]) == 1
    assert report["family"] == "FreeSteer playground" and report["format"] == "freesteer_selftest"
    for kind, value in PLAYGROUND.items():
        assert abs(report["overlap"][kind] - value) < 0.1
    assert sum(report["overlap_unsteered"].values()) < 0.3 * len(PLAYGROUND)  # one star lies there by chance
    assert 1 < report["time_ratio"] < 3


@pytest.mark.slow
def test_each_report_has_a_file_of_its_own_and_the_model_stays(world: World, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_image, "BASIS", BasisSettings(seed_images=2, steps=2, components=4))
    for _ in range(2):
        sheet, text = run("FreeSteerSelfTest", **inputs(world, latent={"samples": torch.zeros(1, 4, 8, 8)}))
        assert torch.isfinite(sheet).all() and json.loads(text)["memory_ratio"] is None
    assert len(list(output.rglob("selftest_*.json"))) == 2
    assert torch.equal(world.sample(), world.before)


def report(**changed) -> dict:
    return {
        "overlap": PLAYGROUND, "overlap_unsteered": dict.fromkeys(PLAYGROUND, 0.1), "time_ratio": self_test.PLAYGROUND_TIME,
        "memory_ratio": None, **changed,
    }  # fmt: skip


def test_what_is_as_on_the_playground_is_said_to_be() -> None:
    said = " ".join(words(report()))
    assert "No condition is followed less" in said and "much as on the playground" in said and "CUDA only" in said


def test_what_is_weaker_or_slower_is_named() -> None:
    said = " ".join(words(report(overlap={**PLAYGROUND, "edge": 0.3}, time_ratio=2.0, memory_ratio=1.4)))
    assert "Weaker than on the playground: edge (0.30" in said and "depth" not in said
    assert "slower than on the playground" in said and "1.40 times the memory" in said


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"clip": None}, "clip is missing"),
        ({"vae": None}, "vae is nothing"),
        ({"shape": "cube"}, "shape"),
        ({"steps": 0}, "steps"),
        ({"cfg": -1.0}, "cfg"),
        ({"prompt": "  "}, "prompt"),
        ({"name": "../../x"}, "name"),
        ({"latent": {"samples": torch.ones(1, 7, 8, 8)}}, "channels"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(world: World, changed: dict, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "remembered_basis", lambda *_: pytest.fail("drew"))
    with pytest.raises(InputError, match=told):
        run("FreeSteerSelfTest", **inputs(world, **changed))
