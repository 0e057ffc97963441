"""Grids made of grids: of another number of cells, of two, and with another prompt painted in."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.large_image import interpolation
from .grid import Encoded, Grid, aligned

SEEN = "unclip_conditioning"


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

    return _grid(grid, [[mixed(row, column) for column in range(columns)] for row in range(rows)])


def of_one_length(one: Grid, other: Grid) -> tuple[Grid, Grid]:
    """Both with as many tokens a prompt, where their text encoder gives each as many as it has words."""
    flat = [cell for grid in (one, other) for row in grid.cells for cell in row]
    empty = next((grid.empty for grid in (one, other) if grid.empty is not None), flat[0][0][:, :0])
    cells = iter(aligned(flat, empty))
    first, second = (replace(grid, cells=tuple(tuple(next(cells) for _ in row) for row in grid.cells)) for grid in (one, other))
    return first, second


def blended(one: Grid, other: Grid, amounts: Tensor, way: str) -> Grid:
    """amounts: (rows, columns), 0 where `one` is kept, 1 where it becomes `other`, which has as many cells."""
    rows, columns = one.shape

    def mixed(row: int, column: int) -> tuple[Encoded, str]:
        amount = float(amounts[row, column])
        words = (one if amount < 0.5 else other).words[row][column]
        return _between(one.cells[row][column], other.cells[row][column], amount, way), words

    return _grid(one, [[mixed(row, column) for column in range(columns)] for row in range(rows)])


def _grid(of: Grid, table: list[list[tuple[Encoded, str]]]) -> Grid:
    """With other cells than the grid that it is made of."""
    cells = tuple(tuple(encoded for encoded, _ in row) for row in table)
    return replace(of, cells=cells, words=tuple(tuple(words for _, words in row) for row in table))


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
    return interpolation.between(text, other, share, way), {**nearest, **mixed, **_seen_between(options, others, share, way)}


def _seen_between(options: dict[str, Any], others: dict[str, Any], share: float, way: str) -> dict[str, Any]:
    """What was seen of two pictures, for models that read it by themselves."""
    parts, their = (each.get(SEEN, ()) for each in (options, others))
    if not parts or len(parts) != len(their):
        return {}
    mixed = []
    for part, other in zip(parts, their, strict=True):
        output = copy.copy(part["clip_vision_output"])
        output.image_embeds = interpolation.between(output.image_embeds, other["clip_vision_output"].image_embeds, share, way)
        mixed.append({**part, "clip_vision_output": output})
    return {SEEN: mixed}


def colours(grid: Grid) -> Tensor:
    """(rows, columns, 3) in 0..1: the three directions in which its cells differ most, each from its least to its most."""
    rows, columns = grid.shape
    vectors = torch.nn.utils.rnn.pad_sequence([_meaning(*cell) for row in grid.cells for cell in row], batch_first=True)
    centred = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(len(vectors), 3)
    seen = centred @ directions[:3].T
    spread = (seen.amax(0) - seen.amin(0)).clamp(min=1e-6 * float(vectors.abs().amax()) + 1e-12)
    found[:, : seen.shape[1]] = (seen - seen.amin(0)) / spread
    return found.view(rows, columns, 3)


def _meaning(text: Tensor, options: dict[str, Any]) -> Tensor:
    """One vector of a cell: the mean of its text, and what was seen of a picture."""
    seen = [part["clip_vision_output"].image_embeds.float().flatten() for part in options.get(SEEN, ())]
    return torch.cat([text.float().mean((0, 1)), *seen])
