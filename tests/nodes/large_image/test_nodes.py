"""Grids of meanings and what is drawn with them, as a user connects them, and what they say of inputs that cannot be."""

import comfy.sample
import pytest
import torch
from freesteer.core.windows import cut
from freesteer.nodes.common.checks import InputError
from freesteer.nodes.large_image.inputs import MOST_CELLS
from freesteer.playground.image import models
from freesteer.recipes.large_image import grid as recipe
from freesteer.tests.host.gradients.test_gradients import fingerprint

from ..conftest import run, tiny

NAN = float("nan")
ROW = "a red ball on grass | a blue ring on sand"


@pytest.fixture(scope="module")
def playground():
    with torch.inference_mode():
        return models.load()


@pytest.fixture
def made(playground):
    """A grid of prompts."""
    return lambda prompts=ROW, everywhere="": run("FreeSteerGridFromPrompts", clip=playground[1], prompts=prompts, everywhere=everywhere)[0]


@pytest.fixture
def guided(playground, made):
    given = {"window": 128, "stride": 64, "between": "slerp", "blending": "gaussian", "wraps": "none", "together": 0}
    return lambda grid=None, **inputs: run("FreeSteerGridGuidance", **{"model": playground[0], "grid": grid or made(), **given, **inputs})


def draw(playground, model, positive, size, steps=2, seed=1, noise=None):
    """(1, 4, h, w) latents."""
    _, clip, _ = playground
    with torch.inference_mode():
        negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        latent = torch.zeros(1, 4, *size)
        noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
        return comfy.sample.sample(model, noise, steps, 4.0, "euler", "normal", positive, negative, latent, disable_pbar=True, seed=seed)


def encoded(playground, text):
    clip = playground[1]
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def test_a_table_becomes_a_grid(made):
    grid = made("a | b | c\n\n| d | e | f |\n", "painted")
    assert grid.shape == (2, 3)
    assert grid.words == (("a, painted", "b, painted", "c, painted"), ("d, painted", "e, painted", "f, painted"))


def test_a_cell_may_stay_empty(made):
    assert made("a red ball | \n | a blue ring").words == (("a red ball", ""), ("", "a blue ring"))


def test_a_prompt_that_comes_twice_is_encoded_once(made):
    grid = made("a | b | a")
    assert grid.cells[0][0][0] is grid.cells[0][2][0]


def test_a_picture_of_one_window_with_one_prompt_is_the_plain_one(playground, made, guided):
    model = playground[0]
    before = fingerprint(model)
    steered, positive = guided(made("a red ball on grass"))
    plain = draw(playground, model, encoded(playground, "a red ball on grass"), (16, 16))
    assert torch.equal(draw(playground, steered, positive, (16, 16)), plain)
    assert fingerprint(model) == before


def test_windows_that_do_not_overlap_are_pictures_of_their_own_prompts(playground, guided):
    steered, positive = guided(stride=128, between="nearest")
    noise = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(4))
    wide = draw(playground, steered, positive, (16, 32), noise=noise)
    for left, text in zip((0, 16), ROW.split(" | "), strict=True):
        own = noise[..., left : left + 16].contiguous()
        alone = draw(playground, playground[0], encoded(playground, text), (16, 16), noise=own)
        torch.testing.assert_close(cut(wide, (0, left), (16, 16)), alone, rtol=1e-3, atol=1e-3)


def test_how_many_windows_are_drawn_together_does_not_matter(playground, guided):
    one, several = (draw(playground, model, positive, (16, 32)) for model, positive in (guided(together=n) for n in (1, 3)))
    torch.testing.assert_close(one, several, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(16, 40), (24, 24), (8, 8), (16, 16), (9, 33)])
@pytest.mark.parametrize("wraps", ["none", "left and right", "both"])
def test_any_size_is_drawn(playground, made, guided, size, wraps):
    model, positive = guided(made("a | b\nc | d"), wraps=wraps)
    drawn = draw(playground, model, positive, size, steps=1)
    assert drawn.shape[-2:] == size and drawn.isfinite().all()


