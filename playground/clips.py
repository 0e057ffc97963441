"""Drawn clips: short videos of furnished rooms and a toy village with exact cameras and depth, from a small ray-caster.

The world has y down and its floor at y = 0; lengths are in units of about a metre. A surface tells how far along a ray it is hit,
its outward normal, and its paint: a solid texture of sines, which is rich at every place and smooth enough for 96 pixels.
Light is one square lamp: Lambert's cosine with soft shadows, the same from every side, so that frames agree with each other.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cameras import CameraPath, exponential, from_field_of_view, inverse, look_at, orbit

KINDS = ("forward", "sideways", "orbit", "handheld", "arc")
FIELD_OF_VIEW = 65.0  # degrees over the width
SAMPLES = 3  # of colour along each side of a pixel
LAMP = 0.3  # side of the square lamp, in units
AMBIENT, DIRECT = (0.42, 0.44, 0.49), (0.60, 0.57, 0.50)  # red, green, blue: a cool room and a warm lamp
SKIN = 1e-3  # shadow rays start so far above their surface
SENSOR = 0.01  # standard deviation of the noise of a camera's pixels

Paint = Callable[[Tensor], Tensor]  # points (N, 3) to colours (N, 3)

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


@dataclass(frozen=True)
class Clip:
    """frames: (F, H, W, 3) in 0..1. depth: (F, H, W), along the camera's axis at pixel centres, in the world's units."""

    frames: Tensor
    depth: Tensor
    path: CameraPath


@dataclass(frozen=True)
class Plane:
    """All points whose product with the unit `normal` (3,) is `offset`; seen from the side to which the normal points."""

    normal: Tensor
    offset: float
    paint: Paint

    def hit(self, start: Tensor, rays: Tensor) -> Tensor:
        """How many lengths of the rays (N, 3) lie between `start`, (3,) or (N, 3), and the surface: (N,), inf where they miss."""
        normal = self.normal.to(rays)
        reach = (self.offset - start @ normal) / (rays @ normal)
        return torch.where(reach > 0, reach, torch.inf)

    def normals(self, points: Tensor) -> Tensor:
        return self.normal.expand_as(points)


@dataclass(frozen=True)
class Sphere:
    """centre: (3,). From inside it is a dome."""

    centre: Tensor
    radius: float
    paint: Paint

    def hit(self, start: Tensor, rays: Tensor) -> Tensor:
        to_start = start - self.centre.to(rays)
        square = rays.square().sum(-1)
        half = (rays * to_start).sum(-1) / square
        root = (half.square() - (to_start.square().sum(-1) - self.radius**2) / square).sqrt()  # nan where they miss
        reach = torch.where(-half - root > 0, -half - root, root - half)
        return torch.where(reach > 0, reach, torch.inf)

    def normals(self, points: Tensor) -> Tensor:
        return (points - self.centre) / self.radius


@dataclass(frozen=True)
class Box:
    """centre and half (its size): (3,). turn: (3, 3), from the world's axes to its own."""

    centre: Tensor
    half: Tensor
    turn: Tensor
    paint: Paint

    def hit(self, start: Tensor, rays: Tensor) -> Tensor:
        turn = self.turn.to(rays)
        middle = (self.centre.to(rays) - start) @ turn.mT
        along = rays @ turn.mT
        half = self.half.to(rays)
        low, high = (middle - half) / along, (middle + half) / along
        enter, leave = torch.minimum(low, high).amax(-1), torch.maximum(low, high).amin(-1)
        return torch.where((enter < leave) & (enter > 0), enter, torch.inf)

    def normals(self, points: Tensor) -> Tensor:
        local = (points - self.centre) @ self.turn.mT / self.half
        face = F.one_hot(local.abs().argmax(-1), 3) * local.sign()
        return face @ self.turn


Surface = Plane | Sphere | Box


@dataclass(frozen=True)
class Scene:
    """Surfaces that leave no way out, and the middle of the lamp (3,)."""

    surfaces: Sequence[Surface]
    lamp: Tensor


