"""Seamless random fields of any size: smooth ones, and cells around scattered points. Both go on from each side to the opposite one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]


def smooth(size: Size, scale: float, generator: torch.Generator) -> Tensor:
    """(H, W), mean 0 and deviation 1: white noise under a Gaussian of so many pixels."""
    height, width = size
    frequency = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None] ** 2
    spectrum = torch.fft.rfft2(torch.randn(height, width, generator=generator)) * torch.exp(-2 * (math.pi * scale) ** 2 * frequency)
    field = torch.fft.irfft2(spectrum, s=size)
    return (field - field.mean()) / field.std().clamp(min=1e-6)


def rough(size: Size, scale: float, generator: torch.Generator, octaves: int = 3) -> Tensor:
    """(H, W), deviation near 1: smooth fields, each of half the scale and half the height of the one before."""
    total = sum(0.5**i * smooth(size, scale / 2**i, generator) for i in range(octaves))
    assert isinstance(total, Tensor)
    return total / math.sqrt(sum(0.25**i for i in range(octaves)))


@dataclass(frozen=True)
class Cells:
    """Of each pixel (H, W): which point is nearest; how far it is away, and the next one, in spacings; and where the pixel lies from it."""

    index: Tensor
    distance: Tensor
    second: Tensor
    down: Tensor
    across: Tensor
    count: int

    def values(self, generator: torch.Generator) -> Tensor:
        """(H, W) in 0..1, one for each cell."""
        return torch.rand(self.count, generator=generator)[self.index]

    @property
    def edge(self) -> Tensor:
        """0 where two cells meet."""
        return self.second - self.distance


def cells(size: Size, spacing: float, generator: torch.Generator, jitter: float = 0.8) -> Cells:
    """Points in a grid of about `spacing` pixels, each moved by up to half of `jitter` spacings."""
    rows, columns = (max(1, round(side / spacing)) for side in size)
    steps = size[0] / rows, size[1] / columns
    moved = (torch.rand(2, rows, columns, generator=generator) - 0.5) * jitter
    y, x = (torch.arange(side) for side in size)
    row, column = ((along / step).floor().long() for along, step in zip((y, x), steps, strict=True))
    inside_y, inside_x = y / steps[0] - row - 0.5, x / steps[1] - column - 0.5
    first = torch.full(size, torch.inf)
    second, index, down, across = first.clone(), torch.zeros(size, dtype=torch.long), torch.zeros(size), torch.zeros(size)
    for above in (-1, 0, 1):
        for left in (-1, 0, 1):
            r, c = ((row + above) % rows)[:, None], ((column + left) % columns)[None]
            dy = inside_y[:, None] - above - moved[0, r, c]
            dx = inside_x[None] - left - moved[1, r, c]
            distance = torch.hypot(dy, dx)
            nearer = distance < first
            second = torch.where(nearer, first, torch.minimum(second, distance))
            first = torch.where(nearer, distance, first)
            index = torch.where(nearer, r * columns + c, index)
            down, across = torch.where(nearer, dy, down), torch.where(nearer, dx, across)
    return Cells(index, first, second, down * steps[0], across * steps[1], rows * columns)
