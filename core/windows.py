"""Windows over a picture: where they lie, and how much each counts where several overlap (uniform weights as in MultiDiffusion, 2302.08113,
or a Gaussian as in Mixture of Diffusers, 2302.02412)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLENDINGS = ("gaussian", "uniform")
WIDTH = 0.1  # of the window, the standard deviation of a Gaussian's weights

Place = tuple[int, int]


def offsets(size: int, window: int, stride: int, wraps: bool = False) -> list[int]:
    """Where windows begin along a side. They cover it: the last one ends with it, or, of a side that wraps around, all are equally far
    from each other."""
    if window > size or (window == size and not wraps):
        return [0]
    if wraps:
        count = math.ceil(size / stride)
        return [round(i * size / count) for i in range(count)]
    return [*range(0, size - window, stride), size - window]


def places(size: Sequence[int], window: Sequence[int], stride: Sequence[int], wraps: Sequence[bool]) -> list[Place]:
    """(top, left) of all windows, row by row."""
    rows, columns = (offsets(*each) for each in zip(size, window, stride, wraps, strict=True))
    return [(top, left) for top in rows for left in columns]


def weights(window: Sequence[int], blending: str) -> Tensor:
    """(h, w), above 0."""
    if blending == "uniform":
        return torch.ones(*window)
    rows, columns = (_bell(length) for length in window)
    return rows[:, None] * columns


def _bell(length: int) -> Tensor:
    distance = (torch.arange(length) - (length - 1) / 2) / length
    return torch.exp(-0.5 * (distance / WIDTH).square()).clamp(min=1e-4)


def cut(values: Tensor, place: Place, window: Sequence[int]) -> Tensor:
    """The window (..., h, w) of values (..., H, W), which go on from the other side where it reaches over."""
    for axis, start, length in zip((-2, -1), place, window, strict=True):
        if start + length <= values.shape[axis]:
            values = values.narrow(axis, start, length)
        else:
            values = values.index_select(axis, _wrapped(values, axis, start, length))
    return values


def add(total: Tensor, values: Tensor, place: Place, window: Sequence[int]) -> None:
    """Adds a window to `total` (..., H, W), in place."""
    rows, columns = (_wrapped(total, axis, start, length) for axis, start, length in zip((-2, -1), place, window, strict=True))
    total[..., rows[:, None], columns] += values


def _wrapped(values: Tensor, axis: int, start: int, length: int) -> Tensor:
    return (start + torch.arange(length, device=values.device)) % values.shape[axis]
