"""Pixels of one frame, the reference, carried by their depth into another, the target."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from .pyramid import SAME_SURFACE, Level
from .state import State

IN_FRONT = 0.05  # of its depth in the reference frame: a point that is nearer to the target camera counts as behind it
KNOWN_AROUND = 0.4  # of the bilinear weight around a place: with less valid depth, the target's depth there is not known


class Bilinear(NamedTuple):
    """Bilinear interpolation at P x N places: the nearest pixel, (P, N), and the four around each, (P, 4, N), as indices into a flattened
    map; and the weights of the four."""

    nearest: Tensor
    pixels: Tensor
    weights: Tensor

    def around(self, maps: Tensor) -> Tensor:
        """The values of maps (P, h, w) at the four pixels, (P, 4, N)."""
        return maps.flatten(1).gather(1, self.pixels.flatten(1)).view(self.pixels.shape)


class SampledDepth(NamedTuple):
    """Given depth at P x N places. value: (P, N); shares: (P, 4, N), its logarithm's derivatives by the logarithms of the depths of the
    four pixels around; known: (P, N), how much weight of those is valid."""

    value: Tensor
    shares: Tensor
    known: Tensor


class Warp(NamedTuple):
    """P pairs of frames at the N pixels of the reference.

    seen: (P, N), whether the target sees the same and the depths of both are known; the rest is only meant where it does.
    rays: (N, 3), of the reference; points, transformed: (P, N, 3), in the frames of both cameras; depth: (P, N), of the transformed ones;
    rotation: (P, 3, 3), from the reference to the target; focal: (), in pixels.
    grey, given: (P, N), of the reference; target_grey: (P, N), sampled where the target sees it, and target_given, its depth there as
    given; grey_by_place, given_by_place: (P, N, 2), the derivatives of both, per pixel; target_depth: (P, N), in the units of the poses.
    """

    seen: Tensor
    rays: Tensor
    points: Tensor
    transformed: Tensor
    depth: Tensor
    rotation: Tensor
    focal: Tensor
    grey: Tensor
    given: Tensor
    target_grey: Tensor
    grey_by_place: Tensor
    target_given: SampledDepth
    given_by_place: Tensor
    target_depth: Tensor
    bilinear: Bilinear


def warp(level: Level, state: State, pairs: Tensor) -> Warp:
    """pairs: (P, 2), reference and target."""
    reference, target = pairs.unbind(1)
    height, width = level.size
    focal = state.focal * width
    y, x = torch.meshgrid(*(torch.arange(n).to(level.grey) + 0.5 for n in level.size), indexing="ij")
    rays = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1).view(-1, 3)
    grey, given, valid = (each[reference].flatten(1) for each in (level.grey, level.depth, level.valid))
    z = state.depths(given, reference)
    points = z[..., None] * rays
    relative = state.poses[target] @ cameras.inverse(state.poses[reference])
    rotation = relative[:, :3, :3]
    transformed = points @ rotation.mT + relative[:, None, :3, 3]
    depth = transformed[..., 2]
    front = (depth > IN_FRONT * z) & (z > 0) & (valid > 0)
    depth = torch.where(front, depth, 1)
    u, v = focal * transformed[..., 0] / depth + width / 2, focal * transformed[..., 1] / depth + height / 2
    inside = (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    place = torch.stack([2 * u / width - 1, 2 * v / height - 1], -1).view(-1, height, width, 2)
    maps = torch.stack([level.grey, level.grey_dx, level.grey_dy, level.depth_dx, level.depth_dy], 1)
    sampled = F.grid_sample(maps[target], place, align_corners=False).flatten(2).mT
    around = bilinear(u, v, level.size)
    target_given = sampled_depth(around, level.depth[target], level.valid[target])
    target_depth = state.depths(target_given.value, target)
    seen = front & inside & (target_given.known > KNOWN_AROUND) & (target_depth > 0)
    return Warp(
        seen, rays, points, transformed, depth, rotation, focal, grey, given, sampled[..., 0], sampled[..., 1:3], target_given,
        sampled[..., 3:], torch.where(seen, target_depth, 1), around,
    )  # fmt: skip


def bilinear(u: Tensor, v: Tensor, size: tuple[int, int]) -> Bilinear:
    """At places (P, N) in pixels, whose centres are at +.5; those outside of the map have the weights of some place on its rim."""
    height, width = size
    x, y = (u - 0.5).clamp(0, width - 1), (v - 0.5).clamp(0, height - 1)
    left, top = x.long().clamp(0, width - 2), y.long().clamp(0, height - 2)  # both ends, since what is not a number comes out below 0
    x, y, first = x - left, y - top, top * width + left
    return Bilinear(
        first + (x > 0.5) + width * (y > 0.5),
        torch.stack([first, first + 1, first + width, first + width + 1], 1),
        torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], 1),
    )


def sampled_depth(at: Bilinear, depth: Tensor, valid: Tensor) -> SampledDepth:
    """From maps (P, h, w). It is interpolated among the valid pixels around that belong to the same surface (SAME_SURFACE) as the nearest
    of them: between two surfaces there is nothing, and the slope from one to the other would be that of a wall which is not there."""
    known, around = at.around(valid), at.around(depth * valid)
    weights = at.weights * known
    nearest = around.where(weights == weights.amax(1, keepdim=True), 0).amax(1, keepdim=True)
    same = known * ((around - nearest).abs() <= SAME_SURFACE * nearest)
    parts = at.weights * same * around
    total, share = parts.sum(1), (at.weights * same).sum(1).clamp(min=1e-6)
    value = total / share
    return SampledDepth(value, parts / torch.where(total > 0, total, 1)[:, None], weights.sum(1))
