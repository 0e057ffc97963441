"""What the image playground and the video U-Net are trained with: batches of noisy latents, and the error of the noise found in them.

A small term asks the cross-attention to look at the words of the thing that a pixel shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from comfy.model_sampling import ModelSamplingDiscrete
from torch import Tensor

from . import text
from .attention_loss import Looks

ATTENTION_WEIGHT = 0.02
MIN_SNR = 5.0
OBJECT_WEIGHT = 2.0  # pixels of objects count so much more than the ground, which most of a picture is


@dataclass
class NoisyBatch:
    """Noisy latents of pictures (B, 4, 16, 16) or clips (B, F, 4, 16, 16) at times t and noise levels sigma (B), with the noise in
    them, whose share of noise and signal is `level` (B), sigma / (1 + sigma), or 1 where there is nothing else; the words
    (B, tokens), what each speaks of, and masks of that, of the latents' form."""

    noisy: Tensor
    noise: Tensor
    t: Tensor
    sigma: Tensor
    level: Tensor
    tokens: Tensor
    groups: Tensor
    masks: Tensor


class Noising:
    """Adds noise of a level drawn from the schedule of Stable Diffusion: the highest of so many draws.

    A share `blind` of the batch is noise alone, at the highest level, where the schedule itself leaves some of the picture, and of a clip
    enough to see all that happens in it: who learns only from that follows the noise that sampling begins with, and not the words
    (https://arxiv.org/abs/2305.08891)."""

    def __init__(self, draws: int = 1, blind: float = 0.0) -> None:
        self.sigmas: Any = ModelSamplingDiscrete().sigmas
        self.draws, self.blind = draws, blind

    def __call__(self, latent: Tensor, tokens: Tensor, groups: Tensor, masks: Tensor, generator: torch.Generator) -> NoisyBatch:
        device = latent.device
        t = torch.randint(1000, (len(latent), self.draws), generator=generator, device=device).amax(1)
        noise = torch.randn(latent.shape, generator=generator, device=device)
        blind = torch.arange(len(latent), device=device) < round(self.blind * len(latent))
        t[blind] = len(self.sigmas) - 1
        sigma = self.sigmas.to(device)[t]
        at = sigma.view(-1, *[1] * (latent.ndim - 1))
        noise[blind] = noise[blind] * (1 + 1 / at[blind] ** 2).sqrt() - latent[blind] / at[blind]  # so that the sum below is noise alone
        level = torch.where(blind, 1.0, sigma / (1 + sigma))
        return NoisyBatch((latent + at * noise) / (1 + at**2).sqrt(), noise, t.float(), sigma, level, tokens, groups, masks)


def min_snr(snr: Tensor) -> Tensor:
    """Weights of the noise's error that hold little noise back (https://arxiv.org/abs/2303.09556)."""
    return (MIN_SNR / snr).clamp(max=1)


def as_velocity(snr: Tensor) -> Tensor:
    """Weights that make the noise's error that of the velocity (https://arxiv.org/abs/2202.00512): where there is most noise, where the
    noise's own error says next to nothing, what counts is the error of the picture."""
    return 1 + 1 / snr


def everywhere(snr: Tensor) -> Tensor:
    return torch.ones_like(snr)


def where_there_is_signal(snr: Tensor) -> Tensor:
    return snr / (1 + snr)


class Weights(NamedTuple):
    """How much counts at which signal to noise ratio: the noise's error, and where the attention looks, which also counts `attention`."""

    noise: Callable[[Tensor], Tensor]
    look: Callable[[Tensor], Tensor]
    attention: float


OF_PICTURES = Weights(min_snr, where_there_is_signal, ATTENTION_WEIGHT)
# Which way a thing goes is worth next to nothing to the error of noise, and is decided where there is most of it. Where the attention looks
# tells the same without the ground, which only hides it.
OF_CLIPS = Weights(as_velocity, everywhere, 100 * ATTENTION_WEIGHT)


def noise_loss(predicted: Tensor, batch: NoisyBatch, looks: Looks, weights: Weights = OF_PICTURES) -> tuple[Tensor, dict[str, Tensor]]:
    """The noise loss, weighted by time and place, and the loss of where the attention looks."""
    snr = 1 / batch.sigma**2
    importance = 1 + (OBJECT_WEIGHT - 1) * (1 - batch.masks[..., :1, :, :])
    error = (importance * (predicted - batch.noise).square()).flatten(1).mean(1) / importance.flatten(1).mean(1)
    denoising = (error * weights.noise(snr)).mean()
    said = batch.tokens[:, 1] != text.END
    attention = looks.loss(batch.groups, batch.masks.reshape(len(said), -1, *batch.masks.shape[-3:]), weights.look(snr) * said)
    return denoising + weights.attention * attention, {"noise": error.mean(), "attention": attention}
