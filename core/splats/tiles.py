"""Which Gaussians touch which tiles of a picture, nearest first."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .projection import NEAR, Projected

FAINTEST = 1 / 255  # opacity at a pixel; what is less is not drawn (3D Gaussian Splatting's own limit)
SIDES = (8, 16)  # pixels: small tiles waste little where Gaussians are small, large ones are fewer where they are not


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
    (left, top), (right, bottom) = ((projected.means + sign * half).div(side).unbind(-1) for sign in (-1, 1))
    left, right = left.floor().clamp(0, columns), right.ceil().clamp(0, columns)
    top, bottom = top.floor().clamp(0, rows), bottom.ceil().clamp(0, rows)
    box = torch.stack([left, top, right, bottom], -1)
    seen = (projected.depths > NEAR) & (reach > 0) & torch.isfinite(box).all(-1)
    order = seen.nonzero().squeeze(-1)
    order = order[projected.depths[order].argsort(stable=True)]
    left, top, right, bottom = box[order].long().unbind(-1)
    width, height = (right - left).clamp(min=0), (bottom - top).clamp(min=0)
    touched = width * height
    which = torch.repeat_interleave(touched, output_size=int(touched.sum()))
    first = touched.cumsum(0) - touched
    within = torch.arange(len(which), device=which.device) - first[which]
    wide = width[which]
    tile = (top[which] + within // wide) * columns + left[which] + within % wide
    short = torch.int16 if rows * columns < 2**15 else torch.int32  # short keys sort sooner
    by_tile, place = tile.to(short).sort(stable=True)
    ends = torch.searchsorted(by_tile, torch.arange(rows * columns, dtype=short, device=tile.device), right=True)
    start = F.pad(ends[:-1], (1, 0))
    return Tiles(order[which[place]], start, ends - start, side, (rows, columns))
