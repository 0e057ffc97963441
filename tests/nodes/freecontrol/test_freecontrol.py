# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""FreeControl on a tiny random model: it touches only what it should, and goes together with everything else of the host."""

from collections.abc import Callable
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from freesteer.core.freecontrol.bases_file import ModelBasis
from freesteer.nodes.freecontrol.types import ModelStructure
from torch import Tensor

from ..conftest import World, run, tiny

Steer = Callable[..., ModelPatcher]


def draw(
    world: World, model: ModelPatcher, latent: Tensor | None = None, noise: Tensor | None = None, steps: int = 3, sampler: str = "euler",
    positive: list | None = None, mask: Tensor | None = None, denoise: float = 1.0,
) -> Tensor:  # fmt: skip
    """As KSampler does."""
    latent = world.latent["samples"] if latent is None else latent
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, 1) if noise is None else noise
        return comfy.sample.sample(
            model, noise, steps, 4.0, sampler, "normal", positive or world.positive, world.negative, latent,
            denoise=denoise, noise_mask=mask, disable_pbar=True, seed=1,
        )  # fmt: skip


def test_steering_changes_the_picture_and_leaves_the_model(world: World, steer: Steer) -> None:
    steered = world.sample(steer())
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, world.before)
    assert torch.equal(world.sample(), world.before)


def test_strength_0_samples_bit_equal(world: World, steer: Steer) -> None:
    assert torch.equal(world.sample(steer(strength=0.0)), world.before)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_outside_of_its_range_it_samples_bit_equal(world: World, steer: Steer, sampler: str) -> None:
    steered = steer(start_percent=0.96, end_percent=0.97)  # between two steps
    assert torch.equal(draw(world, steered, sampler=sampler), draw(world, world.model, sampler=sampler))


def test_a_run_may_begin_where_the_guided_range_ends(world: World, steer: Steer) -> None:
    """As img2img at half the noise does: one guided step, and nowhere to look ahead to."""
    sampling: Any = world.model.get_model_object("model_sampling")
    edge = float(sampling.percent_to_sigma(0.5))
    latent = world.latent["samples"]
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, 1)
        found = [
            comfy.sample.sample_custom(
                model, noise, 4.0, comfy.samplers.sampler_object("euler"), torch.tensor([edge, edge / 2, 0.0]), world.positive,
                world.negative, latent, disable_pbar=True, seed=1,
            )
            for model in (steer(end_percent=0.5), world.model)
        ]  # fmt: skip
    assert torch.isfinite(found[0]).all() and not torch.equal(*found)


def test_a_later_start_leaves_the_steps_before_it_alone(world: World, steer: Steer) -> None:
    def second_step(model: ModelPatcher) -> Tensor:
        seen: list[Tensor] = []
        with torch.inference_mode():
            latent = world.latent["samples"]
            comfy.sample.sample(
                model, comfy.sample.prepare_noise(latent, 1), 4, 4.0, "euler", "normal", world.positive, world.negative, latent,
                disable_pbar=True, seed=1, callback=lambda step, clean, x, total: seen.append(x.clone()),
            )  # fmt: skip
        return seen[1]

    assert torch.equal(second_step(steer(start_percent=0.5, end_percent=1.0)), second_step(world.model))


def test_the_same_model_gives_the_same_picture_twice(world: World, steer: Steer) -> None:
    steered = steer()
    assert torch.equal(world.sample(steered), world.sample(steered))


def test_two_nodes_with_the_same_inputs_give_the_same_picture(world: World, steer: Steer) -> None:
    assert torch.equal(world.sample(steer()), world.sample(steer()))


OPTIONS = [
    {"strength": 1.0}, {"background": 0.0}, {"appearance": 0.0}, {"end_percent": 0.2}, {"formula": "paper"},
    {"formula": "paper", "appearance_components": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def masked(world: World) -> tuple[ModelStructure, Tensor]:
    """A structure with a mask, and what it steers to."""
    mask = torch.zeros(1, 96, 64)
    mask[:, 20:60, 10:40] = 1
    (structure,) = run(
        "FreeSteerStructure", model=world.model, basis=world.basis, vae=world.vae, image=world.image, positive=world.positive, mask=mask
    )
    (model,) = run("FreeSteerFreeControl", model=world.model, structure=structure)
    return structure, draw(world, model)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: next(iter(option)))
def test_every_input_matters(world: World, masked: tuple[ModelStructure, Tensor], option: dict[str, Any]) -> None:
    structure, plain = masked
    (other,) = run("FreeSteerFreeControl", model=world.model, structure=structure, **option)
    assert not torch.equal(plain, draw(world, other))


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (18, 22), (17, 23)])
def test_pictures_of_any_shape_are_steered(world: World, steer: Steer, shape: tuple[int, int]) -> None:
    latent = torch.zeros(1, 4, *shape)
    steered = draw(world, steer(), latent)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, draw(world, world.model, latent))


