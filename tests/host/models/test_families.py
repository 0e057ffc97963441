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
