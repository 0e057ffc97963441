"""From noise to a picture in a few steps, as a trainer has its model: for latents to train on, and for people to look at."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .practice import Practice

Names = str | Sequence[str]  # see Practice.predict


@torch.no_grad()
def euler(practice: Practice, names: Names, x: Tensor, path: Sequence[float], control: Any = None) -> Tensor:
    """What becomes of x (B, C, ...), at the first of these noise levels, at the last one (Euler's method)."""
    for high, low in itertools.pairwise(path):
        clean = practice.predict(names, x, high, control=control)
        x = clean + (x - clean) * (low / high)
    return x


@torch.no_grad()
def lcm(practice: Practice, names: Names, noises: Tensor, path: Sequence[float], control: Any = None) -> Tensor:
    """Clean latents by a consistency model that goes through these noise levels, each time with fresh noise (steps, B, C, ...)."""
    clean = torch.zeros_like(noises[0])
    for noise, sigma in zip(noises, path, strict=True):
        x = practice.sampling.noise_scaling(torch.tensor(sigma), noise, clean, False)
        clean = practice.predict(names, x, sigma, control=control)
    return clean
