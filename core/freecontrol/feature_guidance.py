"""Energies that make a picture take its layout from one picture and its look from another.

FreeControl, Mo et al. 2024, https://arxiv.org/abs/2312.07536, sec. 4.2. With coordinates s of the keys f of the picture
that is being made, coordinates s^g of the condition, and a mask m of what is to be placed:

    structure    g_s = mean_m |s - s^g|^2 + w mean_(1-m) max(s - tau, 0)^2,   tau = max over (1-m) of s^g
    appearance   g_a = mean_k |v_k - v'_k|^2,   v_k = sum sigmoid(s_k) f / sum sigmoid(s_k)

with v' of the *sibling*, the picture that the same noise gives without structure.

Where we differ, each measured in `bench freecontrol`:
- coordinates are *relative* by default: their mean over the picture is taken off, so that light and colour as a whole are
  left to the prompt;
- small differences are none (SLACK), so that a ground may keep its texture where the condition is flat;
- the gradient is followed by a bounded Polyak step, E g / |g|^2, instead of a weight of 400 to 1000 that has to be
  found anew for every model and step count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SLACK = 0.7  # of a coordinate's deviation over the seed pictures


def relative(coordinates: Tensor) -> Tensor:
    """Coordinates (..., tokens, N) without their mean over the picture."""
    return coordinates - coordinates.mean(-2, keepdim=True)


def background_limit(target: Tensor, mask: Tensor) -> Tensor:
    """tau: the largest target coordinate outside the mask, by component. (B, tokens, N), (B, tokens) -> (B, 1, N).

    Where the mask covers everything there is no background, and no limit (infinity).
    """
    outside = target.masked_fill(mask[..., None] > 0.5, -torch.inf).amax(-2, keepdim=True)
    return torch.where(outside.isinf(), torch.inf, outside)


def structure_energy(
    coordinates: Tensor, target: Tensor, mask: Tensor, limit: Tensor, background: float, slack: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """g_s for each picture: (B,).

    coordinates, target: (B, tokens, N); mask: (B, tokens) in 0..1; limit: (B, 1, N), see background_limit. slack: differences
    up to this are none. weights: (B, N), by which components count; without, all alike.
    """
    count = coordinates.shape[-1]
    share = coordinates.new_full((1, 1, count), 1 / count) if weights is None else _shares(weights)
    distance = ((coordinates - target).abs() - slack).clamp(min=0)
    placed = (mask * (share * distance.square()).sum(-1)).sum(-1) / mask.sum(-1).clamp(min=1e-6)
    if background == 0:
        return placed
    outside = 1 - mask
    excess = (share * (coordinates - limit).clamp(min=0).square()).sum(-1)
    return placed + background * (outside * excess).sum(-1) / outside.sum(-1).clamp(min=1)


def _shares(weights: Tensor) -> Tensor:
    """Weights (B, N) as (B, 1, N) with a sum of 1."""
    return (weights / weights.sum(-1, keepdim=True).clamp(min=1e-6))[:, None]


def appearance(keys: Tensor, coordinates: Tensor, components: int) -> Tensor:
    """v: the mean key of the picture, and those weighted by each of its first coordinates. (B, 1 + components, C)."""
    weights = coordinates[..., :components].sigmoid()
    weights = torch.cat([torch.ones_like(weights[..., :1]), weights], -1)
    return (weights.mT @ keys.to(weights.dtype)) / weights.sum(-2)[..., None]


def appearance_energy(look: Tensor, sibling: Tensor, spread: Tensor) -> Tensor:
    """g_a for each picture, (B,), in units of `spread`, the variance of the keys (a number)."""
    return (look - sibling).square().sum(-1).mean(-1) / spread


def resample(values: Tensor, grid: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Values on a token grid, (B, h * w, N), brought to another grid, (B, h' * w', N)."""
    if grid == new:
        return values
    picture = values.mT.unflatten(-1, grid)
    shrinking = new[0] < grid[0] or new[1] < grid[1]
    return F.interpolate(picture, new, mode="bilinear", antialias=shrinking).flatten(2).mT
