# pyright: reportOptionalSubscript=false, reportAttributeAccessIssue=false
# The host leaves the types of outputs open.
"""The trained video transformer, in the real host: everything stock works on it, and it draws what it is told."""

from typing import Any

import comfy.context_windows
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_hunyuan import EmptyHunyuanLatentVideo
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from freesteer.benchmarks.playground import clip_scenes
from freesteer.playground.referee import referee
from freesteer.playground.video_dit import models
from freesteer.playground.world import motion

PROMPT = "a red star goes left on grass"


@pytest.fixture(scope="module")
def playground():
    return models.load()


def empty(frames: int = 13, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.zeros(1, 4, frames, height, width)


def draw(playground, latent: torch.Tensor, steps: int = 4, model: Any = None, sampler: str = "euler", seed: int = 0, **options):
    own, clip, _ = playground
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (PROMPT, ""))
    with torch.inference_mode():
        drawn = comfy.sample.sample(
            model or own, noise, steps, 4.0, sampler, "simple", positive, negative, latent, disable_pbar=True, seed=seed, **options
        )
    assert torch.isfinite(drawn).all() and drawn.shape == latent.shape
    return drawn


@pytest.fixture(scope="module")
def plain(playground):
    return draw(playground, empty())


@pytest.fixture(scope="module")
def drawn_clip(playground):
    """The latent of a clip of the world."""
    pictures = motion.render_clips(motion.sample_clips(1, torch.Generator().manual_seed(3)))[0][0]
    with torch.inference_mode():
        return playground[2].encode(pictures.movedim(1, -1))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "lcm", "heun", "res_multistep"])
def test_samplers_of_the_host_draw_a_finite_clip(playground, sampler):
    draw(playground, empty(), 3, sampler=sampler)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (5, 16, 16), (17, 16, 16), (5, 16, 32), (5, 10, 14)])
def test_other_lengths_and_forms_work(playground, frames, height, width):
    drawn = draw(playground, empty(frames, height, width), 1)
    with torch.inference_mode():
        assert playground[2].decode(drawn).shape == (1, frames, 8 * height, 8 * width, 3)


def test_a_clip_repeats_by_its_seed(playground, plain):
    assert torch.equal(draw(playground, empty()), plain)
    assert not torch.equal(draw(playground, empty(), seed=1), plain)


def test_another_shift_changes_the_clip(playground, plain):
    (same,) = ModelSamplingSD3().patch(playground[0], models.SHIFT)
    (other,) = ModelSamplingSD3().patch(playground[0], 2.0)
    torch.testing.assert_close(draw(playground, empty(), model=same), plain)
    assert (draw(playground, empty(), model=other) - plain).abs().mean() > 0.01


def test_a_lora_changes_the_clip_and_leaves_the_model(playground, plain):
    rank, side = 2, models.WAN["dim"]
    draws = torch.Generator().manual_seed(0)
    lora = {
        f"diffusion_model.blocks.2.ffn.0.lora_{end}.weight": 0.3 * torch.randn(shape, generator=draws)
        for end, shape in (("A", (rank, side)), ("B", (models.WAN["ffn_dim"], rank)))
    }
    changed, _ = comfy.sd.load_lora_for_models(playground[0], None, lora, 1.0, 0.0)
    assert (draw(playground, empty(), model=changed) - plain).abs().mean() > 0.01
    assert torch.equal(draw(playground, empty()), plain)


def test_context_windows_draw_a_longer_clip(playground):
    standard = comfy.context_windows.ContextSchedules.STATIC_STANDARD
    windows = ContextWindowsManualNode.execute(
        playground[0], 13, 4, standard, 1, False, comfy.context_windows.ContextFuseMethods.PYRAMID, 2, False, causal_window_fix=False
    ).result[0]
    draw(playground, empty(25), 2, model=windows)


@torch.inference_mode()
def test_img2img_stays_near_its_clip_and_a_mask_protects_it(playground, drawn_clip):
    near = draw(playground, drawn_clip, 8, denoise=0.15)
    far = draw(playground, drawn_clip, 8)
    assert (near - drawn_clip).abs().mean() < 0.6 * (far - drawn_clip).abs().mean()
    mask = torch.zeros(1, 1, 13, 16, 16)
    mask[..., :8] = 1
    kept = draw(playground, drawn_clip, noise_mask=mask)
    torch.testing.assert_close(kept[..., 9:], drawn_clip[..., 9:], rtol=0, atol=1e-3)
    assert (kept[..., :7] - drawn_clip[..., :7]).abs().mean() > 0.05


def test_the_hosts_empty_clip_works(playground):
    latent = EmptyHunyuanLatentVideo.execute(128, 128, 13, 1).result[0]
    fixed = comfy.sample.fix_empty_latent_channels(playground[0], latent["samples"], latent.get("downscale_ratio_spacial"))
    assert fixed.shape[1] == 4 and fixed.shape[-2:] == (16, 16)
    draw(playground, fixed, 1)


@pytest.mark.slow
def test_the_model_draws_the_prompted_objects(playground):
    """A smoke test of what `run.py bench playground_video` measures."""
    player, asked = clip_scenes.Player(clip_scenes.KINDS["dit"], *playground), clip_scenes.prompts(8, objects=(1.0, 0.0))
    judged = clip_scenes.judge_all(referee.load(referee.CLIP_WEIGHTS), player.pictures(player.draw([p.text for p in asked], 5)), asked)
    assert sum(j.frames for j in judged) / 8 > 0.3
    assert sum(j.ground for j in judged) >= 6
