"""Boxes that move: keyframes of one object, and what lies between them.

Coordinates are shares of the picture, x from left to right and y from top to bottom; times are shares of the clip.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HALF = 0.5 - 1e-4  # of a cell: as much and more makes it the object's


@dataclass(frozen=True)
class Track:
    """Where one object is. times: (K,) rising, in 0..1. boxes: (K, 4), left, top, right, bottom in 0..1; between keyframes the edges
    go evenly, before the first and after the last they rest."""

    times: Tensor
    boxes: Tensor

    def at(self, times: Tensor) -> Tensor:
        """(N, 4) of times (N,)."""
        if len(self.times) == 1:
            return self.boxes.expand(len(times), 4)
        after = torch.searchsorted(self.times, times).clamp(1, len(self.times) - 1)
        before = after - 1
        span = (self.times[after] - self.times[before]).clamp(min=1e-9)
        share = ((times - self.times[before]) / span).clamp(0, 1)[:, None]
        return torch.lerp(self.boxes[before], self.boxes[after], share)


def frame_times(frames: int) -> Tensor:
    """(frames,) of the first frame to the last; a single picture is at 0."""
    return torch.linspace(0, 1, frames) if frames > 1 else torch.zeros(1)


def coverage(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, h, w) in 0..1: how much of each cell of a grid lies in boxes (N, 4)."""

    def along(low: Tensor, high: Tensor, cells: int) -> Tensor:
        edges = torch.arange(cells) / cells
        return (torch.minimum(high[:, None], edges + 1 / cells) - torch.maximum(low[:, None], edges)).clamp(min=0) * cells

    left, top, right, bottom = boxes.unbind(-1)
    return along(top, bottom, grid[0])[:, :, None] * along(left, right, grid[1])[:, None]


def per_latent_frame(values: Tensor, frames: int) -> Tensor:
    """(..., frames, H, W) means of values (..., F, H, W) over the pictures that each latent frame stands for: one each if there are as
    many; with F = n * (frames - 1) + 1, one for the first and n for each other."""
    given = values.shape[-3]
    if given == frames:
        return values
    if frames > 1 and (given - 1) % (frames - 1) == 0:
        rest = values[..., 1:, :, :].unflatten(-3, (frames - 1, -1)).mean(-3)
        return torch.cat([values[..., :1, :, :], rest], -3)
    nearest = (torch.arange(frames) * given / frames).long()
    return values[..., nearest, :, :]


def labels(covered: Tensor) -> Tensor:
    """(F, h, w) of coverages (objects, F, h, w): 0 where no object covers half of a cell, else 1 + the object that covers most of it.

    An object that is there, however small, has at least one cell in each frame, as long as there are as many cells: of those that are not
    all that another object has, the one that it covers most."""
    most, owner = covered.max(0)
    flat = torch.where(most >= HALF, owner + 1, 0).flatten(1)
    for number, part in enumerate(covered.flatten(2), 1):  # (F, cells) of one object
        lost = (part.amax(1) > 0) & ~(flat == number).any(1)
        count = torch.stack([(flat == label).sum(1) for label in range(len(covered) + 1)], 1).gather(1, flat)  # of the same label
        wanted = part.masked_fill((flat > 0) & (count == 1), -1.0)
        flat[lost.nonzero()[:, 0], wanted.argmax(1)[lost]] = number
    return flat.view(covered.shape[1:])
