# pyright: reportOptionalSubscript=false, reportAttributeAccessIssue=false
# The host leaves the types of outputs open.
"""The trained video models, in the real host: everything stock works on them, and they draw what they are told."""

from typing import Any, NamedTuple

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
from freesteer.playground.video_dit import models as video_dit
from freesteer.playground.world import motion

PROMPT = "a red star goes left on grass"


class Trained(NamedTuple):
    kind: clip_scenes.Kind
    model: Any
    clip: Any
    vae: Any

    def empty(self, frames: int = 13, height: int = 16, width: int = 16) -> torch.Tensor:
        return torch.zeros(frames, 4, height, width) if self.kind.frames_first else torch.zeros(1, 4, frames, height, width)


@pytest.fixture(scope="module")
def transformer() -> Trained:
    return Trained(clip_scenes.KINDS["dit"], *video_dit.load())


@pytest.fixture(scope="module", params=clip_scenes.KINDS)
def playground(request: pytest.FixtureRequest, transformer: Trained) -> Trained:
    kind = clip_scenes.KINDS[request.param]
    return transformer if request.param == "dit" else Trained(kind, *kind.models.load())


def draw(playground: Trained, latent: torch.Tensor, steps: int = 4, model: Any = None, sampler: str = "euler", seed: int = 0, **options):
    clip = playground.clip
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (PROMPT, ""))
    with torch.inference_mode():
        drawn = comfy.sample.sample(
            model or playground.model, noise, steps, 4.0, sampler, "simple", positive, negative, latent, disable_pbar=True, seed=seed,
            **options,
        )  # fmt: skip
    assert torch.isfinite(drawn).all() and drawn.shape == latent.shape
    return drawn


@pytest.fixture(scope="module")
def plain(playground):
    return draw(playground, playground.empty())


@pytest.fixture(scope="module")
def drawn_clip(playground):
    """The latent of a clip of the world."""
    pictures = motion.render_clips(motion.sample_clips(1, torch.Generator().manual_seed(3)))[0][0]
    with torch.inference_mode():
        return playground.vae.encode(pictures.movedim(1, -1))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "lcm", "heun", "res_multistep"])
def test_samplers_of_the_host_draw_a_finite_clip(playground, sampler):
    draw(playground, playground.empty(), 3, sampler=sampler)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (5, 16, 16), (17, 16, 16), (5, 16, 32), (5, 10, 14)])
def test_other_lengths_and_forms_work(playground, frames, height, width):
    drawn = draw(playground, playground.empty(frames, height, width), 1)
    with torch.inference_mode():
        assert playground.vae.decode(drawn).shape[-4:] == (frames, 8 * height, 8 * width, 3)


def test_a_clip_repeats_by_its_seed(playground, plain):
    assert torch.equal(draw(playground, playground.empty()), plain)
    assert not torch.equal(draw(playground, playground.empty(), seed=1), plain)


def test_another_shift_changes_the_clip(transformer):
    plain = draw(transformer, transformer.empty())
    (same,) = ModelSamplingSD3().patch(transformer.model, video_dit.SHIFT)
    (other,) = ModelSamplingSD3().patch(transformer.model, 2.0)
    torch.testing.assert_close(draw(transformer, transformer.empty(), model=same), plain)
    assert (draw(transformer, transformer.empty(), model=other) - plain).abs().mean() > 0.01


def test_a_lora_changes_the_clip_and_leaves_the_model(playground, plain):
    weights, draws = playground.model.model.state_dict(), torch.Generator().manual_seed(0)
    layer = next(name.removesuffix(".weight") for name in weights if name.endswith(("ffn.0.weight", "time_stack.0.ff.net.0.proj.weight")))
    ups, downs = weights[f"{layer}.weight"].shape
    shapes = {"A": (2, downs), "B": (ups, 2)}
    lora = {f"{layer}.lora_{end}.weight": 0.3 * torch.randn(shape, generator=draws) for end, shape in shapes.items()}
    changed, _ = comfy.sd.load_lora_for_models(playground.model, None, lora, 1.0, 0.0)
    assert (draw(playground, playground.empty(), model=changed) - plain).abs().mean() > 0.01
    assert torch.equal(draw(playground, playground.empty()), plain)


def test_context_windows_draw_a_longer_clip(transformer):
    standard = comfy.context_windows.ContextSchedules.STATIC_STANDARD
    windows = ContextWindowsManualNode.execute(
        transformer.model, 13, 4, standard, 1, False, comfy.context_windows.ContextFuseMethods.PYRAMID, 2, False, causal_window_fix=False
    ).result[0]
    draw(transformer, transformer.empty(25), 2, model=windows)


@torch.inference_mode()
def test_img2img_stays_near_its_clip_and_a_mask_protects_it(playground, drawn_clip):
    near = draw(playground, drawn_clip, 8, denoise=0.15)
    far = draw(playground, drawn_clip, 8)
    assert (near - drawn_clip).abs().mean() < 0.6 * (far - drawn_clip).abs().mean()
    mask = torch.zeros_like(drawn_clip[:, :1])
    mask[..., :8] = 1
    kept = draw(playground, drawn_clip, noise_mask=mask)
    torch.testing.assert_close(kept[..., 9:], drawn_clip[..., 9:], rtol=0, atol=1e-3)
    assert (kept[..., :7] - drawn_clip[..., :7]).abs().mean() > 0.05


def test_the_hosts_empty_clip_works(transformer):
    latent = EmptyHunyuanLatentVideo.execute(128, 128, 13, 1).result[0]
    fixed = comfy.sample.fix_empty_latent_channels(transformer.model, latent["samples"], latent.get("downscale_ratio_spacial"))
    assert fixed.shape[1] == 4 and fixed.shape[-2:] == (16, 16)
    draw(transformer, fixed, 1)


@pytest.mark.slow
def test_the_model_draws_the_prompted_objects(playground):
    """A smoke test of what `run.py bench playground_video` measures."""
    player, asked = clip_scenes.Player(*playground), clip_scenes.prompts(4, objects=(1.0, 0.0))
    pictures = player.pictures(player.draw([p.text for p in asked], 5, steps=12))
    judged = clip_scenes.judge_all(referee.load(referee.CLIP_WEIGHTS), pictures, asked)
    assert sum(j.frames for j in judged) / 4 > 0.3
    assert sum(j.ground for j in judged) >= 3
