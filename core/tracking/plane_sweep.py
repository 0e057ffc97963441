"""Depth by trying: where planes at many depths carry a frame's picture into others, the depth at which they look alike (Collins 1996)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras

PLANES = 48  # of 1 / depth, that are tried
WINDOW = 2  # pixels on each side of one, that are compared with it
PATTERN_RADIUS = 3  # pixels on each side of one, whose mean and contrast are taken out of it
LEAST_CONTRAST = 0.02  # of white: added to the contrast, so that noise alone makes no pattern
LARGEST_DIFFERENCE, OUTSIDE = 2.0, 3.0  # of two patterns: more counts as the first; and what counts where the other frame sees nothing
NEAREST = 1e-3  # of the depth of a plane: points that are nearer to the other camera are behind it


def pattern(pictures: Tensor) -> Tensor:
    """(F, H, W, 3) to (F, 1, H, W): grey without the mean and the contrast of what is around."""
    grey = pictures.mean(-1)[:, None]
    around = F.pad(torch.cat([grey, grey.square()], 1), (PATTERN_RADIUS,) * 4, mode="replicate")
    mean, square = F.avg_pool2d(around, 2 * PATTERN_RADIUS + 1, 1).split(1, 1)
    return (grey - mean) / ((square - mean.square()).clamp(min=0).sqrt() + LEAST_CONTRAST)


def sweep(
    patterns: Tensor, poses: Tensor, focal: float, frame: int, others: Sequence[int], span: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """1 / depth (h, w) of one frame, of PLANES values over `span`, where its pattern is like those of other frames; and how sure, 0..1.

    patterns: (F, 1, h, w); poses: (F, 4, 4); focal: in widths.
    """
    height, width = patterns.shape[-2:]
    length = focal * width
    y, x = torch.meshgrid(*(torch.arange(n, device=poses.device) + 0.5 for n in (height, width)), indexing="ij")
    rays = torch.stack([(x - width / 2) / length, (y - height / 2) / length, torch.ones_like(x)], -1)
    planes = torch.linspace(*span, PLANES, device=poses.device)
    costs = []
    for other in others:
        between = poses[other] @ cameras.inverse(poses[frame])
        seen = rays @ between[:3, :3].mT + between[:3, 3] * planes[:, None, None, None]
        depth = seen[..., 2].clamp(min=NEAREST)
        place = torch.stack([2 * length * seen[..., 0] / depth / width, 2 * length * seen[..., 1] / depth / height], -1)
        there = F.grid_sample(patterns[other].expand(PLANES, -1, -1, -1), place, align_corners=False)[:, 0]
        outside = (place.abs().amax(-1) > 1) | (seen[..., 2] < NEAREST)
        costs.append((there - patterns[frame]).abs().clamp(max=LARGEST_DIFFERENCE).masked_fill(outside, OUTSIDE))
    cost = torch.stack(costs).sort(0).values[: (len(costs) + 1) // 2].mean(0)  # what is hidden in some frames is seen in others
    cost = F.avg_pool2d(F.pad(cost[:, None], (WINDOW,) * 4, mode="replicate"), 2 * WINDOW + 1, 1)[:, 0]
    best, plane = cost.min(0)
    at = plane.clamp(1, PLANES - 2)
    low, middle, high = (cost.gather(0, (at + offset)[None])[0] for offset in (-1, 0, 1))
    part = ((low - high) / (2 * (low - 2 * middle + high)).clamp(min=1e-6)).clamp(-0.5, 0.5)
    apart = (torch.arange(PLANES, device=at.device)[:, None, None] - at).abs() > 2
    sure = 1 - best / cost.where(apart, torch.inf).amin(0).clamp(min=1e-6)
    return planes[0] + (at + part) * (planes[1] - planes[0]), torch.where(plane == at, sure, 0)  # at an end, it may lie beyond