def test_each_picture_of_a_batch_is_steered_on_its_own(world: World, steer: Steer) -> None:
    noise = torch.randn(3, 4, 24, 16, generator=torch.Generator().manual_seed(5))
    together = draw(world, steer(), torch.zeros(3, 4, 24, 16), noise)
    for i in range(3):
        alone = draw(world, steer(), torch.zeros(1, 4, 24, 16), noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-2, atol=0.5)  # of a random model's latents, of deviation 90


def test_a_batch_of_conditions_steers_the_pictures_in_turn(world: World) -> None:
    images = torch.cat([world.image, 1 - world.image, world.image.flip(1)])
    given = {"model": world.model, "basis": world.basis, "vae": world.vae, "positive": world.positive}
    (structure,) = run("FreeSteerStructure", image=images, **given)
    assert structure.pictures == 3
    noise = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(5)).expand(4, -1, -1, -1)
    (model,) = run("FreeSteerFreeControl", model=world.model, structure=structure)
    first, second, third, fourth = draw(world, model, torch.zeros(4, 4, 24, 16), noise)
    assert not torch.allclose(first, second, rtol=1e-3)
    assert not torch.allclose(first, third, rtol=1e-3)
    torch.testing.assert_close(first, fourth, rtol=1e-2, atol=0.5)


def with_lora(model: ModelPatcher) -> ModelPatcher:
    m = model.clone()
    name = next(name for name, _ in m.model.named_parameters() if "output_blocks" in name and name.endswith("attn1.to_k.weight"))
    weight = m.model.get_parameter(name)
    m.add_patches({name: ("diff", (torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)),))}, 0.5)
    return m


def test_a_lora_on_the_model_counts_and_is_taken_off_again(world: World, steer: Steer) -> None:
    tuned = with_lora(world.model)
    plain = world.sample(tuned)
    steered = world.sample(steer(model=tuned))
    assert not torch.equal(steered, plain)
    assert not torch.equal(steered, world.sample(steer()))
    assert torch.equal(world.sample(tuned), plain)
    assert torch.equal(world.sample(), world.before)


def with_controlnet(world: World) -> list:
    recipe = tiny.RECIPES["FreeSteer playground"]
    config = {k: v for k, v in {**recipe.unet, **recipe.extra}.items() if k not in ("out_channels", "transformer_depth_output")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.manual_cast, dtype=torch.float32)
        tiny.fill(network)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    control = control.set_cond_hint(torch.rand(1, 3, 192, 128), 0.2, (0.0, 1.0))
    return [[world.positive[0][0], {"control": control, "control_apply_to_uncond": True}]]


def test_a_controlnet_works_together_with_it(world: World, steer: Steer) -> None:
    controlled = with_controlnet(world)
    plain = draw(world, world.model, positive=controlled)
    assert not torch.equal(plain, draw(world, world.model))
    steered = draw(world, steer(), positive=controlled)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, plain)
    assert torch.equal(draw(world, world.model, positive=controlled), plain)


def test_inpainting_keeps_what_is_not_masked(world: World, steer: Steer) -> None:
    latent = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(1, 1, 24, 16)
    mask[..., 6:18, 4:12] = 1
    steered = draw(world, steer(), latent, mask=mask)
    kept = (mask == 0).expand_as(latent)
    torch.testing.assert_close(steered[kept], latent[kept], rtol=1e-3, atol=1e-3)
    assert not torch.equal(steered, draw(world, world.model, latent, mask=mask))


def test_img2img_is_steered(world: World, steer: Steer) -> None:
    latent = torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(draw(world, steer(), latent, denoise=0.7, steps=4), draw(world, world.model, latent, denoise=0.7, steps=4))


def test_regional_prompts_with_masks_are_steered(world: World, steer: Steer) -> None:
    left = torch.zeros(1, 24, 16)
    left[..., :8] = 1
    text = world.positive[0][0]
    regions = [[text, {"mask": left, "mask_strength": 1.0}], [text * 0.5, {"mask": 1 - left, "mask_strength": 1.0}]]
    steered = draw(world, steer(), positive=regions)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, draw(world, world.model, positive=regions))


def test_two_freecontrols_in_a_row_both_count(world: World, steer: Steer) -> None:
    given = {"model": world.model, "basis": world.basis, "vae": world.vae, "positive": world.positive}
    (other,) = run("FreeSteerStructure", image=1 - world.image, **given)
    one, two = steer(), steer(structure=other)
    both = steer(model=one, structure=other)
    pictures = [world.sample(model) for model in (one, two, both)]
    assert all(torch.isfinite(picture).all() for picture in pictures)
    assert not torch.equal(pictures[2], pictures[0])
    assert not torch.equal(pictures[2], pictures[1])
    assert torch.equal(world.sample(one), pictures[0])