def test_a_grid_may_come_twice_each_with_its_own_mask(playground, guided):
    steered, positive = guided(stride=128, between="nearest")
    halves = torch.zeros(2, 1, 16, 32)
    halves[0, :, :8], halves[1, :, 8:] = 1, 1
    twice = [[text, {**options, "mask": mask, "mask_strength": 1.0}] for mask in halves for text, options in positive]
    noise = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(4))
    plain, masked = (draw(playground, steered, each, (16, 32), noise=noise) for each in (positive, twice))
    torch.testing.assert_close(masked, plain, rtol=1e-3, atol=1e-3)


def test_grids_of_longer_prompts_are_painted():
    """As of text encoders that give a prompt as many tokens as it has words."""
    generator = torch.Generator().manual_seed(0)
    short, long = (torch.randn(1, count, 8, generator=generator) for count in (3, 5))
    ones = {count: {"attention_mask": torch.ones(1, count)} for count in (3, 5)}
    one, other = (recipe.Grid(((cell,) * 2,), (("a", "b"),)) for cell in ((short, ones[3]), (long, ones[5])))
    mask = torch.tensor([[[0.0, 1.0]]])
    (painted,) = run("FreeSteerPaintGrid", grid=one, other=other, mask=mask, amount=1.0, between="slerp")
    (first, options), (second, others) = painted.cells[0]
    assert torch.equal(first[:, :3], short) and not first[:, 3:].any() and options["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]
    assert torch.equal(second, long) and others["attention_mask"].tolist() == [[1] * 5]


def test_a_grid_of_more_cells_is_the_same_grid(made):
    grid = made("a red ball | a blue ring\na green star | a yellow heart")
    (larger,) = run("FreeSteerResizeGrid", grid=grid, rows=4, columns=6, between="slerp")
    assert larger.shape == (4, 6) and larger.words[0][0] == "a red ball" and larger.words[3][5] == "a yellow heart"
    assert torch.equal(larger.cells[0][0][0], grid.cells[0][0][0])
    (again,) = run("FreeSteerResizeGrid", grid=grid, rows=2, columns=2, between="slerp")
    assert all(torch.equal(a[0], b[0]) for mine, its in zip(again.cells, grid.cells, strict=True) for a, b in zip(mine, its, strict=True))


def test_a_region_is_painted(made):
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    (grid,) = run("FreeSteerResizeGrid", grid=made("a"), rows=2, columns=3, between="slerp")
    (painted,) = run("FreeSteerPaintGrid", grid=grid, other=made("b"), mask=mask, amount=1.0, between="slerp")
    assert painted.words == (("b",) * 3, ("a",) * 3)
    (half,) = run("FreeSteerPaintGrid", grid=grid, other=made("b"), mask=mask, amount=0.5, between="linear")
    torch.testing.assert_close(half.cells[0][0][0], (grid.cells[0][0][0] + painted.cells[0][0][0]) / 2)
    (none,) = run("FreeSteerPaintGrid", grid=grid, other=made("b"), amount=0.0, between="slerp")
    assert none.cells == grid.cells


def test_a_grid_is_shown_with_like_colours_for_like_prompts(made):
    (picture,) = run("FreeSteerPreviewGrid", grid=made("a red ball | a red ball | a blue ring on sand"))
    height, width = picture.shape[1:3]
    bottoms = picture[0, height - 2, [width // 6, width // 2, width - 8]]
    assert torch.equal(bottoms[0], bottoms[1]) and (bottoms[0] - bottoms[2]).abs().max() > 0.3


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("", "prompts is empty"),
        ("  \n ", "prompts is empty"),
        ("a | b\nc", "2 cells in its first row and 1 in row 2"),
        ("a\nb | c", "1 cells in its first row and 2 in row 2"),
        ("a | b\nc | d\ne | f | g", "3 in row 3"),
        ("\n".join(["a"] * (MOST_CELLS + 1)), f"{MOST_CELLS} are the most"),
        (" | ".join(["a"] * (MOST_CELLS + 1)), f"{MOST_CELLS} are the most"),
    ],
)
def test_a_table_that_cannot_be(made, prompts, says):
    with pytest.raises(InputError, match=says):
        made(prompts)


def test_no_clip(made):
    with pytest.raises(InputError, match="clip is missing"):
        run("FreeSteerGridFromPrompts", clip=None, prompts="a", everywhere="")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"window": 100}, "window is 100: choose a multiple of 8"),
        ({"window": 0}, "window is 0"),
        ({"window": 128.5}, "window is 128.5"),
        ({"window": NAN}, "window is nan"),
        ({"window": -64}, "window is -64"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 20}, "stride is 20: choose a multiple of 8"),
        ({"stride": NAN}, "stride is nan"),
        ({"stride": 136}, "stride is 136, more than the window of 128"),
        ({"between": "cubic"}, "between is 'cubic'"),
        ({"blending": "none"}, "blending is 'none'"),
        ({"wraps": "yes"}, "wraps is 'yes'"),
        ({"together": -1}, "together is -1"),
        ({"together": 65}, "together is 65"),
        ({"together": 1.5}, "together is 1.5"),
    ],
)
def test_guidance_that_cannot_be(guided, inputs, says):
    with pytest.raises(InputError, match=says):
        guided(**inputs)


