"""Drawn scenes, encoded once for all the steps of a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd
import torch
import torch.nn.functional as F
from torch import Tensor

from ..training.files import save_whole
from ..training.precision import mixed_precision
from .image.train_vae import moments
from .world import world

TOGETHER = 32  # scenes are drawn and encoded at once


@dataclass
class Latents:
    """Encoded scenes: latents (N, 4, 16, 16), masks of ground and objects (N, 4, 16, 16), both in half precision."""

    latent: Tensor
    masks: Tensor
    scenes: world.Scenes


@torch.no_grad()
def encode(vae: comfy.sd.VAE, scenes: world.Scenes, cache: Path) -> Latents:
    """Renders and encodes scenes; the latents are kept in `cache`, and made anew only when it holds another number of them."""
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        if len(stored["latent"]) == len(scenes):
            return Latents(stored["latent"], stored["masks"], scenes)
    stage: Any = vae.first_stage_model
    stage = stage.to(memory_format=torch.channels_last)  # a third faster
    latents, masks = [], []
    for start in range(0, len(scenes), TOGETHER):
        image, mask = world.render(scenes[start : start + TOGETHER])
        with mixed_precision("cpu"):
            encoded = moments(stage, image.to(memory_format=torch.channels_last))[0]
        latents.append(encoded.half().contiguous())
        pooled = F.avg_pool2d(mask, 8)
        masks.append(torch.cat([1 - pooled.sum(1, keepdim=True), pooled], 1).half())
    stored = {"latent": torch.cat(latents), "masks": torch.cat(masks)}
    save_whole(stored, cache)
    return Latents(stored["latent"], stored["masks"], scenes)
