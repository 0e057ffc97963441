"""FreeInit on the host's own models and samplers, against its formulas."""

from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import pytest
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from freesteer.core.freeinit import levels
from freesteer.recipes.freeinit.sampler import FreeInitError, FreeInitSampler, fresh_noise
from freesteer.recipes.freeinit.settings import FreeInitSettings
from torch import Tensor

from ..conftest import tiny

STEPS = 3
WHOLE: Any = {"extra": 1, "early": 1.0, "restart": None}
EPS, VIDEO_EPS, FLOW, VIDEO_FLOW = "SD 1.5", "SVD", "SD 3", "Wan"


def noise_of(made, seed: int = 1) -> Tensor:
    noise: Any = comfy.sample.prepare_noise(comfy.sample.fix_empty_latent_channels(made.model, made.latent), seed)
    return noise


def schedule(model, denoise: float = 1.0) -> Tensor:
    return comfy.samplers.KSampler(model, STEPS, torch.device("cpu"), "euler", "normal", denoise, model.model_options).sigmas


def draw(made, sampler, noise=None, model=None, sigmas=None, latent=None, seed=1, **options: Any) -> Tensor:
    model = model or made.model
    noise = noise_of(made) if noise is None else noise
    latent = torch.zeros_like(noise) if latent is None else latent
    sigmas = schedule(model) if sigmas is None else sigmas
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, 2.0, sampler, sigmas, made.positive, made.negative, latent, disable_pbar=True, seed=seed, **options
        )


def plain(name: str = "euler"):
    return comfy.samplers.sampler_object(name)


def passes(name: str = "euler", keep=None, **settings: Any) -> FreeInitSampler:
    """One whole pass more, but for what `settings` say."""
    return FreeInitSampler(plain(name), FreeInitSettings(**{**WHOLE, **settings}), keep or (lambda clean: None))


def published_mix(carried: Tensor, fresh: Tensor, spatial: float, temporal: float) -> Tensor:
    """Equations 6 and 7 with a Gaussian filter, by numpy, with frequency 0 in the middle; sizes are even."""
    axes = (-3, -2, -1)
    t, h, w = np.meshgrid(*(2 * np.arange(n) / n - 1 for n in carried.shape[-3:]), indexing="ij")
    low = np.exp(-((spatial / temporal * t) ** 2 + h**2 + w**2) / (2 * spatial**2))
    middle = [np.fft.fftshift(np.fft.fftn(x.numpy(), axes=axes), axes=axes) for x in (carried, fresh)]
    mixed = np.fft.ifftn(np.fft.ifftshift(middle[0] * low + middle[1] * (1 - low), axes=axes), axes=axes)
    return torch.from_numpy(mixed.real).float()


@pytest.mark.parametrize("family", tiny.RECIPES)
def test_no_further_pass_is_plain_sampling_to_the_bit(family):
    made = tiny.build(family)
    assert torch.equal(draw(made, passes(extra=0)), draw(made, plain()))


def test_no_further_pass_needs_no_noise():
    made = tiny.build(EPS)
    still = torch.zeros_like(noise_of(made))
    assert torch.equal(draw(made, passes(extra=0), noise=still), draw(made, plain(), noise=still))


@pytest.mark.parametrize("family", [EPS, FLOW, VIDEO_FLOW])
def test_a_part_of_a_schedule_that_ends_above_where_passes_start_is_refused(family):
    made = tiny.build(family)
    sigmas = schedule(made.model)
    with pytest.raises(FreeInitError, match="this part of the schedule ends above that"):
        draw(made, passes(restart=0.3), sigmas=sigmas[:2])


def test_a_schedule_from_far_above_starts_again_where_a_layout_is_carried():
    made = tiny.build(VIDEO_EPS, rows=2)
    begun: list[float] = []

    def watching(model, x, sigmas, **options):
        begun.append(float(sigmas[0]))
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, **options)

    draw(made, FreeInitSampler(comfy.samplers.KSAMPLER(watching), FreeInitSettings(**WHOLE)))
    assert begun == pytest.approx([float(made.model.get_model_object("model_sampling").sigma_max), levels.SD_END])
    assert begun[0] > 100


