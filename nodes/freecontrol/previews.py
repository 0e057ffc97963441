"""Pictures of what FreeControl sees: coordinates as colours, and previews while a basis is made."""

import comfy.model_management
import comfy.utils
import latent_preview
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.freecontrol.energy import Structure
from ..common.previews import sheet, some

ROWS, COLUMNS = 8, 12
SPREAD = 2.5  # deviations from black to grey, and from grey to white


class SeedPictures:
    """Shows the pictures of a basis while they are made, and keeps the first."""

    def __init__(self, model: ModelPatcher, pictures: int, steps: int):
        self.bar = comfy.utils.ProgressBar(pictures * steps)
        self.total, self.done = pictures * steps, 0
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.last = steps - 1
        self.first: Tensor | None = None

    def __call__(self, level: int, clean: Tensor) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self.first is None and level == self.last:
            self.first = clean[:1].clone()
        self.done += len(clean)
        preview = self.previewer.decode_latent_to_preview_image("JPEG", clean) if self.previewer else None
        self.bar.update_absolute(self.done, self.total, preview)


def colours(coordinates: Tensor, grid: tuple[int, int]) -> Tensor:
    """The first three of coordinates (tokens, N) as red, green and blue: (h, w, 3) in 0..1."""
    shown = F.pad(coordinates[:, :3].float().cpu(), (0, max(0, 3 - coordinates.shape[1])))
    return (0.5 + shown / (2 * SPREAD)).clamp(0, 1).unflatten(0, grid)


def coordinate_sheets(structure: Structure) -> Tensor:
    """An IMAGE for each picture of a structure: a row for each layer, a column for each noise level, and the mask."""
    layers = list(structure.coordinates)
    columns = some(len(structure.sigmas), COLUMNS)
    titles = [f"noise {float(structure.sigmas[c]):.3g}" for c in columns]
    sheets = []
    for i in range(max(values.shape[1] for values in structure.coordinates.values())):
        rows = []
        for number in some(len(layers), ROWS):
            values, grid = structure.coordinates[layers[number]], structure.grids[layers[number]]
            cells = [colours(values[c, i % values.shape[1]], grid) for c in columns]
            rows.append((f"layer {number + 1}, {grid[1]} x {grid[0]}", cells))
        if structure.mask is not None:
            mask = structure.mask[i % len(structure.mask), 0].float().cpu()
            rows.append(("mask", [mask[..., None].expand(-1, -1, 3)]))
        sheets.append(sheet(rows, titles))
    return torch.stack(sheets)
