"""Energies that make a picture take its layout from one picture and its look from another.

FreeControl, Mo et al. 2024, https://arxiv.org/abs/2312.07536, sec. 4.2. With coordinates s of the keys f of the picture
that is being made, coordinates s^g of the condition, and a mask m of what is to be placed:

    structure    g_s = mean_m |s - s^g|^2 + w mean_(1-m) max(s - tau, 0)^2,   tau = max over (1-m) of s^g
    appearance   g_a = mean_k |v_k - v'_k|^2,   v_k = sum sigmoid(s_k) f / sum sigmoid(s_k)

with v' of the *sibling*, the picture that the same noise gives without structure.

Where we differ, each measured in `bench freecontrol`:
- coordinates are *relative* by default: their mean over the picture is taken off, so that light and colour as a whole are
  left to the prompt;
- small differences are none (SLACK), and those in directions in which the condition hardly varies count little (layout_metric), so that
  a ground keeps its texture where the condition is flat;
- the gradient is followed by a bounded Polyak step, E g / |g|^2, instead of a weight of 400 to 1000 that has to be
  found anew for every model and step count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SLACK = 0.7  # of a coordinate's deviation over the seed pictures
HARDLY = 0.1  # of the largest variance of a condition's coordinates along one direction: where it varies so much, a difference counts half


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
    coordinates: Tensor, target: Tensor, mask: Tensor, limit: Tensor, background: float, slack: float = 0.0, metric: Tensor | None = None
) -> Tensor:
    """g_s for each picture: (B,).

    coordinates, target: (B, tokens, N); mask: (B, tokens) in 0..1; limit: (B, 1, N), see background_limit. slack: differences
    up to this are none. metric: (B, N, N), by which differences are squared, see layout_metric; without, their mean square is taken.
    """
    difference = coordinates - target
    distance = difference.sign() * (difference.abs() - slack).clamp(min=0)
    placed = (mask * _square(distance, metric)).sum(-1) / mask.sum(-1).clamp(min=1e-6)
    if background == 0:
        return placed
    outside = 1 - mask
    excess = _square((coordinates - limit).clamp(min=0), metric)
    return placed + background * (outside * excess).sum(-1) / outside.sum(-1).clamp(min=1)


def _square(values: Tensor, metric: Tensor | None) -> Tensor:
    """(B, tokens, N) to (B, tokens)."""
    return values.square().mean(-1) if metric is None else (values @ metric * values).sum(-1)


def layout_metric(target: Tensor, weights: Tensor | None = None) -> Tensor:
    """How much a difference counts by its direction: as far as the condition itself varies along it. (..., tokens, N) to (..., N, N).

    What does not vary in a condition, such as the texture of a ground that it shows flat, is not its layout, and is left to the prompt.
    With the covariance C of the target's coordinates, each scaled by the root of its share of the weights, (..., N), this is
    C (C + HARDLY c)^-1 for the largest eigenvalue c, Wiener's filter, in the unscaled coordinates. Without weights all share alike.
    """
    weights = torch.ones_like(target[..., 0, :]) if weights is None else weights
    root = (weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)).sqrt()
    scaled = root[..., None, :] * relative(target)
    values, directions = torch.linalg.eigh(scaled.mT @ scaled / target.shape[-2])
    values = values.clamp(min=0)
    counts = values / (values + HARDLY * values[..., -1:]).clamp(min=1e-12)
    mixed = root[..., None] * directions
    return mixed * counts[..., None, :] @ mixed.mT


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
