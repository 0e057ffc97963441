"""What each kind of land looks like from above: seamless pictures (3, H, W) in 0..1, light from the upper left."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .noise import Size, cells, rough, smooth

Painter = Callable[[Size, torch.Generator], Tensor]
CROPS = ((0.80, 0.70, 0.34), (0.52, 0.63, 0.26), (0.56, 0.42, 0.27), (0.88, 0.80, 0.40), (0.40, 0.55, 0.28))
ROOFS = ((0.70, 0.27, 0.20), (0.58, 0.36, 0.26), (0.45, 0.45, 0.48), (0.78, 0.42, 0.28))


def colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue])[:, None, None]


def chosen(palette: tuple[tuple[float, float, float], ...], values: Tensor) -> Tensor:
    """(3, H, W), by values (H, W) in 0..1."""
    return torch.tensor(palette)[(values * len(palette)).long().clamp(max=len(palette) - 1)].movedim(-1, 0)


def lit(height: Tensor) -> Tensor:
    """(H, W): how much brighter slopes towards the light are."""
    return (height.roll(-1, 0) - height.roll(1, 0) + height.roll(-1, 1) - height.roll(1, 1)) / 2


def water(size: Size, generator: torch.Generator) -> Tensor:
    waves = lit(smooth(size, 2.2, generator))
    return colour(0.13, 0.36, 0.58) + 0.05 * rough(size, 24, generator) * colour(0.4, 0.8, 1.0) + 0.10 * waves


def sand(size: Size, generator: torch.Generator) -> Tensor:
    turns = max(1, round(size[1] / 9))
    phase = 2 * math.pi * turns * torch.arange(size[1]) / size[1] + 4 * smooth(size, 22, generator)
    return colour(0.88, 0.77, 0.52) + 0.05 * torch.sin(phase) + 0.03 * rough(size, 12, generator)


def meadow(size: Size, generator: torch.Generator) -> Tensor:
    tufts = cells(size, 9, generator, 1.0)
    flowers = (tufts.distance < 0.16) & (tufts.values(generator) < 0.35)
    grass = colour(0.47, 0.70, 0.27) + 0.05 * rough(size, 10, generator)
    return torch.where(flowers, colour(0.97, 0.93, 0.55), grass)


def field(size: Size, generator: torch.Generator) -> Tensor:
    plots = cells(size, 46, generator, 0.6)
    angle = math.pi * plots.values(generator)
    furrows = torch.sin(2 * math.pi / 5.5 * (plots.across * torch.cos(angle) + plots.down * torch.sin(angle)))
    crop = chosen(CROPS, plots.values(generator)) * (1 + 0.13 * furrows)
    return torch.where(plots.edge < 0.06, colour(0.24, 0.36, 0.16), crop)


def wood(size: Size, generator: torch.Generator) -> Tensor:
    trees = cells(size, 9, generator, 0.9)
    shade = 1.25 - trees.distance - 0.045 * (trees.down + trees.across)
    return colour(0.11, 0.34, 0.15) * (0.75 + 0.5 * trees.values(generator)) * shade.clamp(0.25, 1.6)


def town(size: Size, generator: torch.Generator) -> Tensor:
    houses, blocks = cells(size, 17, generator, 0.35), cells(size, 58, generator, 0.7)
    angle = 0.5 * math.pi * houses.values(generator)
    along = houses.across * torch.cos(angle) + houses.down * torch.sin(angle)
    beside = houses.down * torch.cos(angle) - houses.across * torch.sin(angle)
    roof = (along.abs() < 5.5) & (beside.abs() < 4)
    shaded = chosen(ROOFS, houses.values(generator)) * torch.where(beside < 0, 1.15, 0.75)
    yards = colour(0.58, 0.68, 0.46) + 0.03 * smooth(size, 3, generator)
    streets = torch.where(blocks.edge < 0.11, colour(0.36, 0.36, 0.38), yards)
    return torch.where(roof & (blocks.edge > 0.16), shaded, streets)


def rock(size: Size, generator: torch.Generator) -> Tensor:
    height = 6 * (1 - rough(size, 9, generator, 4).abs())
    return colour(0.50, 0.47, 0.44) * (1 + 0.22 * lit(height)).clamp(0.4, 1.7)


def snow(size: Size, generator: torch.Generator) -> Tensor:
    slopes = lit(12 * smooth(size, 13, generator))
    return colour(0.93, 0.95, 0.98) + 0.07 * slopes * colour(1.0, 0.9, 0.7)


PAINTERS: dict[str, Painter] = {
    "water": water, "sand": sand, "meadow": meadow, "fields": field, "woods": wood, "town": town, "rock": rock, "snow": snow,
}  # fmt: skip
