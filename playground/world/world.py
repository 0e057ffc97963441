"""The drawn world: captioned 128 x 128 scenes of one to three shaded objects on a textured ground, with exact masks.

Everything is batched: a `Scenes` holds B scenes as arrays, and `render` draws them all at once from a signed-distance
atlas of the shapes (one `grid_sample` an object) and seamless textures (one gather).
"""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from .textures import BACKGROUNDS, TEXTURE_SIZE, textures

SIZE = 128
MAX_OBJECTS = 3
SHAPES = ("ball", "square", "triangle", "star", "ring", "cross", "heart", "moon")
COLOURS = {
    "red": (0.86, 0.10, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (1.00, 0.90, 0.15),
    "green": (0.05, 0.75, 0.25),
    "blue": (0.12, 0.25, 0.92),
    "purple": (0.62, 0.16, 0.78),
    "white": (0.96, 0.96, 0.96),
    "black": (0.07, 0.07, 0.08),
}
COLOUR_NAMES = tuple(COLOURS)
ATLAS_REACH = 1.6  # the atlas covers -1.6 .. 1.6 object radii
LIGHT = (-0.45, -0.65, 0.61)  # from the upper left, towards the viewer; image axes (x right, y down)
SHADOW = (3, 4)  # offset of the drop shadow, pixels right and down
PATCH = 84  # pixels; holds the largest object and its shadow
BORDER = 40  # pixels around the canvas, so that a patch at the rim stays on it
BATCH = 16  # scenes drawn at once: what fits the cache


@dataclass
class Scenes:
    """B scenes. Object arrays are (B, 3); entries from `count` on are unused. Positions and radii in pixels, angles in radians."""

    count: Tensor
    background: Tensor
    shape: Tensor
    colour: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    texture_x: Tensor
    texture_y: Tensor

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, index: slice | Tensor) -> "Scenes":
        return Scenes(*(getattr(self, f.name)[index] for f in fields(self)))

    @property
    def present(self) -> Tensor:
        """(B, 3) bool: which object slots are used."""
        return torch.arange(MAX_OBJECTS) < self.count[:, None]

    def name(self, i: int, slot: int = 0) -> tuple[str, str]:
        """Colour and shape of an object."""
        return COLOUR_NAMES[int(self.colour[i, slot])], SHAPES[int(self.shape[i, slot])]

    def ground(self, i: int) -> str:
        return BACKGROUNDS[int(self.background[i])]


def sample_scenes(n: int, generator: torch.Generator, counts: tuple[float, float, float] = (0.4, 0.45, 0.15)) -> Scenes:
    """Draws n random scenes; `counts` are the odds of one, two and three objects. Objects keep clear of each other."""

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator)

    def choice(options: int, *size: int) -> Tensor:
        return torch.randint(options, size, generator=generator)

    count = 1 + torch.multinomial(torch.tensor(counts, dtype=torch.float), n, replacement=True, generator=generator)
    low = torch.tensor([17.0, 15.0, 13.0])[count - 1][:, None]
    high = torch.tensor([31.0, 24.0, 18.0])[count - 1][:, None]
    radius = low + (high - low) * torch.rand(n, MAX_OBJECTS, generator=generator)

    candidates = 48
    margin = 0.9 * radius[:, None]
    place = uniform(0, 1, n, candidates, MAX_OBJECTS, 2) * (SIZE - 2 * margin[..., None]) + margin[..., None]
    gap = _smallest_gap(place, radius, count)
    clear = torch.where(gap > 0, 1e3 + uniform(0, 1, n, candidates), gap)  # any clear placing will do; else the least bad
    best = clear.argmax(1)
    place = place[torch.arange(n), best]

    return Scenes(
        count=count,
        background=choice(len(BACKGROUNDS), n),
        shape=choice(len(SHAPES), n, MAX_OBJECTS),
        colour=choice(len(COLOURS), n, MAX_OBJECTS),
        x=place[..., 0],
        y=place[..., 1],
        radius=radius,
        angle=uniform(-0.4, 0.4, n, MAX_OBJECTS),
        texture_x=choice(TEXTURE_SIZE - SIZE, n),
        texture_y=choice(TEXTURE_SIZE - SIZE, n),
    )


