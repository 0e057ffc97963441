"""A grid of what a picture shows at each place, as a vision encoder sees it: to draw its like in any size."""

import importlib
from typing import Any

from torch import Tensor

from .grid import Conditioning, Grid


def grid(encoder: Any, picture: Tensor, words: Conditioning, shape: tuple[int, int], strength: float, style: Any = None) -> Grid:
    """encoder: the host's CLIP_VISION. picture: (H, W, 3) in 0..1. words: a prompt that all cells share. style: a STYLE_MODEL, which makes
    tokens of what the encoder sees; without one, models that read its embedding do so themselves (unCLIP, SDXL, Stable Cascade)."""
    host: Any = importlib.import_module("nodes")
    plain = tuple(words[0])

    def told(crop: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if strength == 0:
            return plain
        seen = host.CLIPVisionEncode().encode(encoder, crop[None], "none")[0]
        if style is not None:
            return tuple(host.StyleModelApply().apply_stylemodel(words, style, seen, strength, "multiply")[0][0])
        return tuple(host.unCLIPConditioning().apply_adm(words, seen, strength, 0.0)[0][0])

    rows, columns = shape
    cells = tuple(tuple(told(part) for part in row.tensor_split(columns, 1)) for row in picture.tensor_split(rows))
    return Grid(cells, tuple(tuple(f"{row + 1}, {column + 1}" for column in range(columns)) for row in range(rows)))
