"""Grids made of grids: of another number of cells, of two, and with another prompt painted in."""

from typing import Any

import torch
from torch import Tensor

from ...core.large_image import interpolation
from .grid import Grid

Encoded = tuple[Tensor, dict[str, Any]]


def resized(grid: Grid, rows: int, columns: int, way: str) -> Grid:
    """With as many cells: spread over the same picture, and interpolated."""
    had = grid.shape

    def source(index: int, count: int, of: int) -> tuple[int, int, float]:
        return interpolation.corners((index + 0.5) / count * of - 0.5, of, False)

    def mixed(row: int, column: int) -> tuple[Encoded, str]:
        (above, below, down), (left, right, across) = source(row, rows, had[0]), source(column, columns, had[1])
        upper, lower = (_between(grid.cells[r][left], grid.cells[r][right], across, way) for r in (above, below))
        nearest = (above if down < 0.5 else below), (left if across < 0.5 else right)
        return _between(upper, lower, down, way), grid.words[nearest[0]][nearest[1]]

    return _grid([[mixed(row, column) for column in range(columns)] for row in range(rows)])


def blended(one: Grid, other: Grid, amounts: Tensor, way: str) -> Grid:
    """amounts: (rows, columns), 0 where `one` is kept, 1 where it becomes `other`, which has as many cells."""
    rows, columns = one.shape

    def mixed(row: int, column: int) -> tuple[Encoded, str]:
        amount = float(amounts[row, column])
        words = (one if amount < 0.5 else other).words[row][column]
        return _between(one.cells[row][column], other.cells[row][column], amount, way), words

    return _grid([[mixed(row, column) for column in range(columns)] for row in range(rows)])


def filled(encoded: Encoded, words: str, rows: int, columns: int) -> Grid:
    """One prompt everywhere."""
    return Grid(((encoded,) * columns,) * rows, ((words,) * columns,) * rows)


def _grid(table: list[list[tuple[Encoded, str]]]) -> Grid:
    return Grid(tuple(tuple(cell for cell, _ in row) for row in table), tuple(tuple(words for _, words in row) for row in table))


def _between(a: Encoded, b: Encoded, share: float, way: str) -> Encoded:
    """Of two encoded prompts: texts by the way that is asked for, what else differs by straight lines."""
    if share <= 0 or share >= 1:
        return b if share >= 1 else a
    (text, options), (other, others) = a, b
    straight = "nearest" if way == "nearest" else "linear"
    nearest = options if share < 0.5 else others
    mixed = {
        name: interpolation.between(value, others[name], share, straight)
        for name, value in options.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and isinstance(others.get(name), Tensor)
        and others[name].shape == value.shape
    }
    return interpolation.between(text, other, share, way), {**nearest, **mixed}


def colours(grid: Grid) -> Tensor:
    """(rows, columns, 3) in 0..1: the three directions in which its cells differ most, each from its least to its most."""
    rows, columns = grid.shape
    vectors = torch.stack([_meaning(*cell) for row in grid.cells for cell in row])
    centred = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(len(vectors), 3)
    seen = centred @ directions[:3].T
    spread = (seen.amax(0) - seen.amin(0)).clamp(min=1e-6 * float(vectors.abs().amax()) + 1e-12)
    found[:, : seen.shape[1]] = (seen - seen.amin(0)) / spread
    return found.view(rows, columns, 3)


def _meaning(text: Tensor, options: dict[str, Any]) -> Tensor:
    """One vector of a cell: the mean of its text, and what was seen of a picture."""
    seen = [part["clip_vision_output"].image_embeds.float().flatten() for part in options.get("unclip_conditioning", ())]
    return torch.cat([text.float().mean((0, 1)), *seen])