def draw(kind: str, frames: int = 24, size: tuple[int, int] = (72, 96), seed: int = 0) -> Clip:
    """A clip of one of KINDS; more frames make the same way slower. The seed changes paints, furniture and a hand's tremble."""
    rng = torch.Generator().manual_seed(len(KINDS) * seed + KINDS.index(kind))
    scene = SCENES[kind](rng)
    poses = MOTIONS[kind](torch.linspace(0, 1, frames), rng)
    camera = from_field_of_view(poses[0], FIELD_OF_VIEW, size, "width")
    path = CameraPath(poses, camera.focal, camera.centre, size)
    depth = torch.stack([cast(scene.surfaces, *rays_of(path, f, dtype=torch.float64))[0] for f in range(frames)])
    colour = torch.stack([_photograph(scene, path, f) for f in range(frames)])
    return Clip(colour.unflatten(1, size), depth.float().unflatten(1, size), path)


def corrupted(clip: Clip, seed: int = 0, noise: float = 0.05, drift: float = 0.05, holes: float = 0.02) -> tuple[Tensor, Tensor]:
    """What a camera and a monocular depth estimator would give: frames (F, H, W, 3) in 0..1 and depth (F, H, W), 0 in holes.

    frames: an exposure that wanders by `drift` (standard deviation of its logarithm), then sensor noise. depth: every frame has
    a scale in 0.5..2 and a shift of up to 10 % of its median, then every pixel is multiplied by the exponential of noise with
    the standard deviation `noise`, half of its variance smooth; `holes` is the share of pixels that is missing, in blots.
    """
    rng = torch.Generator().manual_seed(seed)
    count, height, width = clip.depth.shape
    gain = (drift * _wander(torch.linspace(0, 1, count), 1, rng)).exp()[..., None, None]
    frames = clip.frames * gain + SENSOR * torch.randn(clip.frames.shape, generator=rng)

    scale = 2 ** (2 * torch.rand(count, 1, 1, generator=rng) - 1)
    median, nearest = (scale[:, 0] * d[:, None] for d in (clip.depth.flatten(1).median(1).values, clip.depth.flatten(1).amin(1)))
    shift = (0.2 * torch.rand(count, 1, generator=rng) - 0.1) * median
    affine = scale * clip.depth + torch.maximum(shift, -nearest / 2)[..., None]
    grain = torch.randn(count, height, width, generator=rng) + _blots(count, height, width, rng)
    blots = _blots(count, height, width, rng).flatten(1)
    whole = blots <= blots.kthvalue(max(round((1 - holes) * height * width), 1), keepdim=True).values
    return frames.clamp(0, 1), affine * (noise / math.sqrt(2) * grain).exp() * whole.view_as(grain)


