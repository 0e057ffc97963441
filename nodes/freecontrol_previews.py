"""Pictures of what FreeControl sees: coordinates as colours, outlines on results, and previews while a basis is made."""
import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..core.free_control import Structure

CELL, GAP, HEAD = 128, 6, 22  # pixels
ROWS, COLUMNS = 8, 12
SPREAD = 2.5  # deviations from black to grey, and from grey to white
OUTLINE = (1.0, 0.0, 0.8)


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


def some(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, evenly spread, with the first and the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


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


def sheet(rows: list[tuple[str, list[Tensor]]], titles: list[str]) -> Tensor:
    """Rows of pictures (h, w, 3), with a title over each column and a name over each row: (H, W, 3)."""
    font = ImageFont.load_default(14)
    page = Image.new("RGB", (GAP + len(titles) * (CELL + GAP), HEAD + len(rows) * (HEAD + CELL)), (24, 24, 24))
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), HEAD / 2), title, "white", font, anchor="lm")
    for number, (name, cells) in enumerate(rows):
        top = HEAD + number * (HEAD + CELL)
        draw.text((GAP, top + HEAD / 2), name, "white", font, anchor="lm")
        for column, cell in enumerate(cells):
            page.paste(fit(cell), (GAP + column * (CELL + GAP), top + HEAD))
    return to_tensor(page)


def fit(picture: Tensor) -> Image.Image:
    """(h, w, 3) in 0..1, as large as a cell holds, without smoothing."""
    image = to_image(picture)
    scale = CELL / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.NEAREST)


def outlined(image: Tensor, mask: Tensor) -> Tensor:
    """IMAGE (B, H, W, 3) with the outlines of masks (B, H, W) drawn on it."""
    solid = (mask > 0.5).float()[:, None]
    width = max(1, min(image.shape[1:3]) // 128)
    line = (F.max_pool2d(solid, 2 * width + 1, 1, width) - solid).movedim(1, -1)
    return image * (1 - line) + torch.tensor(OUTLINE).to(image) * line


def captioned(image: Tensor, captions: list[str]) -> Tensor:
    """IMAGE (B, H, W, 3) with a line of text below each picture."""
    font = ImageFont.load_default(14)
    pages = []
    for picture, caption in zip(image, captions, strict=True):
        above = to_image(picture)
        page = Image.new("RGB", (above.width, above.height + HEAD), (24, 24, 24))
        page.paste(above)
        ImageDraw.Draw(page).text((GAP, above.height + HEAD / 2), caption, "white", font, anchor="lm")
        pages.append(to_tensor(page))
    return torch.stack(pages)


def to_image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)
