"""The FreeInit nodes, as a user connects them, and what they say of inputs that cannot be."""

import importlib
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from freesteer.core.freeinit import filters, mixing
from freesteer.nodes.common.checks import InputError
from freesteer.recipes.freeinit.sampler import FreeInitSampler

from ..conftest import run, tiny

NAN = float("nan")
STEPS = {"steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "seed": 3}


def ksampler(made, **inputs):
    given = {"model": made.model, "positive": made.positive, "negative": made.negative, "latent_image": {"samples": made.latent}}
    return run("FreeSteerFreeInitKSampler", **{**STEPS, **given, **inputs})


def test_the_ksampler_gives_the_last_pass_and_all_of_them():
    made = tiny.build("Wan")
    last, passes = (out["samples"] for out in ksampler(made, extra_passes=2))
    assert passes.shape[0] == 3 * len(last)
    torch.testing.assert_close(passes[-1:], last, atol=1e-4 * float(last.abs().max()), rtol=1e-3)
    assert not torch.allclose(passes[0], passes[1])


def test_the_ksampler_without_further_passes_is_the_hosts():
    made = tiny.build("SD 1.5")
    with torch.inference_mode():
        plain = importlib.import_module("nodes").common_ksampler(
            made.model, 3, 2, 2.0, "euler", "normal", made.positive, made.negative, {"samples": made.latent}, 0.6
        )
    assert torch.equal(ksampler(made, extra_passes=0, denoise=0.6)[0]["samples"], plain[0]["samples"])


def test_the_sampler_wraps_the_one_it_is_given():
    inner = comfy.samplers.sampler_object("dpmpp_2m")
    (made,) = run("FreeSteerFreeInitSampler", sampler=inner, extra_passes=3, spatial=0.5, spatial_last=0.1)
    assert isinstance(made, FreeInitSampler) and made.inner is inner
    assert (made.settings.extra, made.settings.spatial, made.settings.spatial_last, made.settings.temporal_last) == (3, 0.5, 0.1, None)


def test_reinitialised_noise_is_the_clips_below_and_new_above():
    made = tiny.build("SD 1.5", rows=2)
    clip = torch.randn(made.latent.shape, generator=torch.Generator().manual_seed(1))
    given = Noise_RandomNoise(5)
    options: Any = {"filter": "ideal", "spatial": 0.5, "frames": "single pictures"}
    (noise,) = run("FreeSteerNoiseReinit", model=made.model, noise=given, latent={"samples": clip}, **options)
    found = noise.generate_noise({"samples": clip})
    low = filters.low_pass((1, clip.shape[-2], clip.shape[-1]), "ideal", 0.5, 0.25)
    sigma = float(made.model.get_model_object("model_sampling").sigma_max)
    first: Any = given.generate_noise({"samples": clip})
    carried = mixing.noised(made.model.model.process_latent_in(clip), first, sigma)
    spectra = (torch.fft.fft2(x) for x in (found, carried))
    assert torch.allclose(*(s * low[0] for s in spectra), atol=1e-3)
    assert noise.seed == 5
    with pytest.raises(InputError, match="same size, length and batch"):
        noise.generate_noise({"samples": clip[:1]})


def test_reinitialised_noise_takes_a_batch_for_one_clip_unless_told():
    made = tiny.build("SD 1.5", rows=4)
    clip = torch.randn(made.latent.shape, generator=torch.Generator().manual_seed(1))

    def noise(frames: str):
        options: Any = {"model": made.model, "noise": Noise_RandomNoise(5), "latent": {"samples": clip}, "frames": frames}
        return run("FreeSteerNoiseReinit", **options)[0].generate_noise({"samples": clip})

    assert torch.equal(noise("auto"), noise("in the batch")) and not torch.equal(noise("auto"), noise("single pictures"))


def test_reinitialised_noise_is_as_strong_as_the_patched_model_says():
    made = tiny.build("SD 1.5")
    other = ModelSamplingDiscrete().patch(made.model, "v_prediction", True)[0]  # with a terminal signal of zero
    clip = 5 * torch.randn(made.latent.shape, generator=torch.Generator().manual_seed(1))

    def noise(model):
        options: Any = {"model": model, "noise": Noise_RandomNoise(5), "latent": {"samples": clip}, "frames": "single pictures"}
        return run("FreeSteerNoiseReinit", **options)[0].generate_noise({"samples": clip})

    sigma_max = float(other.get_model_object("model_sampling").sigma_max)
    assert sigma_max > 1000  # where nothing of the clip would be left: so it is carried as at the end of SD's schedule
    torch.testing.assert_close(noise(other), noise(made.model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(13, 4, 16, 16), (1, 16, 5, 12, 8), (1, 4, 16, 16)])
def test_the_preview_shows_the_filter(shape):
    (picture,) = run("FreeSteerFilterPreview", latent={"samples": torch.randn(shape)})
    assert picture.shape[0] == 1 and picture.shape[-1] == 3 and picture.std() > 0.05
    (other,) = run("FreeSteerFilterPreview", latent={"samples": torch.zeros(shape)}, filter="box", keep_variance=False)
    assert not torch.equal(picture, other)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"extra_passes": -1}, "extra_passes is -1: choose 0 to 10"),
        ({"extra_passes": 11}, "extra_passes is 11"),
        ({"extra_passes": 1.5}, "choose a whole number"),
        ({"filter": "lanczos"}, "filter is 'lanczos': choose one of gaussian"),
        ({"spatial": -0.1}, "spatial is -0.1: choose 0 to 1"),
        ({"spatial": NAN}, "spatial is nan"),
        ({"temporal": 1.1}, "temporal is 1.1"),
        ({"spatial_last": 2.0}, "spatial_last is 2"),
        ({"temporal_last": -0.5}, "temporal_last is -0.5"),
        ({"restart": 1.0}, "restart is 1, where a flow model is given nothing but noise"),
        ({"restart": 0.2}, "restart is 0.2: choose 0.3 to 0.99"),
        ({"restart": NAN}, "restart is nan"),
        ({"early": 0.0}, "early is 0.0: choose 0.01 to 1"),
        ({"order": 0}, "order is 0: choose 1 to 50"),
        ({"frames": "sideways"}, "frames is 'sideways'"),
    ],
)
def test_what_cannot_be_is_said(inputs, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerFreeInitSampler", sampler=comfy.samplers.sampler_object("euler"), **inputs)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"positive": []}, "positive is empty"),
        ({"negative": [[torch.full((1, 77, 768), NAN), {}]]}, "negative has values that are not numbers"),
        ({"restart": 1.0}, "restart is 1"),
        ({"latent_image": {"samples": torch.zeros(1, 4, 5, 16, 16)}}, "latent_image is a clip of 5 frames, and this model draws pictures"),
        ({"latent_image": {"samples": torch.ones(1, 16, 16, 16)}}, "latent_image has 16 channels where this model has 4"),
    ],
)
def test_the_ksampler_refuses_what_it_is_given_before_it_draws(inputs, says):
    with pytest.raises(InputError, match=says):
        ksampler(tiny.build("SD 1.5"), **inputs)


@pytest.mark.parametrize(
    ("latent", "says"),
    [
        ({}, "latent has to be that of pictures or of a clip"),
        ({"samples": torch.zeros(4, 16, 16)}, "latent has to be that of pictures or of a clip"),
        ({"samples": torch.zeros(0, 4, 16, 16)}, "latent has to be that of pictures or of a clip"),
        ({"samples": torch.full((1, 4, 8, 8), NAN)}, "not numbers"),
    ],
)
def test_a_preview_needs_a_latent(latent, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerFilterPreview", latent=latent)