@pytest.mark.parametrize("family", tiny.RECIPES)
def test_each_family_takes_several_passes(family):
    made = tiny.build(family, rows=2)
    kept: list[Tensor] = []
    drawn = draw(made, passes(keep=kept.append, extra=2, early=0.5))
    assert torch.isfinite(drawn).all() and len(kept) == 3
    assert not torch.equal(drawn, draw(made, plain()))


@pytest.mark.parametrize("prediction", ["eps", "v_prediction"])
def test_a_model_that_predicts_noise_takes_the_path_of_the_paper(prediction):
    made = tiny.build(VIDEO_EPS if prediction == "eps" else EPS, rows=4)
    model = ModelSamplingDiscrete().patch(made.model, prediction, False)[0]
    noise = noise_of(made)
    first: list[Tensor] = []
    found = draw(
        made,
        passes(keep=first.append, kind="gaussian", spatial=0.25, temporal=0.5, keep_variance=False, frames="in the batch"),
        model=model,
    )
    alpha = 1 / (1 + float(model.get_model_object("model_sampling").sigma_max) ** 2)
    carried = alpha**0.5 * first[0] + (1 - alpha) ** 0.5 * noise  # equation 5; what is kept is in the model's own scale
    fresh = fresh_noise(noise.movedim(0, 1)[None], 1)
    mixed = published_mix(carried.movedim(0, 1), fresh[0], 0.25, 0.5).movedim(1, 0)
    torch.testing.assert_close(found, draw(made, plain(), noise=mixed, model=model), atol=1e-3 * float(found.abs().max()), rtol=1e-3)


