"""A grid of prompts over a picture, after Learned representation-guided diffusion models for large-image generation
(https://arxiv.org/abs/2312.07330), on any model: each window of a picture is told what the grid has at its place.

A grid is a list of ordinary conditions, one a cell, each with its place (CELL) beside it. So the host makes of each what the model wants of
a prompt, whatever family it is of, and only tensors that differ from cell to cell are interpolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.conds import CONDCrossAttn, CONDRegular
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.large_image import interpolation
from ...core.windows import Place
from ...host.sampling import windowed
from ...host.sampling.windowed import Condition, Windowing

CELL = "freesteer_cell"
Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Grid:
    """cells: a prompt for each, as (text, options) of one CONDITIONING, row by row. words: what each stands for, to be shown."""

    cells: tuple[tuple[tuple[Tensor, dict[str, Any]], ...], ...]
    words: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cells), len(self.cells[0])

    def conditioning(self) -> Conditioning:
        """All cells, as one CONDITIONING: of a model without windows, the mean of what all of them would draw."""
        marked = object()
        return [
            [text, {**options, CELL: Cell(row, column, self.shape, marked)}]
            for row, cells in enumerate(self.cells)
            for column, (text, options) in enumerate(cells)
        ]


@dataclass(frozen=True)
class Cell:
    """Where a prompt belongs. grid: which one it is of."""

    row: int
    column: int
    shape: tuple[int, int]
    grid: object


def aligned(texts: Sequence[Tensor], empty: Tensor) -> list[Tensor]:
    """Prompts (1, tokens, D) of one length: longer ones end as an empty prompt does."""
    longest = max(text.shape[1] for text in texts)
    fill = empty.repeat(1, -(-longest // empty.shape[1]), 1)
    return [torch.cat([text, fill[:, text.shape[1] : longest].to(text)], 1) for text in texts]


def attach(model: ModelPatcher, windowing: Windowing, way: str) -> ModelPatcher:
    """A clone of `model` that draws in windows, each with what a grid has at its place; way: of interpolation.WAYS."""

    def between(conditions: list[Condition], places: Sequence[Place], shape: torch.Size) -> list[Condition]:
        window = windowing.fitted(shape[-2:])
        return [
            *(c for c in conditions if CELL not in c),
            *(_told(grid, places, shape, window, windowing.wraps, way) for grid in _grids(conditions)),
        ]

    return windowed.attach(model, replace(windowing, between=between))


def _grids(conditions: list[Condition]) -> list[dict[tuple[int, int], Condition]]:
    """The cells of each grid among conditions, by row and column. Several: of a prompt with parts for parts of sampling."""
    grids: dict[Any, dict[tuple[int, int], Condition]] = {}
    for condition in conditions:
        cell = condition.get(CELL)
        if cell is not None:
            part = (id(cell.grid), condition.get("timestep_start"), condition.get("timestep_end"))
            grids.setdefault(part, {})[cell.row, cell.column] = condition
    return list(grids.values())


def _told(grid: dict[tuple[int, int], Condition], places: Sequence[Place], shape: torch.Size, window, wraps, way: str) -> Condition:
    """One condition for all windows (places * B rows), interpolated between cells."""
    first = next(iter(grid.values()))
    cells = first[CELL].shape

    def corner(place: Place, axis: int) -> tuple[int, int, float]:
        middle = interpolation.cell_of(place[axis], window[axis], shape[axis - 2], cells[axis])
        return interpolation.corners(middle, cells[axis], wraps[axis])

    if _unread(list(grid.values())):
        raise ValueError(
            "grid was made of a picture, and this model reads none: take an unCLIP model, SDXL or Stable Cascade, give Grid From Image a "
            "style model (Flux Redux), or make a grid from prompts."
        )
    values = {}
    for name, value in first["model_conds"].items():
        others = {where: condition["model_conds"][name].cond for where, condition in grid.items()}
        if not isinstance(value, CONDRegular) or not _differ(list(others.values())):
            values[name] = value
            continue
        table = [[others[row, column] for column in range(cells[1])] for row in range(cells[0])]
        straight = "linear" if table[0][0].is_floating_point() else "nearest"  # as of masks of words
        its = way if isinstance(value, CONDCrossAttn) or way == "nearest" else straight
        rows = [interpolation.at(corner(place, 0), corner(place, 1), table, its) for place in places]
        values[name] = value._copy_with(torch.cat([row.expand(shape[0], *row.shape[1:]) for row in rows]))
    return {**first, "model_conds": values}


def _unread(cells: list[Condition]) -> bool:
    """Whether cells have pictures that differ, of which the model takes nothing."""
    pictures = [part["clip_vision_output"].image_embeds for cell in cells for part in cell.get("unclip_conditioning", ())]
    read = [[cell["model_conds"][name].cond for cell in cells] for name in cells[0]["model_conds"]]
    return bool(pictures) and _differ(pictures) and not any(map(_differ, read))


def _differ(values: list[Any]) -> bool:
    first = values[0]
    return isinstance(first, Tensor) and any(not torch.equal(first, other) for other in values[1:])
