"""A picture of a filter, and of how strong signals are at each frequency."""

import math

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.freeinit import mixing
from ..common.previews import fit, to_tensor

BANDS = 24
PANEL, MARGIN = 300, 44  # pixels
COLOURS = ("#5fb3ff", "#ffb454", "#7fe08a")
LOWEST, HIGHEST = -2.0, 3.0  # powers of ten


def spectra(low: Tensor, signals: dict[str, Tensor], errors: tuple[float, float]) -> Tensor:
    """IMAGE (1, H, W, 3): the filter (T, H, W) over space (at rest) and over time and width, and the power of signals (..., T, H, W).
    errors: of the mix's covariance, and of the published mix's."""
    font = ImageFont.load_default(13)
    page = Image.new("RGB", (3 * PANEL + 4 * MARGIN, PANEL + 2 * MARGIN), (24, 24, 24))
    pen = ImageDraw.Draw(page)
    centred = torch.fft.fftshift(low)
    t, h, _ = low.shape
    for column, (title, part) in enumerate((("over space", centred[t // 2]), ("over time (down) and width", centred[:, h // 2]))):
        left = MARGIN + column * (PANEL + MARGIN)
        picture = fit(part[..., None].expand(-1, -1, 3)).resize((PANEL, PANEL), Image.Resampling.NEAREST)
        page.paste(picture, (left, MARGIN))
        pen.text((left, MARGIN / 2), f"what stays, {title}", "white", font, anchor="lm")
    left = MARGIN + 2 * (PANEL + MARGIN)
    title = f"power by frequency; covariance error {errors[0]:.3f}, as published {errors[1]:.3f}"
    pen.text((left, MARGIN / 2), title, "white", font, anchor="lm")
    pen.rectangle((left, MARGIN, left + PANEL, MARGIN + PANEL), outline="grey")
    for power in range(int(LOWEST), int(HIGHEST) + 1):
        pen.text((left - 4, _height(10.0**power)), f"1e{power}", "grey", font, anchor="rm")
    for number, (name, signal) in enumerate(signals.items()):
        values = mixing.band_power(signal, BANDS).tolist()
        pen.line([(left + PANEL * (i + 0.5) / BANDS, _height(v)) for i, v in enumerate(values) if v > 0], COLOURS[number], 2)
        pen.text((left + 8 + number * PANEL / 3, MARGIN + PANEL + 14), name, COLOURS[number], font, anchor="lm")
    return to_tensor(page)[None]


def _height(power: float) -> float:
    share = (math.log10(max(power, 1e-9)) - LOWEST) / (HIGHEST - LOWEST)
    return MARGIN + PANEL * (1 - min(max(share, 0.0), 1.0))
