"""What drawn clips show: furnished rooms and a toy village, and their paints.

The world has y down and its floor at y = 0; lengths are in units of about a metre. A paint is a solid texture of sines, which is
rich at every place and smooth enough for 96 pixels.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.geometry.cameras import exponential
from .ray_caster import Box, Paint, Plane, Scene, Sphere, Surface

FLOORS = ("6b4226 a9714b d9a871 f0d7a7", "3d405b 81849c c9c4b8 f4f1de", "264653 3f7d7b 8ab17d e9d8a6", "4a2c40 8c5e6b c9a690 f2e2cf")
WALLS = ("31577a 5b8fb9 b6d0dc f6e7cb", "7a3b3f c0695c e7a977 fbe3b5", "35524a 6f9a7c b8cf9a f3ecc8", "473a6b 8069a6 c7a3c8 f7dccb")
TOYS = (
    "d62828 f77f00 fcbf49 fff3d0",
    "03256c 1768ac 06bee1 e5fbff",
    "1b4332 2d9a5f 95d5b2 fffbd6",
    "5a189a c0378f ff8fa3 ffe5d9",
    "7f2d1b e07a3f 2a9d8f e9f5db",
    "14213d 4f6d9a fca311 fff1d6",
    "6a040f d00060 ffb3c6 3a86ff",
)
MEADOW, SKY = "2f5d34 5f8f3e a3b65a e6d89a", "4d7fb0 86b6d6 f3e3d3 f6b89a"


# Paints

PATTERNS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {  # x, y, z in radians and noise to about 0..1
    "clouds": lambda x, y, z, n: 0.5 + 0.28 * n,
    "marble": lambda x, y, z, n: 0.5 + 0.5 * torch.sin(0.6 * x + 0.5 * y + 0.6 * z + 1.6 * n),
    "layers": lambda x, y, z, n: 0.5 + 0.5 * torch.sin(y + 0.4 * x + 0.3 * z + 0.9 * n),
    "rings": lambda x, y, z, n: 0.5 + 0.5 * torch.sin(torch.hypot(x, z) + 0.5 * y + 0.7 * n),
    "tiles": lambda x, y, z, n: 0.5 + 0.3 * torch.tanh(3 * x.sin() * z.sin()) + 0.12 * n,
    "panels": lambda x, y, z, n: 0.5 + 0.3 * torch.tanh(3 * (x + z).sin() * y.sin()) + 0.12 * n,
    "gyroid": lambda x, y, z, n: 0.5 + 0.4 * torch.tanh(1.6 * (x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos())) + 0.1 * n,
}


def _paint(pattern: str, ramp: str, period: float, rng: torch.Generator) -> Paint:
    """A pattern that repeats about every `period` units, in the colours of the ramp (hexadecimal, from low to high), with grain."""
    colours = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (0, 2, 4)] for c in ramp.split()])
    broad, fine = _noise(3 * period, period, rng), _noise(period, period / 3, rng)

    def paint(points: Tensor) -> Tensor:
        x, y, z = (points * (2 * math.pi / period)).unbind(-1)
        grain = fine(points)
        place = (PATTERNS[pattern](x, y, z, broad(points)) + 0.07 * grain).clamp(0, 1) * (len(colours) - 1)
        low = place.long().clamp(max=len(colours) - 2)
        colour = torch.lerp(colours[low], colours[low + 1], (place - low)[:, None])
        return colour * (1 + 0.09 * grain)[:, None]

    return paint


def _noise(longest: float, shortest: float, rng: torch.Generator, waves: int = 20) -> Callable[[Tensor], Tensor]:
    """A smooth random field with unit variance, points (N, 3) to (N,): plane waves with lengths between the two, in units."""
    length = longest * (shortest / longest) ** torch.rand(waves, generator=rng)
    vector = F.normalize(torch.randn(waves, 3, generator=rng), dim=-1) * (2 * math.pi / length[:, None])
    phase = 2 * math.pi * torch.rand(waves, generator=rng)
    amplitude = length.sqrt() / (length.sum() / 2).sqrt()
    return lambda points: (points @ vector.mT + phase).sin() @ amplitude


# Scenes


def _room(sides: int, radius: tuple[float, float], middle: float, height: float, paints: Sequence[Paint]) -> list[Surface]:
    """Floor, ceiling and upright walls, all facing in: `radius` is the distance of walls across x and along z from (0, middle)."""
    floor, wall, ceiling = paints
    up = torch.tensor([0.0, -1.0, 0.0])
    angle = 2 * math.pi * torch.arange(sides) / sides
    inward = torch.stack([angle.sin(), torch.zeros(sides), angle.cos()], -1)
    offset = -torch.hypot(radius[0] * inward[:, 0], radius[1] * inward[:, 2]) + middle * inward[:, 2]
    walls = [Plane(normal, float(d), wall) for normal, d in zip(inward, offset, strict=True)]
    return [Plane(up, 0.0, floor), Plane(-up, -height, ceiling), *walls]


def _toys(things: Sequence[tuple], rng: torch.Generator) -> list[Surface]:
    """Balls ("ball", pattern, x, bottom, z, radius), boxes ("box", pattern, x, bottom, z, width, height, depth) and a "bench".

    `bottom` is the height above the floor. Balls and boxes are moved by up to 0.1, boxes turned by up to 40 degrees.
    """
    ramps = [TOYS[i % len(TOYS)] for i in torch.randperm(len(TOYS), generator=rng).tolist() * len(things)]
    toys: list[Surface] = []
    for (shape, pattern, x, bottom, z, *sizes), ramp in zip(things, ramps, strict=False):
        moved = 0.0 if shape == "bench" else 1.0
        dx, dz, angle = (moved * (torch.rand(3, generator=rng) * 2 - 1)).tolist()
        size = torch.tensor(sizes)
        rise = sizes[0] if shape == "ball" else sizes[1] / 2
        centre = torch.tensor([x + 0.1 * dx, -bottom - rise, z + 0.1 * dz])
        paint = _paint(pattern, ramp, 0.45, rng)
        if shape == "ball":
            toys.append(Sphere(centre, sizes[0], paint))
        else:
            turn = exponential(torch.tensor([0, 0, 0, 0, 0.7 * angle, 0]))[:3, :3]
            toys.append(Box(centre, size / 2, turn, paint))
    return toys


def _painted_room(
    shape: tuple[int, tuple[float, float], float, float], patterns: tuple[str, str, str], rng: torch.Generator
) -> list[Surface]:
    """`_room` of (sides, radius, middle, height) with patterns for floor, walls and ceiling."""
    floor, wall, ceiling = (int(torch.randint(4, (), generator=rng)) for _ in range(3))
    ramps = (FLOORS[floor], WALLS[wall], WALLS[ceiling])
    paints = [_paint(p, r, period, rng) for p, r, period in zip(patterns, ramps, (0.8, 0.9, 1.1), strict=True)]
    return _room(*shape, paints)


def _hall(rng: torch.Generator) -> Scene:
    toys = (
        ("box", "gyroid", -1.5, 0, 5.0, 0.8, 1.7, 0.8),
        ("ball", "marble", 1.2, 0, 4.6, 0.5),
        ("box", "layers", 1.6, 0, 6.2, 0.9, 2.2, 0.7),
        ("ball", "gyroid", -0.35, 0, 6.3, 0.55),
        ("ball", "rings", 0.5, 1.9, 5.6, 0.35),
        ("ball", "layers", -1.3, 2.2, 6.8, 0.35),
    )
    room = _painted_room((4, (2.5, 4.4), 3.4, 3.2), ("tiles", "panels", "layers"), rng)
    return Scene([*room, *_toys(toys, rng)], torch.tensor([0.4, -3.0, 3.4]))


def _shelf(rng: torch.Generator) -> Scene:
    toys = (
        ("bench", "rings", 0, 0, 3.6, 4.4, 0.55, 0.8),
        ("ball", "gyroid", -1.4, 0.55, 3.6, 0.36),
        ("box", "marble", -0.4, 0.55, 3.6, 0.5, 0.9, 0.5),
        ("ball", "layers", 0.5, 0.55, 3.6, 0.3),
        ("box", "gyroid", 1.4, 0.55, 3.6, 0.55, 0.6, 0.5),
        ("ball", "marble", 0.9, 0, 2.6, 0.34),
        ("ball", "rings", -1.0, 1.9, 4.3, 0.34),
        ("box", "layers", 2.2, 0, 4.6, 0.6, 2.3, 0.5),
    )
    room = _painted_room((4, (3.6, 3.2), 2.4, 3.2), ("tiles", "clouds", "layers"), rng)
    return Scene([*room, *_toys(toys, rng)], torch.tensor([-0.9, -3.0, 1.4]))


def _rotunda(rng: torch.Generator) -> Scene:
    toys = (
        ("box", "gyroid", 0, 0, 0, 0.9, 0.7, 0.9),
        ("ball", "marble", 0, 0.7, 0, 0.46),
        ("ball", "layers", -0.95, 0, -0.6, 0.38),
        ("box", "rings", 0.95, 0, -0.6, 0.45, 1.1, 0.45),
        ("box", "layers", -0.9, 0, 0.9, 0.5, 1.6, 0.5),
        ("ball", "gyroid", 0.9, 0, 0.9, 0.45),
    )
    room = _painted_room((8, (4.0, 4.0), 0, 3.4), ("gyroid", "marble", "clouds"), rng)
    return Scene([*room, *_toys(toys, rng)], torch.tensor([-1.1, -3.2, -0.7]))


def _studio(rng: torch.Generator) -> Scene:
    toys = (
        ("box", "panels", -1.7, 0, 4.2, 0.9, 1.2, 0.9),
        ("ball", "gyroid", -1.7, 1.2, 4.2, 0.4),
        ("ball", "marble", 0.1, 0, 4.3, 0.5),
        ("box", "layers", 1.2, 0, 5.4, 0.7, 1.9, 0.7),
        ("box", "gyroid", -0.5, 0, 6.2, 1.0, 0.9, 0.6),
        ("ball", "rings", 1.9, 0, 3.9, 0.45),
        ("ball", "layers", 0.4, 2.1, 5.0, 0.35),
    )
    room = _painted_room((4, (3.1, 4.2), 3.2, 3.3), ("marble", "layers", "clouds"), rng)
    return Scene([*room, *_toys(toys, rng)], torch.tensor([0.9, -3.1, 2.8]))


def _village(rng: torch.Generator) -> Scene:
    places = [(-1.3, -0.9), (0.1, -1.2), (1.3, -0.7), (-0.6, 0.1), (0.7, 0.3), (-1.6, 0.9), (0.0, 1.3), (1.6, 1.2)]
    toys: list[tuple] = []
    for i, (x, z) in enumerate(places):
        tall = 0.5 + 0.9 * float(torch.rand((), generator=rng))
        if i % 3 == 1:
            toys += [("ball", "marble", x, 0, z, 0.36)]
        else:
            toys += [("box", ("layers", "gyroid", "panels")[i % 3], x, 0, z, 0.55, tall, 0.55)]
    ground = Plane(torch.tensor([0.0, -1.0, 0.0]), 0.0, _paint("clouds", MEADOW, 0.7, rng))
    sky = Sphere(torch.zeros(3), 4.6, _paint("clouds", SKY, 1.2, rng))
    return Scene([ground, sky, *_toys(toys, rng)], torch.tensor([-1.6, -3.4, -1.8]))


SCENES = {"forward": _hall, "sideways": _shelf, "orbit": _rotunda, "handheld": _studio, "arc": _village}
