"""The playground's video transformer: the host's WanModel at a small size, on latents of the image playground's VAE.

Trained with flow matching. A latent frame is one frame of 128 x 128 pixels, so a clip of 13 frames is (4, 13, 16, 16). Further channels
tell every place where in the clip it is, in the way in which others get the picture that they begin with: attention knows only how far
places are apart, and a model of this size does not learn from that alone what goes left and what goes right.
"""

from pathlib import Path
from typing import ClassVar

import comfy.model_base
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from .. import text
from ..frame_vae import build_frame_vae
from ..image import models as image_models
from ..video_words.models import LANGUAGE, load_clip
from ..weights import load_compact

WEIGHTS = Path(__file__).parent / "video_dit.safetensors"
SHIFT = 5.0  # of the noise levels, in training as in sampling
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "in_dim": 4 + 5,
    "out_dim": 4,
    "dim": 192,
    "ffn_dim": 768,
    "freq_dim": 128,
    "text_dim": text.WIDTH,
    "text_len": LANGUAGE.max_tokens,
    "num_heads": 6,
    "num_layers": 6,
    "cross_attn_norm": True,
}


class FrameLatent(image_models.PlaygroundLatent):
    """Latents of the image playground, one for each frame."""

    latent_dimensions = 3
    temporal_downscale_ratio = 1


class PlaygroundVideo(image_models.Playground):
    """A Wan-like model."""

    latent_format = FrameLatent
    sampling_settings: ClassVar[dict] = {"shift": SHIFT}


def places(frames: int, height: int, width: int) -> Tensor:
    """Where in a clip each place is, (5, F, H, W): time, down and right, from -1 to 1, and the first by each of the others, which is above
    0 on the way of what goes down or right, and below on that of what goes up or left. Time is 0 in a single frame."""
    time = torch.linspace(-1, 1, frames) if frames > 1 else torch.zeros(1)
    down, right = ((2 * torch.arange(count) + 1) / count - 1 for count in (height, width))
    t, y, x = torch.meshgrid(time, down, right, indexing="ij")
    return torch.stack([t, y, x, t * y, t * x])


class PlacedVideo(comfy.model_base.WAN21):
    def concat_cond(self, **kwargs) -> Tensor:
        noise = kwargs["noise"]
        return places(*noise.shape[2:]).to(noise).expand(len(noise), -1, -1, -1, -1)


def build_model(weights: dict[str, Tensor] | None = None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL; `weights` are those of the transformer alone."""
    return image_models.build_patcher(PlaygroundVideo(dict(WAN)), PlacedVideo, weights)


def load(path: Path = WEIGHTS) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, with the CLIP of both video models and the image playground's VAE."""
    vae = {k.removeprefix("vae."): w for k, w in load_compact(image_models.WEIGHTS).items() if k.startswith("vae.")}
    return build_model(load_compact(path)), load_clip(), build_frame_vae(vae)
