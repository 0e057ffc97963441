"""A drawn land seen from above, of any size and seamless: what neighbouring windows show is alike but not the same."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .grounds import PAINTERS, colour
from .noise import Size, rough

KINDS = tuple(PAINTERS)
# How high, wet and settled each kind likes it: each place is of the kind that it is most like, so shores lie between water and meadows.
LIKES = {
    "water": (-1.0, 0.4, 0.0), "sand": (-0.7, -1.0, -0.4), "meadow": (0.0, 0.4, 0.0), "fields": (0.1, -0.5, 0.7),
    "woods": (0.1, 1.0, -0.8), "town": (-0.2, 0.0, 1.4), "rock": (1.0, -0.4, -0.6), "snow": (1.2, 0.5, 0.1),
}  # fmt: skip
REGION = 60.0  # pixels, of the fields that regions come from
SOFT = 3  # pixels, over which kinds melt into each other
SHORE = 15  # pixels of shallow water


@dataclass(frozen=True)
class Land:
    """picture: (3, H, W) in 0..1. kinds: (H, W), an index of KINDS for each pixel."""

    picture: Tensor
    kinds: Tensor


def draw(size: Size, generator: torch.Generator) -> Land:
    kinds = _regions(size, generator)
    masks = F.one_hot(kinds, len(KINDS)).movedim(-1, 0).float()
    shares = _blurred(masks, SOFT)
    pictures = (PAINTERS[kind](size, generator) for kind in KINDS)
    picture = sum(share * each for share, each in zip(shares, pictures, strict=True))
    assert isinstance(picture, Tensor)
    wet = shares[KINDS.index("water")]
    shallow = wet * (1 - _blurred(masks[:1], SHORE)[0])
    return Land(torch.lerp(picture, colour(0.50, 0.72, 0.70).expand_as(picture), 0.7 * shallow).clamp(0, 1), kinds)


def _regions(size: Size, generator: torch.Generator) -> Tensor:
    place = torch.stack([rough(size, REGION, generator, 4) for _ in range(3)])
    likes = torch.tensor([LIKES[kind] for kind in KINDS])
    return (place.square().sum(0) - 2 * torch.tensordot(likes, place, 1) + likes.square().sum(1)[:, None, None]).argmin(0)


def _blurred(values: Tensor, side: int) -> Tensor:
    """(C, H, W), the mean over squares of an odd side, which go on beyond the rim."""
    for axis in (-2, -1):
        values = torch.stack([values.roll(offset, axis) for offset in range(-(side // 2), side // 2 + 1)]).mean(0)
    return values


def shares(kinds: Tensor) -> Tensor:
    """(..., KINDS) of kinds (..., H, W): how much of a picture each has."""
    return F.one_hot(kinds, len(KINDS)).float().mean((-3, -2))


def caption(share: Tensor, least: float = 0.12) -> str:
    """Of shares (KINDS,): 'woods with water and sand'."""
    order = share.argsort(descending=True).tolist()
    first, *others = [KINDS[kind] for i, kind in enumerate(order) if i == 0 or share[kind] >= least]
    return f"{first} with {' and '.join(others)}" if others else first
