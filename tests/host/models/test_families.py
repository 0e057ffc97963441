from dataclasses import replace

import pytest
from freesteer.host.models import families
from freesteer.tests.host import tiny

FREECONTROL = {  # the layers of the paper's code, in the host's numbers
    "SD 1.5": ["output.3.attn1", "output.4.attn1", "output.5.attn1"],
    "SD 2": ["output.3.attn1", "output.4.attn1", "output.5.attn1"],
    "SDXL": [f"output.{block}.{i}.attn1" for block in (0, 1, 2) for i in (0, 1)],
}


@pytest.mark.parametrize("family", list(tiny.RECIPES))
def test_each_model_is_recognised(family):
    assert families.family_of(tiny.build(family).model).name == family


@pytest.mark.parametrize("family", list(FREECONTROL))
def test_structure_layers_are_freecontrols(family):
    assert [point.name for point in families.structure_points(tiny.build(family).model)] == FREECONTROL[family]


def test_the_playground_offers_its_whole_decoder():
    names = [point.name for point in families.structure_points(tiny.build("FreeSteer playground").model)]
    assert names == ["output.0.attn1", "output.1.attn1", "output.2.attn1", "output.3.attn1"]


@pytest.mark.parametrize("family", list(tiny.RECIPES))
def test_choices_are_parts_of_the_decoder(family):
    model = tiny.build(family).model
    chosen = {choice: [point.name for point in families.structure_points(model, choice)] for choice in families.CHOICES}
    assert all(chosen.values())
    assert set(chosen["coarse"]) | set(chosen["fine"]) <= set(chosen["all decoder"])
    assert len(chosen["all decoder"]) == 1 or chosen["coarse"] != chosen["fine"]


def test_an_unknown_model_is_named_and_so_are_the_known_ones():
    model = tiny.build("SD 1.5").model.clone()
    model.model = type("Model", (), {"diffusion_model": type("StageC", (), {})(), "model_config": model.model.model_config})()
    with pytest.raises(families.UnknownModelError, match=r"StageC.*SD 1\.5, SD 2, SVD, SDXL, SD 3, Flux"):
        families.family_of(model)


def test_a_unet_with_another_text_encoder_is_not_taken_for_a_known_one():
    recipe = tiny.RECIPES["SD 1.5"]
    unknown = tiny.from_recipe(replace(recipe, unet={**recipe.unet, "context_dim": 1280}))
    with pytest.raises(families.UnknownModelError, match="1280"):
        families.family_of(unknown.model)


def test_a_transformers_choices_are_by_depth():
    model = tiny.build("Wan").model
    names = {choice: [point.name for point in families.structure_points(model, choice)] for choice in families.CHOICES}
    assert names == {
        "all decoder": ["block.0", "block.1", "block.2", "block.3"],
        "coarse": ["block.1"],  # from a quarter to half of the depth
        "default": ["block.1", "block.2"],  # a quarter, and what it touches, around the middle
        "fine": ["block.2", "block.3"],
    }


def test_a_unets_choices_are_by_resolution():
    model = tiny.build("SD 1.5").model
    names = {choice: [point.name for point in families.structure_points(model, choice)] for choice in families.CHOICES}
    assert names["coarse"] == names["default"] == FREECONTROL["SD 1.5"]
    assert names["fine"] == ["output.9.attn1", "output.10.attn1", "output.11.attn1"]
    assert names["all decoder"] == [f"output.{n}.attn1" for n in range(3, 12)]


def test_the_usual_size_of_a_familys_pictures():
    assert {family.name: family.side for family in families.FAMILIES} == {
        "FreeSteer playground": 128, "FreeSteer playground clips": 128, "SD 1.5": 512, "SD 2": 768, "SVD": 768, "SDXL": 1024,
        "SD 3": 1024, "Flux": 1024, "Qwen-Image": 1024, "Lumina 2 and Z-Image": 1024, "Hunyuan Video": 720, "Wan": 640, "LTX Video": 640,
    }  # fmt: skip


def test_a_class_alone_tells_the_layout():
    for family in ("SDXL", "Flux", "Wan"):
        diffusion_model = tiny.build(family).model.model.diffusion_model
        assert families.of_diffusion_model(diffusion_model).layout == families.family_of(tiny.build(family).model).layout
    with pytest.raises(families.UnknownModelError, match="str"):
        families.of_diffusion_model("a text")  # pyright: ignore[reportArgumentType]


def test_sd_2_and_its_video_model_are_told_apart():
    config = {"context_dim": 1024}
    still, video = (next(family for family in families.FAMILIES if family.name == name) for name in ("SD 2", "SVD"))
    for given, expected in (({}, (True, False)), ({"use_temporal_attention": True}, (False, True))):
        assert (still.config({**config, **given}), video.config({**config, **given})) == expected
