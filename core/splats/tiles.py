"""Which Gaussians touch which tiles of a picture, nearest first."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .projection import NEAR, Projected

FAINTEST = 1 / 255  # opacity at a pixel; what is less is not drawn (3D Gaussian Splatting's own limit)


@dataclass(frozen=True)
class Tiles:
    """gaussian: (M,), rows of the scene, by tile and within a tile by depth; start, count: (tiles,), where each tile's are.

    side: pixels of a tile's edge; grid: (rows, columns) of tiles, which cover the picture and may hang over its rim.
    """

    gaussian: Tensor
    start: Tensor
    count: Tensor
    side: int
    grid: tuple[int, int]


@torch.no_grad()
def assign(projected: Projected, opacities: Tensor, size: tuple[int, int], side: int) -> Tiles:
    """Every tile of a picture (height, width) with the Gaussians whose visible ellipse reaches into its box."""
    rows, columns = (-(-pixels // side) for pixels in size)
    reach = 2 * torch.log((opacities / FAINTEST).clamp(min=1))  # squared, in deviations
    half = (reach[:, None] * projected.covariances[:, ::2]).sqrt()
    limit = half.new_tensor([columns, rows])
    low = ((projected.means - half) / side).floor().clamp(min=0).minimum(limit)
    high = ((projected.means + half) / side).ceil().clamp(min=0).minimum(limit)
    seen = (projected.depths > NEAR) & (reach > 0) & torch.isfinite(low).all(-1) & torch.isfinite(high).all(-1)
    order = seen.nonzero().squeeze(-1)
    order = order[projected.depths[order].argsort(stable=True)]
    low, high = low[order].long(), high[order].long()
    width, height = (high - low).clamp(min=0).unbind(-1)
    touched = width * height
    which = torch.repeat_interleave(touched)
    first = touched.cumsum(0) - touched
    within = torch.arange(len(which), device=which.device) - first[which]
    wide = width[which]
    tile = (low[which, 1] + within // wide) * columns + low[which, 0] + within % wide
    by_tile = tile.to(torch.int16 if rows * columns < 2**15 else torch.int32).argsort(stable=True)  # short keys sort sooner
    count = torch.bincount(tile, minlength=rows * columns)
    return Tiles(order[which[by_tile]], count.cumsum(0) - count, count, side, (rows, columns))
