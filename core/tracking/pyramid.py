"""A clip in several sizes, as direct alignment wants it: grey pictures, their derivatives, and depth with where it is known."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
SMALLEST_SIDE = 12  # pixels of the shorter side of the coarsest level, or up to twice that
SOLID = 0.7  # of the share of known depth that is usual in its frame: a coarse pixel with less is not valid


@dataclass(frozen=True)
class Level:
    """One size of the clip, each (F, h, w). grey: 0..1; dx, dy: its derivatives, per pixel; depth: as given, 0 where it is not valid;
    valid: 1 or 0."""

    grey: Tensor
    dx: Tensor
    dy: Tensor
    depth: Tensor
    valid: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.grey.shape[-2], self.grey.shape[-1]

    def of(self, frames: Sequence[int]) -> "Level":
        """Some frames alone."""
        return Level(*(getattr(self, field.name)[frames] for field in fields(self)))


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
        levels.append(Level(grey, dx, dy, solid * depth / known.clamp(min=1e-6), solid))
        if min(grey.shape[-2:]) < 2 * SMALLEST_SIDE:
            return levels[::-1]
        grey, depth, known = (F.avg_pool2d(each[:, None], 2)[:, 0] for each in (grey, depth, known))
