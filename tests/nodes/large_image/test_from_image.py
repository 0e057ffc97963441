"""A grid of what a picture shows at each place: with a style model, with models that read pictures, and with those that do not."""

import dataclasses
import importlib
import json
from typing import Any

import pytest
import torch
from comfy import supported_models
from comfy.clip_vision import ClipVisionModel
from comfy.ldm.flux.redux import ReduxImageEncoder
from comfy.sd import StyleModel
from freesteer.nodes.common.checks import InputError
from freesteer.tests.host import tiny

from ..conftest import run

SEEN = {
    "model_type": "clip_vision_model", "hidden_size": 16, "image_size": 28, "patch_size": 14, "num_attention_heads": 2,
    "num_hidden_layers": 2, "intermediate_size": 32, "num_channels": 3, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu",
    "projection_dim": 768,
}  # fmt: skip
UNCLIP = dataclasses.replace(
    tiny.RECIPES["SD 2"],
    config=supported_models.SD21UnclipL,
    unet={**tiny.RECIPES["SD 2"].unet, "adm_in_channels": 1536, "num_classes": "sequential"},
)


def filled(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    config = tmp_path_factory.mktemp("encoder") / "config.json"
    config.write_text(json.dumps(SEEN))
    found = ClipVisionModel(str(config))
    filled(found.model)
    return found


@pytest.fixture(scope="module")
def redux():
    network = ReduxImageEncoder(redux_dim=16, txt_in_features=12)
    filled(network)
    return StyleModel(network)


@pytest.fixture(scope="module")
def unclip():
    return tiny.from_recipe(UNCLIP, True)


@pytest.fixture
def picture():
    """Red on the left, blue on the right."""
    colours = torch.tensor([[1.0, 0.1, 0.1], [0.1, 0.1, 1.0]])
    return colours.repeat_interleave(32, 0).expand(1, 48, 64, 3).contiguous()


def grid_of(encoder, picture, made: tiny.Tiny, **inputs):
    given = {"clip_vision": encoder, "image": picture, "conditioning": made.positive, "rows": 1, "columns": 2}
    return run("FreeSteerGridFromImage", **{**given, **inputs})[0]


def drawn(made: tiny.Tiny, grid, windows: int = 1):
    """Of windows side by side."""
    side = made.latent.shape[-1]
    given = {"window": 8 * side, "stride": 8 * side, "between": "nearest", "blending": "uniform", "wraps": "none", "together": 0}
    model, positive = run("FreeSteerGridGuidance", model=made.model, grid=grid, **given)
    latent = made.latent[..., :side, :].repeat(*[1] * (made.latent.ndim - 1), windows)
    return dataclasses.replace(made, latent=latent, positive=positive).sample(model)


def square(made: tiny.Tiny) -> tiny.Tiny:
    return dataclasses.replace(made, latent=made.latent[..., : made.latent.shape[-1], :])


def by_the_host(made: tiny.Tiny, encoder, picture, strength: float, style=None) -> torch.Tensor:
    host: Any = importlib.import_module("nodes")
    with torch.inference_mode():
        seen = host.CLIPVisionEncode().encode(encoder, picture, "none")[0]
        if style is None:
            (positive,) = host.unCLIPConditioning().apply_adm(made.positive, seen, strength, 0.0)
        else:
            (positive,) = host.StyleModelApply().apply_stylemodel(made.positive, style, seen, strength, "multiply")
    return square(dataclasses.replace(made, positive=positive)).sample()


@pytest.mark.parametrize("family", ["Flux", "unCLIP"])
def test_without_strength_the_prompt_is_alone(encoder, redux, unclip, picture, family):
    made, style = (unclip, None) if family == "unCLIP" else (tiny.build(family, True), redux)
    assert torch.equal(drawn(made, grid_of(encoder, picture, made, strength=0.0, style_model=style)), square(made).sample())


def test_what_is_seen_is_mixed_between_parts(encoder, unclip, picture):
    grid = grid_of(encoder, picture, unclip)
    (finer,) = run("FreeSteerResizeGrid", grid=grid, rows=1, columns=4, between="linear")
    left, right, between = (
        options["unclip_conditioning"][0]["clip_vision_output"].image_embeds
        for _, options in (grid.cells[0][0], grid.cells[0][1], finer.cells[0][1])
    )
    torch.testing.assert_close(between, 0.75 * left + 0.25 * right)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("family", ["Flux", "unCLIP"])
def test_one_part_is_what_the_host_makes_of_the_picture(encoder, redux, unclip, picture, family, strength):
    made, style = (unclip, None) if family == "unCLIP" else (tiny.build(family, True), redux)
    grid = grid_of(encoder, picture, made, columns=1, strength=strength, style_model=style)
    assert torch.equal(drawn(made, grid), by_the_host(made, encoder, picture, strength, style))


@pytest.mark.parametrize("family", ["Flux", "unCLIP"])
def test_each_place_has_its_own_part(encoder, redux, unclip, picture, family):
    made, style = (unclip, None) if family == "unCLIP" else (tiny.build(family, True), redux)
    left, right = picture.chunk(2, 2)
    wide, swapped = (drawn(made, grid_of(encoder, p, made, style_model=style), 2) for p in (picture, torch.cat([right, left], 2)))
    assert not torch.allclose(wide, swapped)
    alike = drawn(made, grid_of(encoder, torch.cat([left, left], 2), made, style_model=style), 2)
    torch.testing.assert_close(alike.chunk(2, -1)[0], wide.chunk(2, -1)[0], rtol=1e-3, atol=1e-3)


def test_a_model_that_reads_no_pictures_is_told(encoder, picture):
    made = tiny.build("SD 1.5", True)
    with pytest.raises(ValueError, match="reads none: take an unCLIP model"):
        drawn(made, grid_of(encoder, picture, made), 2)


def test_parts_are_shown_with_colours_of_what_is_seen(encoder, unclip, picture):
    (page,) = run("FreeSteerPreviewGrid", grid=grid_of(encoder, picture, unclip))
    height, width = page.shape[1:3]
    assert (page[0, height - 2, width // 4] - page[0, height - 2, 3 * width // 4]).abs().max() > 0.3


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"clip_vision": None}, "clip_vision is missing"),
        ({"image": None}, "image has to be an IMAGE"),
        ({"image": torch.zeros(1, 0, 4, 3)}, "image has no pixels"),
        ({"image": torch.full((1, 4, 4, 3), float("nan"))}, "not numbers"),
        ({"conditioning": []}, "conditioning is empty"),
        ({"conditioning": [[torch.zeros(1, 77, 1024), {}]] * 2}, "conditioning has 2 prompts"),
        ({"rows": 0}, "rows is 0"),
        ({"columns": 1.5}, "columns is 1.5"),
        ({"rows": 40, "columns": 40}, "1600 cells"),
        ({"rows": 49}, "rows is 49, more than the picture's 48 pixels"),
        ({"columns": 65}, "columns is 65, more than the picture's 64 pixels"),
        ({"strength": -1.0}, "strength is -1"),
        ({"strength": float("nan")}, "strength is nan"),
    ],
)
def test_what_cannot_be(encoder, unclip, picture, inputs, says):
    with pytest.raises(InputError, match=says):
        grid_of(encoder, picture, unclip, **inputs)
