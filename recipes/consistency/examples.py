"""What a consistency model is distilled on: pictures that the user has, or that the model itself draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...host.adapters.practice import Conditioning

STEPS, SAMPLER, SCHEDULER = 20, "dpmpp_2m", "normal"  # of the pictures that the model draws itself
TOGETHER = 8  # pictures of one prompt that are drawn, or encoded, at once


@dataclass(frozen=True)
class Examples:
    """latents: clean ones (N, C, h, w), as the VAE gives them; prompt: of each, its number; positive: all prompts, encoded."""

    latents: Tensor
    prompt: Sequence[int]
    positive: Sequence[Conditioning]
    negative: Conditioning


def own(
    model: ModelPatcher, positive: Sequence[Conditioning], negative: Conditioning, empty: Tensor, count: int, guidance: float, seed: int,
    done: Callable[[int], None],
) -> Examples:  # fmt: skip
    """`count` pictures of the form of `empty` (1, C, h, w), drawn by the model with the prompts in turn; done: told how many there are."""
    latents, prompt = [], []
    for number, cond in enumerate(positive):
        share = (count * (number + 1)) // len(positive) - (count * number) // len(positive)
        while share > 0:
            size = min(TOGETHER, share)
            blank = empty.new_zeros(size, *empty.shape[1:])
            noise: Any = comfy.sample.prepare_noise(blank, seed + len(prompt))
            latents.append(
                comfy.sample.sample(
                    model, noise, STEPS, guidance, SAMPLER, SCHEDULER, cond, negative, blank, disable_pbar=True, seed=seed + len(prompt)
                )
            )
            prompt += [number] * size
            share -= size
            done(len(prompt))
    return Examples(torch.cat(latents), prompt, positive, negative)


def encoded(vae: Any, pictures: Tensor, done: Callable[[int], None]) -> Tensor:
    """Latents (N, C, h, w) of pictures (N, H, W, 3)."""
    latents = []
    for start in range(0, len(pictures), TOGETHER):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents.append(vae.encode(pictures[start : start + TOGETHER]))
        done(min(start + TOGETHER, len(pictures)))
    return torch.cat(latents)
