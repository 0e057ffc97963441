"""Trains the playground's autoencoder on rendered scenes, or on other pictures."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor, nn

from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..world import world
from . import autoencoder

KL_WEIGHT = 2e-4
CROPS = 0.6  # of the training is on quarter-size crops, which are four times cheaper
CROP_BATCH, BATCH = 12, 6
STANDARD = 256  # pictures, of which the latents have mean 0 and variance 1
Draw = Callable[[int, int, torch.Generator], Tensor]  # so many pictures (B, 3, side, side) in 0..1


def moments(vae: AutoencoderKL, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latent of pictures in 0..1."""
    mean, log_variance = vae.quant_conv(vae.encoder(2 * image - 1)).float().chunk(2, 1)
    return mean, log_variance.clamp(-20, 10)


def decode(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    """Pictures around 0..1, not clamped."""
    return (vae.decoder(vae.post_quant_conv(latent)).float() + 1) / 2


def edges(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.diff(dim=-1), image.diff(dim=-2)


def scenes(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Rendered scenes (count, 3, side, side): whole ones, or crops."""
    image = world.render(world.sample_scenes(count, generator))[0]
    if side == world.SIZE:
        return image
    top, left = torch.randint(0, world.SIZE - side, (2,), generator=generator).tolist()
    return image[..., top : top + side, left : left + side].contiguous()


def restoration_loss(vae: AutoencoderKL, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """How far a picture is from what comes back of it, and how far its latent from a normal distribution."""
    mean, log_variance = moments(vae, image)
    latent = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    restored = decode(vae, latent)
    square = F.mse_loss(restored, image)
    edge = sum(F.l1_loss(a, b) for a, b in zip(edges(restored), edges(image), strict=True))
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    loss = 2 * square + F.l1_loss(restored, image) + 0.5 * edge + KL_WEIGHT * kl
    return loss, {"psnr": -10 * square.log10(), "kl": kl}


def train(
    folder: Path, steps: int, seed: int, watch: Watch, draw: Draw = scenes, start: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights, with the latents brought to mean 0 and variance 1. start: weights to begin with."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(**autoencoder.CONFIG)
    if start is None:
        initialise(vae, zero=("conv2.weight", "proj_out.weight"))
        bias: Any = vae.quant_conv.bias
        nn.init.constant_(bias[autoencoder.CONFIG["embed_dim"] :], -4.0)  # start with little noise on the latent
    else:
        vae.load_state_dict(start)

    def some(step: int, generator: torch.Generator) -> Tensor:
        small = step < CROPS * steps
        return draw(CROP_BATCH if small else BATCH, world.SIZE // 2 if small else world.SIZE, generator)

    run = Run(vae, Settings(steps, learning_rate=1e-3, seed=seed, ema=0.995, bfloat16=True), folder)
    vae.load_state_dict(run.go(some, partial(restoration_loss, vae), watch))
    return standardise(vae, draw(STANDARD, world.SIZE, torch.Generator().manual_seed(seed + 10**9)))


@torch.no_grad()
def standardise(vae: AutoencoderKL, image: Tensor) -> dict[str, Tensor]:
    """Folds the mean and deviation of each latent channel, over pictures, into the convolutions on both sides of the latent."""
    vae.eval()
    latent = torch.cat([moments(vae, part)[0] for part in image.split(16)])
    mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    state = {k: v.clone() for k, v in vae.state_dict().items()}
    channels = len(mean)
    state["quant_conv.weight"][:channels] /= deviation[:, None, None, None]
    state["quant_conv.bias"][:channels] = (state["quant_conv.bias"][:channels] - mean) / deviation
    state["quant_conv.bias"][channels:] -= 2 * deviation.log()
    state["post_quant_conv.bias"] += (state["post_quant_conv.weight"][:, :, 0, 0] * mean).sum(1)
    state["post_quant_conv.weight"] *= deviation[None, :, None, None]
    return state
