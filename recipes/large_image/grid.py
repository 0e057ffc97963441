"""A grid of prompts over a picture, after Learned representation-guided diffusion models for large-image generation
(https://arxiv.org/abs/2312.07330), on any model: each window of a picture is told what the grid has at its place.

A grid is a list of ordinary conditions, one a cell, each with its place (CELL) beside it. So the host makes of each what the model wants of
a prompt, whatever family it is of, and only tensors that differ from cell to cell are interpolated.
"""

from collections.abc import Callable, Sequence
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

CELL, EMBEDDER = "freesteer_cell", "freesteer_embedder"
Conditioning = list[list[Any]]
Encoded = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class Grid:
    """cells: a prompt for each, as (text, options) of one CONDITIONING, row by row. words: what each stands for, to be shown. embedder:
    makes what the model reads of the texts, once they are interpolated. empty: (1, tokens, D) of the empty prompt."""

    cells: tuple[tuple[Encoded, ...], ...]
    words: tuple[tuple[str, ...], ...]
    embedder: Callable[[Tensor], Tensor] | None = None
    empty: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cells), len(self.cells[0])

    def conditioning(self) -> Conditioning:
        """All cells, as one CONDITIONING: of a model without windows, the mean of what all of them would draw."""
        marked, how = object(), {} if self.embedder is None else {EMBEDDER: self.embedder}
        return [
            [text, {**options, **how, CELL: Cell(row, column, self.shape, marked)}]
            for row, cells in enumerate(self.cells)
            for column, (text, options) in enumerate(cells)
        ]

    def read(self) -> Conditioning:
        """What the model reads of the first cell."""
        (text, options), embedder = self.cells[0][0], self.embedder
        return [[text if embedder is None else embedder(text), options]]


@dataclass(frozen=True)
class Cell:
    """Where a prompt belongs. grid: which one it is of."""

    row: int
    column: int
    shape: tuple[int, int]
    grid: object


def aligned(prompts: Sequence[Encoded], empty: Tensor) -> list[Encoded]:
    """Prompts of one length (1, tokens, D): shorter ones end as an empty prompt does, with tokens that no one looks at."""
    longest = max(text.shape[1] for text, _ in prompts)
    fill = empty.repeat(1, -(-longest // empty.shape[1]), 1) if empty.shape[1] else empty.new_zeros(1, longest, empty.shape[2])

    def filled(prompt: Encoded) -> Encoded:
        text, options = prompt
        count, mask = text.shape[1], options.get("attention_mask")
        if count == longest:
            return prompt
        if isinstance(mask, Tensor) and mask.shape[-1] == count:
            options = {**options, "attention_mask": torch.nn.functional.pad(mask, (0, longest - count))}
        return torch.cat([text, fill[:, count:longest].to(text)], 1), options

    return [filled(prompt) for prompt in prompts]


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
    """The cells of each grid among conditions, by row and column. A grid that comes again, as with another mask, is another."""
    grids: list[tuple[object, dict[tuple[int, int], Condition]]] = []
    for condition in conditions:
        cell = condition.get(CELL)
        if cell is None:
            continue
        found = next((cells for grid, cells in grids if grid is cell.grid and (cell.row, cell.column) not in cells), None)
        if found is None:
            found = {}
            grids.append((cell.grid, found))
        found[cell.row, cell.column] = condition
    return [cells for _, cells in grids]


def _told(grid: dict[tuple[int, int], Condition], places: Sequence[Place], shape: torch.Size, window, wraps, way: str) -> Condition:
    """One condition for all windows (places * B rows), interpolated between cells."""
    first = next(iter(grid.values()))
    cells = first[CELL].shape

    def corner(place: Place, axis: int) -> tuple[int, int, float]:
        middle = interpolation.cell_of(place[axis], window[axis], shape[axis - 2], cells[axis], wraps[axis])
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
    if EMBEDDER in first:
        read = values["c_crossattn"]
        values["c_crossattn"] = read._copy_with(first[EMBEDDER](read.cond))
    return {**first, "model_conds": values}


def _unread(cells: list[Condition]) -> bool:
    """Whether cells have pictures that differ, of which the model takes nothing."""
    pictures = [part["clip_vision_output"].image_embeds for cell in cells for part in cell.get("unclip_conditioning", ())]
    read = [[cell["model_conds"][name].cond for cell in cells] for name in cells[0]["model_conds"]]
    return bool(pictures) and _differ(pictures) and not any(map(_differ, read))


def _differ(values: list[Any]) -> bool:
    first = values[0]
    return isinstance(first, Tensor) and any(not torch.equal(first, other) for other in values[1:])
