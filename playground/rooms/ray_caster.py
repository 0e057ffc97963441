"""A small ray-caster: planes, spheres and boxes under one lamp.

A surface tells how far along a ray it is hit, its outward normal, and its paint. Light is one square lamp: Lambert's cosine with
soft shadows, the same from every side, so that frames agree with each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.geometry.cameras import CameraPath, inverse

SAMPLES = 3  # of colour along each side of a pixel
LAMP = 0.3  # side of the square lamp, in units
AMBIENT, DIRECT = (0.42, 0.44, 0.49), (0.60, 0.57, 0.50)  # red, green, blue: a cool room and a warm lamp
SKIN = 1e-3  # shadow rays start so far above their surface

Paint = Callable[[Tensor], Tensor]  # points (N, 3) to colours (N, 3)


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


def photograph(scene: Scene, path: CameraPath, frame: int) -> Tensor:
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