def _blots(count: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """(count, height, width) smooth noise with unit variance, of twelve blots across."""
    coarse = torch.randn(count, 1, max(round(12 * height / width), 2), 12, generator=rng)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[:, 0]
    return smooth / smooth.std((1, 2), keepdim=True)


# Rays and light


def rays_of(path: CameraPath, frame: int, shift: tuple[float, float] = (0, 0), dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Where the rays of a frame start, (3,), and the rays (H W, 3) through points `shift` (x, y) pixels from pixel centres.

    A ray is as long as 1 unit of depth.
    """
    height, width = path.size
    y, x = torch.meshgrid(torch.arange(height, dtype=dtype) + 0.5, torch.arange(width, dtype=dtype) + 0.5, indexing="ij")
    pixels = torch.stack([x + shift[0], y + shift[1]], -1).flatten(0, 1)
    rays = F.pad((pixels - path.centre.to(dtype)) / path.focal.to(dtype), (0, 1), value=1)
    pose = inverse(path.poses[frame].to(dtype))
    return pose[:3, 3], rays @ pose[:3, :3].mT


def cast(surfaces: Sequence[Surface], start: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """How many lengths of the rays (N, 3) it is from `start`, (3,) or (N, 3), to the nearest surface (N,), and its index (N,)."""
    nearest = torch.stack([surface.hit(start, rays) for surface in surfaces]).min(0)
    return nearest.values, nearest.indices


def _photograph(scene: Scene, path: CameraPath, frame: int) -> Tensor:
    """The colours (H W, 3) of a frame: the mean of SAMPLES² points of every pixel, each lit from another point of the lamp."""
    grid = (torch.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    colour = torch.zeros(path.size[0] * path.size[1], 3)
    for i, j in product(range(SAMPLES), repeat=2):
        start, rays = rays_of(path, frame, (float(grid[i]), float(grid[j])))
        reach, index = cast(scene.surfaces, start, rays)
        lamp = scene.lamp + LAMP * torch.stack([grid[j], torch.tensor(0.0), grid[-1 - i]])
        colour += _shade(scene.surfaces, start + reach[:, None] * rays, rays, index, lamp)
    return colour / SAMPLES**2


def _shade(surfaces: Sequence[Surface], points: Tensor, rays: Tensor, index: Tensor, lamp: Tensor) -> Tensor:
    """The colours (N, 3) of points (N, 3) of the surfaces `index` (N,), seen along the rays (N, 3)."""
    normals, colour = torch.empty_like(points), torch.empty_like(points)
    for i, surface in enumerate(surfaces):
        here = (index == i).nonzero()[:, 0]
        if len(here):
            normals[here], colour[here] = surface.normals(points[here]), surface.paint(points[here])
    normals = normals * -(normals * rays).sum(-1, keepdim=True).sign()
    to_lamp = lamp - points
    cosine = (F.normalize(to_lamp, dim=-1) * normals).sum(-1).clamp(min=0)
    free = cast(surfaces, points + SKIN * normals, to_lamp)[0] > 1
    light = torch.tensor(AMBIENT) + torch.tensor(DIRECT) * (cosine * free)[:, None]
    return (colour * light).clamp(0, 1)


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


# Motions: places (F,) on the way, from 0 to 1, to poses (F, 4, 4)


def _wander(t: Tensor, channels: int, rng: torch.Generator) -> Tensor:
    """(F, channels) of smooth noise with about unit variance: sines of 1 to 4 turns on the way."""
    turns = 1 + 3 * torch.rand(3, channels, generator=rng)
    phase = torch.rand(3, channels, generator=rng)
    return (2 * math.pi * (turns * t[:, None, None] + phase)).sin().sum(1) * math.sqrt(2 / 3)


def _looking(x: Tensor, y: Tensor, z: Tensor, yaw: Tensor, pitch: Tensor) -> Tensor:
    """Poses (F, 4, 4) at x, y, z (F,) that look to the right by `yaw` and down by `pitch`, (F,) in degrees; all 0 is along +z."""
    yaw, pitch = torch.deg2rad(yaw), torch.deg2rad(pitch)
    position = torch.stack([x, y, z], -1)
    return look_at(position, position + torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1))


def _dolly(t: Tensor, rng: torch.Generator) -> Tensor:
    return _looking(0.3 * t - 0.2, 0.0 * t - 1.45, 2.3 * t, 12 * t - 7, 0 * t + 7)


def _slide(t: Tensor, rng: torch.Generator) -> Tensor:
    return _looking(2.4 * t - 1.2, 0.15 * t - 1.5, 0.0 * t, 2 - 4 * t, 0 * t + 8)


def _circle(t: Tensor, rng: torch.Generator) -> Tensor:
    return orbit(torch.tensor([0.0, -0.6, 0.0]), 3.2, 120 * t - 60, 1.0)


def _walk(t: Tensor, rng: torch.Generator) -> Tensor:
    tremble = _wander(t, 6, rng) * torch.tensor([0.03, 0.03, 0.03, 0.014, 0.014, 0.014])
    return exponential(tremble) @ _looking(1.1 * t - 0.7, 0 * t - 1.5, 1.3 * t, 4 - 8 * t, 0 * t + 7)


def _rise(t: Tensor, rng: torch.Generator) -> Tensor:
    angle, lift = torch.deg2rad(70 * t - 35), torch.deg2rad(22 + 30 * t)
    away = torch.stack([-angle.sin() * lift.cos(), -lift.sin(), -angle.cos() * lift.cos()], -1)
    target = torch.tensor([0.0, -0.4, 0.0])
    return look_at(target + 3.6 * away, target.expand_as(away))


MOTIONS = {"forward": _dolly, "sideways": _slide, "orbit": _circle, "handheld": _walk, "arc": _rise}
