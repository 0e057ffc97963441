"""The trained playground, in the real host: everything stock works on it, and it draws what it is told."""

import comfy.controlnet
import comfy.sample
import comfy.samplers
import pytest
import torch
from freesteer.benchmarks.playground import scenes
from freesteer.playground.image import models
from freesteer.playground.referee import referee, train_referee
from freesteer.playground.world import world


@pytest.fixture(scope="module")
def playground():
    return models.load()


@pytest.fixture(scope="module")
def judge():
    return referee.load()


def draw(playground, text="a red star on grass", latent=None, steps=4, sampler="euler", scheduler="normal", seed=0, **options):
    model, clip, _ = playground
    latent = torch.zeros(1, 4, 16, 16) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (text, ""))
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, 4.0, sampler, scheduler, positive, negative, latent, disable_pbar=True, seed=seed, **options
        )


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [s for s in comfy.samplers.KSampler.SAMPLERS if s not in ("dpm_fast", "dpm_adaptive")])
def test_every_sampler_of_the_host_draws_a_finite_picture(playground, sampler):
    assert torch.isfinite(draw(playground, sampler=sampler)).all()


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler_of_the_host_draws_a_finite_picture(playground, scheduler):
    assert torch.isfinite(draw(playground, scheduler=scheduler)).all()


@pytest.mark.parametrize("text", ["", "a (red:1.4) star on grass", "red star " * 40, "Ein roter Stern!", "a red star, on [grass]"])
def test_any_prompt_can_be_encoded(playground, text):
    clip = playground[1]
    encoded, extra = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0]
    assert encoded.shape[0] == 1 and encoded.shape[2] == 128 and torch.isfinite(encoded).all()
    assert extra["pooled_output"].shape == (1, 128)


def test_a_weight_in_the_prompt_changes_the_encoding(playground):
    clip = playground[1]
    plain, weighted = (clip.encode_from_tokens(clip.tokenize(t)) for t in ("a red star", "a (red:1.5) star"))
    assert (plain - weighted).abs().max() > 1e-3


@pytest.mark.slow
@torch.inference_mode()
def test_a_picture_comes_back_from_its_latent(playground):
    vae = playground[2]
    pictures = world.render(world.sample_scenes(64, torch.Generator().manual_seed(train_referee.HELD_OUT)))[0].movedim(1, -1)
    restored = vae.decode(vae.encode(pictures))
    psnr = -10 * (restored - pictures).square().mean((1, 2, 3)).log10()
    assert psnr.mean() >= 28


@torch.inference_mode()
def test_the_hosts_fast_preview_looks_like_the_picture(playground):
    pictures = world.render(world.sample_scenes(16, torch.Generator().manual_seed(train_referee.HELD_OUT)))[0]
    latents = playground[2].encode(pictures.movedim(1, -1)).movedim(1, -1)
    factors, bias = (torch.tensor(v) for v in (models.PlaygroundLatent.latent_rgb_factors, models.PlaygroundLatent.latent_rgb_factors_bias))
    shown = (latents @ factors + bias + 1) / 2
    small = torch.nn.functional.avg_pool2d(pictures, 8).movedim(1, -1)
    assert (shown - small).square().mean() < 0.3 * small.var()


def test_a_fresh_latent_that_is_not_square_works(playground):
    drawn = draw(playground, latent=torch.zeros(2, 4, 24, 12))
    with torch.inference_mode():
        assert playground[2].decode(drawn).shape == (2, 192, 96, 3)


@torch.inference_mode()
def test_img2img_stays_near_its_picture_and_a_mask_protects_it(playground, judge):
    vae = playground[2]
    drawn = world.sample_scenes(1, torch.Generator().manual_seed(3), counts=(1, 0, 0))
    latent = vae.encode(world.render(drawn)[0].movedim(1, -1))
    near = draw(playground, latent=latent, denoise=0.3, steps=8)
    far = draw(playground, latent=latent, denoise=1.0, steps=8)
    assert (near - latent).abs().mean() < 0.7 * (far - latent).abs().mean()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    kept = draw(playground, latent=latent, noise_mask=mask, steps=8)
    torch.testing.assert_close(kept[..., 9:], latent[..., 9:], rtol=0, atol=1e-3)
    assert (kept[..., :7] - latent[..., :7]).abs().mean() > 0.05


@pytest.mark.slow
def test_the_referee_names_what_is_drawn(judge):
    plain, augmented = (train_referee.measure(judge, 200, augmented=a) for a in (False, True))
    assert min(plain["ground"], plain["objects"]) >= 0.99
    assert min(augmented["ground"], augmented["objects"]) >= 0.97


@pytest.mark.slow
def test_the_referee_names_what_the_autoencoder_leaves_of_it(playground, judge):
    """Models draw nothing sharper. One that knew only sharp pictures took every sixth star for something else."""
    with torch.inference_mode():
        decoded = train_referee.measure(judge, 100, vae=playground[2])
    assert min(decoded["ground"], decoded["objects"]) >= 0.98


@pytest.mark.slow
def test_the_model_draws_the_prompted_object(playground, judge):
    """A smoke test of what `run.py bench playground` measures."""
    job = scenes.task(16, seed=9)
    with torch.inference_mode():
        pictures = scenes.decode(playground[2], scenes.sample(playground[0], playground[1], job.prompts, seed=3))
    seen = referee.look(judge, pictures)
    right = [s.background == b and s.find(c, shape) is not None for s, (c, shape, b) in zip(seen, job.names, strict=True)]
    assert sum(right) / len(right) > 0.75
