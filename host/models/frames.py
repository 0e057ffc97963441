"""What the axes of a latent are: some models have an axis of time, others take the frames of a clip as a batch."""

from typing import Any

import comfy.sample
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

FRAME_AXES = ("auto", "in the batch", "single pictures")  # what a user may say that a batch is
PICTURES = {"Wan21": 4, "HunyuanVideo": 4, "HunyuanVideo15": 4, "LTXV": 8, "Mochi": 6}  # of a latent frame, where the host (before
# 0.25) does not tell; by class


def clip_length(model: Any, batch: int, frames: str = "auto") -> int:
    """How many of a batch of pictures a BaseModel of the host sees as one clip: 1 unless it has layers over time, or a user says so."""
    if frames != "auto":
        return batch if frames == "in the batch" else 1
    if not model.model_config.unet_config.get("use_temporal_attention"):
        return 1
    wanted = getattr(model, "clip_frames", batch)  # the playground takes several clips at once
    return wanted if batch % wanted == 0 else batch


def fitted(model: ModelPatcher, samples: Tensor, latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT with the channels and the axes of a model, as the host's own samplers bring them there; ratios of time are
    known to it from 0.25 on."""
    ratios = [latent.get(f"downscale_ratio_{axis}") for axis in ("spacial", "temporal")]
    return comfy.sample.fix_empty_latent_channels(model, samples, *(ratios if ratios[1] is not None else ratios[:1]))


def with_time(latent: Tensor, clip: int) -> Tensor:
    """(clips, C, T, H, W) of latents of that form, or of pictures (clips * clip, C, H, W)."""
    return latent if latent.ndim == 5 else rearrange(latent, "(b t) c h w -> b c t h w", t=clip)


def without_time(volume: Tensor, ndim: int) -> Tensor:
    """Back from `with_time` to latents of `ndim` axes."""
    return volume if ndim == 5 else rearrange(volume, "b c t h w -> (b t) c h w")


def pictures_per_latent(latent_format: Any) -> int:
    """How many pictures each latent frame stands for; the first frame of such a clip always stands for one."""
    known = getattr(latent_format, "temporal_downscale_ratio", None)
    return (
        next((PICTURES[kind.__name__] for kind in type(latent_format).__mro__ if kind.__name__ in PICTURES), 1) if known is None else known
    )
