"""The playground's video transformer: the host's WanModel at a small size, on latents of the image playground's VAE.

Trained with flow matching. A latent frame is one frame of 128 x 128 pixels, so a clip of 13 frames is (4, 13, 16, 16). Attention knows
only how far places are apart, so further channels tell them where in the clip they are.
"""

from pathlib import Path
from typing import ClassVar

import comfy.model_base
import comfy.model_patcher
import comfy.sd
from torch import Tensor

from .. import text
from ..frame_vae import build_frame_vae
from ..image import models as image_models
from ..places import CHANNELS, places
from ..video_words.models import LANGUAGE, load_clip
from ..weights import load_compact

WEIGHTS = Path(__file__).parent / "video_dit.safetensors"
SHIFT = 5.0  # of the noise levels, in training as in sampling
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "in_dim": 4 + CHANNELS,
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


class PlacedVideo(comfy.model_base.WAN21):
    def concat_cond(self, **kwargs) -> Tensor:
        noise = kwargs["noise"]
        return places(*noise.shape[2:], device=noise.device).to(noise).expand(len(noise), -1, -1, -1, -1)


def build_model(weights: dict[str, Tensor] | None = None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL; `weights` are those of the transformer alone."""
    return image_models.build_patcher(PlaygroundVideo(dict(WAN)), PlacedVideo, weights)


def load(path: Path = WEIGHTS) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, with the CLIP of both video models and the image playground's VAE."""
    vae = {k.removeprefix("vae."): w for k, w in load_compact(image_models.WEIGHTS).items() if k.startswith("vae.")}
    return build_model(load_compact(path)), load_clip(), build_frame_vae(vae)
