"""Where an object is in each frame of a clip, or in a picture: by boxes or by masks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from . import tracks


class Places(Protocol):
    """Where an object is."""

    def coverage(self, frames: int, grid: tuple[int, int]) -> Tensor:
        """(frames, h, w) in 0..1, of pictures."""
        ...


@dataclass(frozen=True)
class BoxPlaces:
    """By a track of boxes."""

    track: tracks.Track

    def coverage(self, frames: int, grid: tuple[int, int]) -> Tensor:
        return tracks.coverage(self.track.at(tracks.frame_times(frames)), grid)


@dataclass(frozen=True)
class MaskPlaces:
    """By masks (F, H, W) in 0..1, spread over the clip."""

    masks: Tensor

    def coverage(self, frames: int, grid: tuple[int, int]) -> Tensor:
        nearest = (tracks.frame_times(frames) * (len(self.masks) - 1)).round().long()
        return torch.nn.functional.adaptive_avg_pool2d(self.masks[nearest][:, None], grid)[:, 0]
