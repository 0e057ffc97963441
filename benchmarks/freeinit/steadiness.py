"""How steady a clip is: a ground that should hold still, and things that should keep their colour, shape and size; how much moves."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ...playground.referee.clips import Clip, Track, movement

GROWN = 5  # pixels around a thing that do not count as ground


@dataclass(frozen=True)
class Steadiness:
    """Changes from frame to frame. flicker: of the ground, in grey levels of 255. colour: of a thing's mean colour, the same. size: of its
    area, in percent, but for what goes on evenly. lost: share of frames in which it is not seen by its name. NaN where nothing is seen."""

    flicker: float
    colour: float
    size: float
    lost: float

    @staticmethod
    def mean(several: list["Steadiness"]) -> "Steadiness":
        names = ("flicker", "colour", "size", "lost")
        return Steadiness(*(float(np.nanmean([getattr(one, name) for one in several])) for name in names))

    def over(self, other: "Steadiness") -> float:
        """The mean of the ratios of what is not 0 in the other."""
        names = ("flicker", "colour", "size", "lost")
        return float(np.mean([getattr(self, name) / getattr(other, name) for name in names if getattr(other, name) > 0]))


def steadiness(pictures: Tensor, seen: Clip, names: list[tuple[str, str]]) -> Steadiness:
    """pictures: (F, 3, H, W) in 0..1."""
    tracks = [seen.follow(*name) for name in names]
    colours, sizes = [], []
    for track in tracks:
        colours += _colour_changes(pictures, track)
        sizes += _size_changes(track)
    lost = 1 - float(np.mean([track.seen for track in tracks]))
    return Steadiness(255 * flicker(pictures, seen), _mean(colours), 100 * _mean(sizes), lost)


def flicker(pictures: Tensor, seen: Clip) -> float:
    """Mean |difference| between neighbouring frames where both show ground."""
    covered = torch.zeros(len(pictures), *pictures.shape[-2:], dtype=torch.bool)
    for i, frame in enumerate(seen.frames):
        for thing in frame.objects:
            covered[i] |= torch.from_numpy(thing.mask)
    wide = torch.nn.functional.max_pool2d(covered.float()[:, None], 2 * GROWN + 1, 1, GROWN)[:, 0] > 0
    ground = ~(wide[1:] | wide[:-1])
    change = pictures.diff(dim=0).abs().mean(1)
    return float((change * ground).sum() / ground.sum().clamp(min=1))


def _colour_changes(pictures: Tensor, track: Track) -> list[float]:
    means = [None if mask is None else pictures[i][:, torch.from_numpy(mask)].mean(1) for i, mask in enumerate(track.masks)]
    return [255 * float((b - a).abs().mean()) for a, b in pairwise(means) if a is not None and b is not None]


def _size_changes(track: Track) -> list[float]:
    """|second differences| of the logarithm of the area: growth that goes on is none."""
    areas = [np.nan if mask is None else np.log(mask.sum()) for mask in track.masks]
    return [float(abs(c - 2 * b + a)) for a, b, c in zip(areas, areas[1:], areas[2:], strict=False) if np.isfinite(a + b + c)]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def amount_of_motion(seen: Clip, names: list[tuple[str, str]]) -> float:
    """Mean over things: how far each goes, turns or grows, by what the world draws at most."""
    return float(np.mean([movement(seen.follow(*name).masks) for name in names]))
