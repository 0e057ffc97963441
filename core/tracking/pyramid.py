"""A clip in several sizes, as direct alignment wants it: grey pictures, their derivatives, and depth with where it is known."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
SMALLEST_SIDE = 12  # pixels of the shorter side of the coarsest level, or up to twice that
SOLID = 0.7  # of the share of known depth that is usual in its frame: a coarse pixel with less is not valid

SAME_SURFACE = 0.1  # of a depth: neighbours that differ by more are of two surfaces
SLOPE_RADIUS = 2  # pixels on each side of one, that its slope is found from


@dataclass(frozen=True)
class Level:
    """One size of the clip, each (F, h, w). grey: 0..1; depth: as given, 0 where it is not valid; valid: 1 or 0; and the derivatives of
    grey and depth along x and y, per pixel."""

    grey: Tensor
    grey_dx: Tensor
    grey_dy: Tensor
    depth: Tensor
    valid: Tensor
    depth_dx: Tensor
    depth_dy: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.grey.shape[-2], self.grey.shape[-1]

    def of(self, frames: Sequence[int]) -> "Level":
        """Some frames alone."""
        return Level(*(getattr(self, field.name)[frames] for field in fields(self)))

    def with_depth(self, depth: Tensor) -> "Level":
        """Another depth (F, h, w), valid at the same places."""
        depth_dx, depth_dy = slopes(depth, self.valid)
        return replace(self, depth=depth, depth_dx=depth_dx, depth_dy=depth_dy)


def pyramid(pictures: Tensor, depths: Tensor, valid: Tensor) -> list[Level]:
    """The clip (F, H, W, 3) with depths and their validity, (F, H, W), from coarse to fine, each twice as large.

    A coarse pixel's depth is the mean of what is valid in it. Depth may be sparse, so how much has to be valid is relative (SOLID).
    """
    grey = (pictures * pictures.new_tensor(LUMA)).sum(-1)
    depth, known = depths * valid, valid.to(grey)
    usual = known.mean((1, 2), keepdim=True)
    levels = []
    while True:
        padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        dx, dy = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
        solid = (known > SOLID * usual).to(grey)
        given = solid * depth / known.clamp(min=1e-6)
        levels.append(Level(grey, dx, dy, given, solid, *slopes(given, solid)))
        if min(grey.shape[-2:]) < 2 * SMALLEST_SIDE:
            return levels[::-1]
        grey, depth, known = (F.avg_pool2d(each[:, None], 2)[:, 0] for each in (grey, depth, known))


def slopes(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of depths (F, h, w) along x and y, per pixel: of the plane through each pixel with the least squared error around it.

    Depth is noisy, so it takes SLOPE_RADIUS; and only what is valid and of the same surface counts, since the slope from one surface to
    another is that of a wall which is not there.
    """
    side, (height, width) = 2 * SLOPE_RADIUS + 1, depth.shape[-2:]
    padded = F.pad(torch.stack([depth * valid, valid], 1), (SLOPE_RADIUS,) * 4)
    around, known = F.unfold(padded, side).view(-1, 2, side**2, height, width).unbind(1)
    off = around - depth[:, None]
    same = known * (off.abs() <= SAME_SURFACE * depth[:, None])
    y, x = (each.flatten()[:, None, None] for each in torch.meshgrid(*[torch.arange(side).to(depth) - SLOPE_RADIUS] * 2, indexing="ij"))
    xx, xy, yy = ((same * a * b).sum(1) for a, b in ((x, x), (x, y), (y, y)))
    by_x, by_y = ((same * off * a).sum(1) for a in (x, y))
    determinant = xx * yy - xy.square()
    plane = determinant > 0.5
    determinant = torch.where(plane, determinant, 1)
    return plane * (yy * by_x - xy * by_y) / determinant, plane * (xx * by_y - xy * by_x) / determinant