def test_a_flow_model_starts_again_where_noise_and_signal_stand_as_published():
    made = tiny.build(FLOW)
    noise = noise_of(made)
    kept: list[Tensor] = []
    found = draw(made, passes(keep=kept.append, kind="ideal", spatial=0.5, temporal=1.0))
    spectrum = np.fft.fft2(noise.numpy()), np.fft.fft2(fresh_noise(noise[:, :, None], 1)[:, :, 0].numpy())
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in noise.shape[-2:]), indexing="ij")
    inside = y**2 + x**2 <= 0.25**2 + 1e-9
    mixed = torch.from_numpy(np.fft.ifft2(np.where(inside, *spectrum)).real).float()
    level = levels.MATCHED
    assert schedule(made.model)[0] == 1
    sigmas = torch.cat([torch.tensor([level]), schedule(made.model)[schedule(made.model) < level]])
    sampling = made.model.model
    latent = sampling.process_latent_out(kept[0])  # which the host takes in again
    again = draw(made, plain(), noise=mixed, latent=latent, sigmas=sigmas)
    torch.testing.assert_close(found, again, atol=1e-3 * float(found.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("family", [EPS, FLOW])
def test_passes_start_as_low_as_is_asked(family):
    made = tiny.build(family)
    begun: list[float] = []

    def watching(model, x, sigmas, **options):
        begun.append(float(sigmas[0]))
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, **options)

    draw(made, FreeInitSampler(comfy.samplers.KSAMPLER(watching), FreeInitSettings(extra=1, restart=0.75)))
    assert begun == pytest.approx([float(schedule(made.model)[0]), 0.75 if family == FLOW else 3.0])  # a quarter signal, three noise


def test_from_image_to_image_each_pass_starts_where_the_first_did():
    made = tiny.build(EPS)
    begun = torch.randn(made.latent.shape, generator=torch.Generator().manual_seed(3))
    sigmas = schedule(made.model, 0.5)
    seen: list[float] = []

    def watching(model, x, sigmas, **options):
        seen.append(float(sigmas[0]))
        return comfy.k_diffusion.sampling.sample_euler(model, x, sigmas, **options)

    draw(made, FreeInitSampler(comfy.samplers.KSAMPLER(watching), FreeInitSettings(extra=2, restart=0.99)), sigmas=sigmas, latent=begun)
    assert seen == [float(sigmas[0])] * 3


def test_runs_agree_to_the_bit_and_follow_the_seed():
    made = tiny.build(VIDEO_FLOW)
    assert torch.equal(draw(made, passes()), draw(made, passes()))
    other = noise_of(made, 2)
    assert not torch.allclose(fresh_noise(other, 1), fresh_noise(noise_of(made), 1))
    assert not torch.allclose(fresh_noise(other, 2), fresh_noise(other, 1))


def test_what_else_is_in_the_batch_does_not_matter():
    """By the host's batch index: the same noise is the same clip."""
    noise = torch.randn(3, 4, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    together = fresh_noise(noise, 1)
    assert all(torch.equal(fresh_noise(noise[i : i + 1], 1)[0], together[i]) for i in range(3))
    assert abs(float(together.std()) - 1) < 0.1 and abs(float((together * noise).mean())) < 0.1


@pytest.mark.parametrize("family", [EPS, VIDEO_FLOW])
def test_what_a_mask_protects_stays(family):
    made = tiny.build(family)
    begun = torch.randn(noise_of(made).shape, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 1, *begun.shape[-2:])
    mask[..., : begun.shape[-1] // 2] = 1
    drawn = draw(made, passes(extra=2), latent=begun, noise_mask=mask)
    kept = begun.shape[-1] // 2
    torch.testing.assert_close(drawn[..., kept:], begun[..., kept:], atol=1e-4, rtol=1e-4)
    assert (drawn - begun)[..., :kept].abs().mean() > 0.1


def test_each_pass_is_a_fresh_run_for_other_packs():
    made = tiny.build(EPS)
    model = made.model.clone()
    runs, begun = [], []

    def outer(executor, *args, **kwargs):
        runs.append(len(args[3]) - 1)
        executor.class_obj.model_options["transformer_options"]["a cache"] = len(runs)
        return executor(*args, **kwargs)

    caches = []
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "pack", outer)
    model.add_callback(CallbacksMP.ON_PRE_RUN, lambda patcher: begun.append(patcher))
    model.set_model_unet_function_wrapper(
        lambda apply, given: (
            caches.append(given["c"]["transformer_options"]["a cache"]) or apply(given["input"], given["timestep"], **given["c"])
        )
    )
    draw(made, passes(extra=2), model=model)
    assert runs == [STEPS] * 3 and len(begun) == 3
    assert caches == [1] * STEPS + [2] * STEPS + [3] * STEPS


def test_steps_are_counted_over_all_passes_and_shown():
    made = tiny.build(EPS)
    seen: list[tuple[int, int]] = []
    draw(made, passes(extra=2), callback=lambda step, denoised, x, total: seen.append((step, total)))
    assert seen == [(i, 3 * STEPS) for i in range(3 * STEPS)]


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m", "heun", "uni_pc", "lcm", "dpmpp_sde"])
def test_any_sampler_will_do(name):
    made = tiny.build(EPS)
    assert torch.isfinite(draw(made, passes(name, extra=1))).all()


def test_a_schedule_that_ends_early_and_one_of_a_single_step_will_do():
    made = tiny.build(EPS)
    assert torch.isfinite(draw(made, passes(), sigmas=schedule(made.model)[:-1])).all()
    assert torch.isfinite(draw(made, passes(early=0.1), sigmas=schedule(made.model)[[0, -1]])).all()
    assert torch.isfinite(draw(made, passes(), sigmas=schedule(made.model)[:1])).all()


def test_an_interrupt_in_the_second_pass_leaves_everything_as_it_was():
    made = tiny.build(EPS)
    before = draw(made, passes(extra=2))
    options = {key: dict(value) if isinstance(value, dict) else value for key, value in made.model.model_options.items()}

    def stop(step, denoised, x, total):
        if step == STEPS + 1:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(made, passes(extra=2), callback=stop)
    assert made.model.model_options == options
    assert torch.equal(draw(made, passes(extra=2)), before)


def test_without_noise_there_is_nothing_to_mix():
    made = tiny.build(EPS)
    with pytest.raises(FreeInitError, match="switch add_noise on"):
        draw(made, passes(), noise=torch.zeros_like(made.latent))
