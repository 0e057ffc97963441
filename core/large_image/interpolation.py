"""Learned representation-guided diffusion models for large-image generation (https://arxiv.org/abs/2312.07330): embeddings between the
cells of a grid, by spherical interpolation, first along rows and then along columns."""

from collections.abc import Sequence

import torch
from torch import Tensor

WAYS = ("slerp", "linear", "nearest")
PARALLEL = 0.9995  # cosine, above which an arc is as good as straight


def cell_of(place: int, window: int, size: int, cells: int, wraps: bool = False) -> float:
    """What a window reads, in cells: the first window the first cell, and the last one the last, as where each cell is a window large. In a
    picture that wraps, the cell in which its middle lies: 0 in the middle of the first one."""
    if wraps:
        return (place + window / 2) / size * cells - 0.5
    return place / (size - window) * (cells - 1) if size > window else (cells - 1) / 2


def corners(position: float, cells: int, wraps: bool) -> tuple[int, int, float]:
    """The cells before and after a position, and the share of the second. Beyond the last one there is more of it, or the first again."""
    if not wraps:
        position = min(max(position, 0.0), cells - 1.0)
    before = int(position // 1)
    share = position - before
    after = before + 1 if share > 0 else before
    return (before % cells, after % cells, share) if wraps else (before, min(after, cells - 1), share)


def between(a: Tensor, b: Tensor, share: Tensor | float, way: str = "slerp") -> Tensor:
    """Of vectors (..., D): a where `share` is 0, b where it is 1. slerp: (sin((1 - t) w) a + sin(t w) b) / sin(w), with their angle w."""
    share = torch.as_tensor(share, dtype=torch.float32, device=a.device)
    if way == "nearest":
        return torch.where(share < 0.5, a, b)
    straight = torch.lerp(a.float(), b.float(), share)
    if way == "linear":
        return straight.to(a.dtype)
    cosine = torch.nn.functional.cosine_similarity(a.float(), b.float(), dim=-1)[..., None]
    angle = torch.arccos(cosine.clamp(-PARALLEL, PARALLEL))
    arc = (torch.sin((1 - share) * angle) * a.float() + torch.sin(share * angle) * b.float()) / torch.sin(angle)
    return torch.where(cosine.abs() > PARALLEL, straight, arc).to(a.dtype)


def at(rows: tuple[int, int, float], columns: tuple[int, int, float], cells: Sequence[Sequence[Tensor]], way: str) -> Tensor:
    """The vectors (..., D) at a place between four cells, each with vectors of its own."""
    (above, below, down), (left, right, across) = rows, columns
    upper, lower = (between(cells[row][left], cells[row][right], across, way) for row in (above, below))
    return between(upper, lower, down, way)
