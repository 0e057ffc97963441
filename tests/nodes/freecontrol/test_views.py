# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""What the nodes show: pictures of structures, the measure of overlap, drawn conditions."""

import pytest
import torch
from freesteer.nodes.common.previews import CELL, GAP, HEAD, outlined, some
from freesteer.nodes.freecontrol.views import first_object
from freesteer.nodes.playground.condition import EACH
from freesteer.playground.world import conditions
from freesteer.playground.world import world as drawn

from ..conftest import CLASSES, World, run


def square(left: int, size: int = 64) -> torch.Tensor:
    mask = torch.zeros(1, size, size)
    mask[:, 16:48, left : left + 32] = 1
    return mask


def measure(**inputs):
    with torch.inference_mode():
        return CLASSES["FreeSteerOverlap"].execute(**inputs)


def test_a_structure_is_shown_with_a_row_a_layer_and_a_column_a_level(world: World) -> None:
    (image,) = run("FreeSteerPreviewStructure", structure=world.structure)
    layers, levels = len(world.structure.layers), 3
    assert image.shape == (1, HEAD + layers * (HEAD + CELL), GAP + levels * (CELL + GAP), 3)
    assert 0 <= image.min() < image.max() <= 1


def test_a_basis_is_shown_with_its_first_picture(world: World) -> None:
    _, preview = run(
        "FreeSteerExtractBasis", model=world.model, clip=world.clip, latent=world.latent, prompts="a star", seed_images=1, steps=2,
        components=2,
    )  # fmt: skip
    assert preview.shape[0] == 1 and preview.std() > 0.05


def test_some_are_the_first_the_last_and_between() -> None:
    assert some(30, 4) == [0, 10, 19, 29]
    assert some(3, 8) == [0, 1, 2]
    assert some(1, 8) == [0]


@pytest.mark.parametrize(("shift", "wanted"), [(0, 1.0), (16, 1 / 3), (32, 0.0)])
def test_overlap_is_the_shared_part_of_both(world: World, shift: int, wanted: float) -> None:
    overlap, overlay = measure(result=torch.rand(1, 64, 64, 3), condition=square(0), result_mask=square(shift)).result
    assert overlap == pytest.approx(wanted)
    assert overlay.shape == (1, 64, 64, 3)


def test_what_is_not_found_in_the_result_overlaps_nowhere(world: World) -> None:
    overlap, _ = measure(result=torch.rand(1, 64, 64, 3), condition=square(0), result_mask=torch.zeros(1, 64, 64)).result
    assert overlap == 0


def test_overlap_tells_its_mean_and_shows_each(world: World) -> None:
    output = measure(result=torch.rand(2, 64, 64, 3), condition=square(0), result_mask=torch.cat([square(0), square(32)]))
    assert output.result[0] == pytest.approx(0.5)
    assert output.ui["text"] == ("Mean overlap of result and condition: 0.50",)
    assert len(output.ui["images"]) == 2


def test_a_condition_of_another_size_is_scaled(world: World) -> None:
    overlap, _ = measure(result=torch.rand(1, 128, 128, 3), condition=square(16), result_mask=square(16)).result
    assert overlap == pytest.approx(1)


def test_only_the_outline_is_drawn() -> None:
    image = torch.zeros(1, 64, 64, 3)
    drawn_on = outlined(image, square(16))
    changed = (drawn_on != image).any(-1)[0]
    assert changed.sum() == 34 * 34 - 32 * 32
    assert not changed[17:47, 17:47].any()


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a red star on grass", ("red", "star")),
        ("a photo of an orange ring left of a white cross", ("orange", "ring")),
        ("a small heart in the night", (None, "heart")),
        ("a BLUE shape, on ice", ("blue", None)),
    ],
)
def test_the_first_thing_of_a_prompt_is_looked_for(prompt: str, found: tuple) -> None:
    assert first_object(prompt) == found


def test_the_referee_finds_what_is_named_and_nothing_else(world: World) -> None:
    scenes = drawn.sample_scenes(2, torch.Generator().manual_seed(3), (1.0, 0.0, 0.0))
    scenes.shape[:], scenes.colour[:] = drawn.SHAPES.index("star"), drawn.COLOUR_NAMES.index("red")
    images, masks = drawn.render(scenes)
    result = images.movedim(1, -1)
    output = measure(result=result, condition=masks[:, 0], prompt="a red star", unsteered=result.flip(0))
    assert output.result[0] > 0.85
    assert "unsteered 0." in output.ui["text"][0] and "not recognised" not in output.ui["text"][0]
    assert measure(result=result, condition=masks[:, 0], prompt="a red ring").result[0] == output.result[0]  # a shape that was bent
    nowhere = measure(result=result, condition=masks[:, 0], prompt="a blue star")
    assert nowhere.result[0] == 0 and "not recognised in 2 of 2 pictures" in nowhere.ui["text"][0]


@pytest.mark.parametrize("kind", [*conditions.KINDS, EACH])
def test_a_condition_shows_its_mask(kind: str) -> None:
    image, mask = run("FreeSteerPlaygroundCondition", kind=kind, shape="ball", batch_size=5, seed=4)
    assert image.shape == (5, 128, 128, 3) and mask.shape == (5, 128, 128)
    assert 0 <= image.min() < image.max() <= 1
    assert (mask.flatten(1).sum(1) > 400).all()
    again, _ = run("FreeSteerPlaygroundCondition", kind=kind, shape="ball", batch_size=5, seed=4)
    assert torch.equal(again, image)


def test_every_kind_draws_the_same_shapes() -> None:
    masks = [run("FreeSteerPlaygroundCondition", kind=kind, shape="any", batch_size=3, seed=9)[1] for kind in conditions.KINDS]
    assert all(torch.equal(masks[0], mask) for mask in masks)


def test_each_in_turn_has_every_kind() -> None:
    image, _ = run("FreeSteerPlaygroundCondition", kind=EACH, shape="star", batch_size=8, seed=9)
    silhouettes, _ = run("FreeSteerPlaygroundCondition", kind="silhouette", shape="star", batch_size=8, seed=9)
    same = [torch.equal(a, b) for a, b in zip(image, silhouettes, strict=True)]
    assert same == [True, False, False, False] * 2


def test_a_condition_may_be_a_clip_in_which_one_shape_moves() -> None:
    for seed in range(3):
        image, mask = run("FreeSteerPlaygroundCondition", kind="silhouette", shape="star", batch_size=7, seed=seed, motion="right")
        assert image.shape == (7, 128, 128, 3) and mask.shape == (7, 128, 128)
        solid = mask > 0.5
        columns = torch.arange(128.0)
        centres = torch.stack([columns[frame.any(0)].mean() for frame in solid])
        assert (centres.diff() > 2).all()
        areas = solid.sum((1, 2)).float()
        assert areas.std() < 0.05 * areas.mean()
    still = run("FreeSteerPlaygroundCondition", kind="silhouette", batch_size=3, seed=1, motion="still")[1]
    assert torch.equal(still[0], still[2])
    apart = run("FreeSteerPlaygroundCondition", kind="silhouette", batch_size=3, seed=1)[1]
    assert not torch.equal(apart[0], apart[2])
