"""Pictures for people: sheets of several with titles, outlines and captions on results."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL, GAP, HEAD = 128, 6, 22  # pixels
OUTLINE = (1.0, 0.0, 0.8)


def some(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, evenly spread, with the first and the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


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