ENDLESS = {"dpm_adaptive"}  # has as many steps as it likes; a random model makes it like very many
KINDS = {"euler", "heun", "dpmpp_2m", "dpmpp_sde", "lcm", "uni_pc"}  # one of each: of one call a step, two, a memory, noise, none, its own
SAMPLERS = [
    pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in comfy.samplers.KSampler.SAMPLERS if name not in ENDLESS
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_steered(world: World, steer: Steer, sampler: str) -> None:
    plain = draw(world, world.model, sampler=sampler)
    steered = draw(world, steer(), sampler=sampler)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, plain)


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "own"])
def basis(world: World, request: pytest.FixtureRequest) -> ModelBasis:
    """With components that all noise levels share, or that each has of its own."""
    given = {"model": world.model, "clip": world.clip, "latent": world.latent, "prompts": "a star", "components": 4}
    return run("FreeSteerExtractBasis", seed_images=2, steps=2, shared=request.param, **given)[0]


@pytest.mark.parametrize(
    ("method", "levels"),
    [
        ("noise", 1),
        pytest.param("noise", 4, marks=pytest.mark.slow),
        pytest.param("inversion", 1, marks=pytest.mark.slow),
        ("inversion", 4),
    ],
)
def test_every_kind_of_structure_steers(world: World, basis: ModelBasis, method: str, levels: int) -> None:
    given = {"model": world.model, "basis": basis, "vae": world.vae, "image": world.image, "positive": world.positive}
    (structure,) = run("FreeSteerStructure", method=method, levels=levels, **given)
    assert len(structure.structure.sigmas) == levels
    (model,) = run("FreeSteerFreeControl", model=world.model, structure=structure)
    steered = draw(world, model)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, draw(world, world.model))


def test_dark_lines_are_read_as_their_negative(world: World) -> None:
    given = {"model": world.model, "basis": world.basis, "vae": world.vae, "positive": world.positive}
    (dark,) = run("FreeSteerStructure", image=1 - world.image, lines="dark on light", **given)
    (light,) = run("FreeSteerStructure", image=world.image, lines="as they are", **given)
    for layer, values in light.structure.coordinates.items():
        torch.testing.assert_close(dark.structure.coordinates[layer], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(48, 32), (100, 61), (700, 500), (8, 8)])
def test_a_condition_of_any_size_is_read_at_about_the_size_of_the_basis(world: World, size: tuple[int, int]) -> None:
    image = torch.rand(1, *size, 3)
    mask = torch.ones(1, size[0] // 2, size[1] // 2)
    (structure,) = run(
        "FreeSteerStructure", model=world.model, basis=world.basis, vae=world.vae, image=image, positive=world.positive, mask=mask, levels=1
    )
    height, width = max(structure.structure.grids.values())
    wanted = max(world.structure.structure.grids.values())
    assert 0.6 < height * width / (wanted[0] * wanted[1]) < 1.6
    assert abs(height / width / (size[0] / size[1]) - 1) < 0.35


@pytest.mark.parametrize("family", [family for family in tiny.RECIPES if family != "FreeSteer playground"])
def test_other_families_are_steered_by_the_same_recipe(world: World, family: str) -> None:
    """Clips by three still pictures, spread over their two frames."""
    from freesteer.recipes.freecontrol import steps as recipe
    from freesteer.recipes.freecontrol.guide import GuideSettings
    from freesteer.recipes.freecontrol.steps import BasisSettings, ReadingSettings

    built = tiny.build(family, inference=True)
    before = built.sample()
    with torch.inference_mode():
        basis = recipe.build_basis(built.model, [built.positive], built.negative, built.latent, BasisSettings(2, 2, 3.0, 4))
        shape = (3, built.latent.shape[1], 1, *built.latent.shape[3:]) if built.latent.ndim == 5 else built.latent.shape
        picture = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        structure = recipe.read_structure(built.model, basis, picture, built.positive, ReadingSettings(levels=2))
        assert {len(levels[0]) for levels in structure.coordinates.values()} == {len(picture)}
        points = [p for p in recipe.families.structure_points(built.model, "all decoder") if p.name in structure.coordinates]
        model = recipe.guide(built.model, structure, points, GuideSettings(end=1.0))
    steered = built.sample(model)
    assert torch.isfinite(steered).all()
    assert not torch.equal(steered, before)
    assert torch.equal(built.sample(), before)