def _smallest_gap(place: Tensor, radius: Tensor, count: Tensor) -> Tensor:
    """(B, K) smallest space between two objects of each of K placings (B, K, 3, 2)."""
    distance = (place[:, :, :, None] - place[:, :, None]).norm(dim=-1)
    gap = distance - (radius[:, None, :, None] + radius[:, None, None, :])
    slot = torch.arange(MAX_OBJECTS)
    pair = (slot[:, None] < slot[None]) & (slot[None, None] < count[:, None, None])
    return gap.masked_fill(~pair[:, None], 1e3).amin((-2, -1))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points (in object radii, y down) belong to an upright shape."""
    r = np.hypot(x, y)
    match shape:
        case "ball":
            return r < 0.92
        case "square":
            return np.maximum(abs(x), abs(y)) < 0.8
        case "triangle":
            return (y < 0.7) & (2 * abs(x) < y + 0.98)
        case "star":
            angle = abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
            tip, notch = 1.0, 0.46  # the edge from the tip (angle 0) to the notch (angle pi / 5)
            ex, ey = notch * np.sin(np.pi / 5), notch * np.cos(np.pi / 5) - tip
            return ex * (r * np.cos(angle) - tip) - ey * (r * np.sin(angle)) < 0
        case "ring":
            return (r < 0.98) & (r > 0.5)
        case "cross":
            return (np.minimum(abs(x), abs(y)) < 0.31) & (np.maximum(abs(x), abs(y)) < 0.92)
        case "heart":
            hx, hy = x * 1.22, -y * 1.22 + 0.12
            return (hx**2 + hy**2 - 1) ** 3 - hx**2 * hy**3 < 0
        case "moon":
            return (r < 0.95) & (np.hypot(x - 0.48, y + 0.1) > 0.72)
    raise ValueError(f"unknown shape {shape}")


@cache
def _atlas(cells: int = 96, fine: int = 576) -> Tensor:
    """(8, 3, cells, cells): signed distance in object radii (negative inside) and the surface normal's x and y."""
    axis = (np.arange(fine) + 0.5) / fine * 2 * ATLAS_REACH - ATLAS_REACH
    y, x = np.meshgrid(axis, axis, indexing="ij")
    unit = 2 * ATLAS_REACH / fine
    layers = []
    for shape in SHAPES:
        inside = _inside(shape, x, y)
        outer, inner = np.asarray(distance_transform_edt(~inside)), np.asarray(distance_transform_edt(inside))
        distance = (outer - inner) * unit
        bevel = 0.92 if shape == "ball" else 0.34
        depth = np.clip(-gaussian_filter(distance, 0.045 / unit) / bevel, 0, 1)
        height = bevel * np.sqrt(1 - (1 - depth) ** 2)
        ny, nx = np.gradient(gaussian_filter(height, 0.02 / unit), unit)
        steep = np.sqrt(1 + nx**2 + ny**2)
        layers.append(np.stack([distance, -nx / steep, -ny / steep]))
    atlas = torch.from_numpy(np.stack(layers)).float()
    return F.avg_pool2d(atlas, fine // cells)


@cache
def _windows() -> Tensor:
    """All 128 x 128 windows of the textures, as a view: (8, 3, Y, X, 128, 128)."""
    return textures().unfold(2, SIZE, 1).unfold(3, SIZE, 1)


def _sample_atlas(scenes: Scenes, slot: int, corner: Tensor) -> Tensor:
    """(B, 3, PATCH, PATCH) of the atlas as the object in `slot` shows it, from `corner` (B, 2) on."""
    scale = PATCH / 2 / (scenes.radius[:, slot] * ATLAS_REACH)
    cos, sin = scale * torch.cos(scenes.angle[:, slot]), scale * torch.sin(scenes.angle[:, slot])
    cx = (scenes.x[:, slot] - corner[:, 0]) / (PATCH / 2) - 1
    cy = (scenes.y[:, slot] - corner[:, 1]) / (PATCH / 2) - 1
    rows = [torch.stack([cos, sin, -cos * cx - sin * cy], -1), torch.stack([-sin, cos, sin * cx - cos * cy], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), [len(scenes), 1, PATCH, PATCH], align_corners=False)
    return F.grid_sample(_atlas()[scenes.shape[:, slot]], grid, padding_mode="border", align_corners=False)


def _draw(ground: Tensor, scenes: Scenes, slot: int, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Draws the objects of `slot` and their shadows on patches (B, 3, PATCH, PATCH); also gives their coverage (B, PATCH, PATCH)."""
    palette = torch.tensor(list(COLOURS.values()))
    layer = _sample_atlas(scenes, slot, corner)
    radius = scenes.radius[:, slot, None, None]
    alpha = (0.5 - layer[:, 0] * radius).clamp(0, 1)
    dx, dy = SHADOW
    shadow = F.pad((0.5 - layer[:, 0] * radius / 5).clamp(0, 1), (dx, 0, dy, 0))[:, :PATCH, :PATCH]

    cos, sin = (f(scenes.angle[:, slot])[:, None, None] for f in (torch.cos, torch.sin))
    nx, ny = cos * layer[:, 1] - sin * layer[:, 2], sin * layer[:, 1] + cos * layer[:, 2]
    nz = (1 - nx**2 - ny**2).clamp(min=0).sqrt()
    diffuse = (nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2]).clamp(0, 1)
    gloss = (2 * nz * diffuse - LIGHT[2]).clamp(0, 1).pow(4).pow(3)
    base = palette[scenes.colour[:, slot]][:, :, None, None]
    surface = (base * (0.45 + 0.75 * diffuse[:, None]) + (0.30 * gloss + 0.06 * diffuse)[:, None]).clamp(max=1)
    shaded = ground * (1 - 0.35 * shadow[:, None])
    return torch.lerp(shaded, surface, alpha[:, None]), alpha


def render(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, 128, 128) in 0..1 and visible-object masks (B, 3, 128, 128) in 0..1 with soft, one pixel wide edges."""
    canvas = torch.empty(2, BATCH, 3, SIZE + 2 * BORDER, SIZE + 2 * BORDER)
    parts = torch.empty(2, len(scenes), 3, SIZE, SIZE)
    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        image, masks = canvas[:, : len(batch)]
        _paint(batch, image, masks)
        parts[:, start : start + BATCH] = canvas[:, : len(batch), :, BORDER:-BORDER, BORDER:-BORDER]
    return parts[0], parts[1]


def _paint(scenes: Scenes, image: Tensor, masks: Tensor) -> None:
    """Fills the bordered canvases `image` and `masks`, (B, 3, SIZE + 2 BORDER, SIZE + 2 BORDER) each."""
    image[..., BORDER:-BORDER, BORDER:-BORDER] = _windows()[scenes.background, :, scenes.texture_y, scenes.texture_x]
    masks.zero_()
    image_patches, mask_patches = (canvas.unfold(2, PATCH, 1).unfold(3, PATCH, 1) for canvas in (image, masks))
    for slot in range(int(scenes.count.max())):
        row = scenes.present[:, slot].nonzero()[:, 0]
        drawn = scenes[row]
        corner = (torch.stack([drawn.x[:, slot], drawn.y[:, slot]], -1) - PATCH / 2).floor()
        left, top = (corner.long() + BORDER).unbind(-1)
        patch, alpha = _draw(image_patches[row, :, top, left], drawn, slot, corner)
        image_patches[row, :, top, left] = patch
        mask_patches[row, :, top, left] *= 1 - alpha[:, None]
        mask_patches[row, slot, top, left] = alpha
