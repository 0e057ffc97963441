# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""FreeControl From Image: what the three nodes do, and only once."""

import comfy.sample
import pytest
import torch
from freesteer.host.models.memo import Memo
from freesteer.nodes.freecontrol import from_image as freecontrol_from_image
from freesteer.recipes.freecontrol import steps as recipe
from freesteer.recipes.freecontrol.steps import BasisSettings, ReadingSettings

from ..conftest import World, run
from .test_freecontrol import with_lora


@pytest.fixture(autouse=True)
def small_and_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freecontrol_from_image, "BASIS", BasisSettings(seed_images=2, steps=2, components=4))
    monkeypatch.setattr(freecontrol_from_image, "READING", ReadingSettings(levels=2, colourings=1))
    monkeypatch.setattr(freecontrol_from_image, "bases", Memo())
    monkeypatch.setattr(freecontrol_from_image, "structures", Memo())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the sampling runs of the node itself."""
    counted: list[int] = []
    sample = comfy.sample.sample_custom

    def counting(*args, **kwargs):
        counted.append(1)
        return sample(*args, **kwargs)

    monkeypatch.setattr(comfy.sample, "sample_custom", counting)
    return counted


def node(world: World, **inputs):
    given = {"model": world.model, "clip": world.clip, "vae": world.vae, "image": world.image, "subject": "a star", **inputs}
    return run("FreeSteerFreeControlFromImage", **given)


def test_it_steers_and_shows_what_it_sees(world: World) -> None:
    model, preview = node(world)
    steered = world.sample(model)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, world.before)
    assert preview.ndim == 4 and preview.shape[0] == 1 and preview.shape[-1] == 3
    assert 0 <= preview.min() < preview.max() <= 1
    assert torch.equal(world.sample(), world.before)


def test_it_does_what_the_three_nodes_do(world: World) -> None:
    mask = torch.zeros(1, 96, 64)
    mask[:, 30:60] = 1
    latent = {"samples": torch.zeros(1, 4, 12, 8)}
    basis, _ = run(
        "FreeSteerExtractBasis", model=world.model, clip=world.clip, latent=latent, prompts="a star",
        seed_images=2, steps=2, components=4,
    )  # fmt: skip
    positive = recipe.encode_text(world.clip, "a star")
    (structure,) = run(
        "FreeSteerStructure", model=world.model, basis=basis, vae=world.vae, image=world.image, positive=positive, mask=mask, levels=2,
        colourings=1,
    )  # fmt: skip
    (by_hand,) = run("FreeSteerFreeControl", model=world.model, structure=structure)
    at_once, _ = node(world, mask=mask, latent=latent)
    assert torch.equal(world.sample(at_once), world.sample(by_hand))


def test_strength_0_samples_bit_equal(world: World) -> None:
    assert torch.equal(world.sample(node(world, strength=0.0)[0]), world.before)


def test_another_strength_costs_nothing(world: World, runs: list[int]) -> None:
    node(world)
    before = len(runs)
    assert before > 0
    node(world, strength=1.0, end_percent=0.3, appearance=0.0)
    node(world, model=world.model.clone())
    assert len(runs) == before


def test_another_condition_keeps_the_basis(world: World, runs: list[int]) -> None:
    node(world)
    before = len(runs)
    node(world, image=1 - world.image)
    assert len(runs) == before + 1


CHANGES = {
    "subject": "a ball",
    "lines": "dark on light",
    "method": "inversion",
    "mask": torch.ones(1, 96, 64),
    "latent": {"samples": torch.zeros(1, 4, 16, 16)},
    "cfg": 1.0,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_layout_is_found_out_again(world: World, runs: list[int], change: str) -> None:
    node(world)
    before = len(runs)
    node(world, **{change: CHANGES[change]})
    assert len(runs) > before


def test_another_layer_of_the_text_encoder_counts(world: World, runs: list[int]) -> None:
    node(world)
    before = len(runs)
    clip = world.clip.clone()
    clip.clip_layer(-2)
    node(world, clip=clip)
    assert len(runs) > before


def test_a_lora_on_the_model_counts(world: World, runs: list[int]) -> None:
    node(world)
    before = len(runs)
    tuned = with_lora(world.model)
    node(world, model=tuned)
    assert len(runs) > before
    before = len(runs)
    node(world, model=tuned.clone())
    assert len(runs) == before


def test_another_packs_patch_on_the_model_counts(world: World, runs: list[int]) -> None:
    node(world)
    before = len(runs)
    patched = world.model.clone()
    patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    node(world, model=patched)
    assert len(runs) > before


def test_two_in_a_row_steer_both(world: World) -> None:
    one, _ = node(world)
    two, _ = node(world, model=one, image=1 - world.image)
    assert not torch.equal(world.sample(two), world.sample(one))


def test_the_latent_of_the_sampler_gives_the_size(world: World) -> None:
    node(world, latent={"samples": torch.zeros(4, 4, 16, 20)})
    (_, _, made) = freecontrol_from_image.bases._entries[-1]
    assert made.size == (16, 20)


def test_the_model_and_the_condition_give_the_size_otherwise(world: World) -> None:
    def size(height: int, width: int) -> tuple[int, int]:
        return freecontrol_from_image.usual_size(world.model, world.vae, torch.zeros(1, height, width, 3))

    assert size(128, 128) == (16, 16)  # what the playground draws
    assert size(4096, 2048) == size(64, 32) == (22, 12)