@pytest.mark.parametrize("grid", [None, "a | b", [], torch.zeros(2, 2)])
def test_what_is_no_grid(playground, made, grid):
    given = {"window": 128, "stride": 64, "between": "slerp", "blending": "gaussian", "wraps": "none", "together": 0}
    with pytest.raises(InputError, match=r"grid is .*connect a grid"):
        run("FreeSteerGridGuidance", model=playground[0], grid=grid, **given)
    with pytest.raises(InputError, match="connect a grid"):
        run("FreeSteerResizeGrid", grid=grid, rows=2, columns=2, between="slerp")
    with pytest.raises(InputError, match=r"other is .*connect a grid"):
        run("FreeSteerPaintGrid", grid=made(), other=grid, amount=1.0, between="slerp")
    with pytest.raises(InputError, match="connect a grid"):
        run("FreeSteerPreviewGrid", grid=grid)


@pytest.mark.parametrize("family", ["SDXL", "Flux", "SD 1.5"])
def test_a_grid_of_another_text_encoder(guided, family):
    with pytest.raises(InputError, match="grid is of another kind of model: it has 128 numbers"):
        guided(model=tiny.build(family, True).model)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"columns": 0}, "columns is 0"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"columns": NAN}, "columns is nan"),
        ({"rows": 64, "columns": 64}, "4096 cells"),
        ({"between": "?"}, "between is"),
    ],
)
def test_a_size_that_cannot_be(made, inputs, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerResizeGrid", **{"grid": made(), "rows": 2, "columns": 2, "between": "slerp", **inputs})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"amount": NAN}, "amount is nan"),
        ({"amount": 1.5}, "amount is 1.5"),
        ({"amount": -0.1}, "amount is -0.1"),
        ({"between": ""}, "between is"),
        ({"mask": torch.zeros(1, 0, 4)}, "mask has to be a MASK"),
        ({"mask": torch.zeros(4)}, "mask has to be a MASK"),
        ({"mask": "half"}, "mask has to be a MASK"),
        ({"mask": torch.full((1, 4, 4), NAN)}, "not numbers"),
    ],
)
def test_a_painting_that_cannot_be(made, inputs, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerPaintGrid", **{"grid": made(), "other": made("b"), "amount": 1.0, "between": "slerp", **inputs})
