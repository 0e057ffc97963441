"""Drawn clips: short videos of furnished rooms and a toy village with exact cameras and depth, from a small ray-caster.

Axes and units of the world are those of `furniture`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.geometry.cameras import CameraPath, exponential, from_field_of_view, look_at, orbit
from .furniture import SCENES
from .ray_caster import cast, photograph, rays_of

KINDS = ("forward", "sideways", "orbit", "handheld", "arc")
FIELD_OF_VIEW = 65.0  # degrees over the width
SENSOR = 0.01  # standard deviation of the noise of a camera's pixels


@dataclass(frozen=True)
class Clip:
    """frames: (F, H, W, 3) in 0..1. depth: (F, H, W), along the camera's axis at pixel centres, in the world's units."""

    frames: Tensor
    depth: Tensor
    path: CameraPath


def draw(kind: str, frames: int = 24, size: tuple[int, int] = (72, 96), seed: int = 0) -> Clip:
    """A clip of one of KINDS; more frames make the same way slower. The seed changes paints, furniture and a hand's tremble."""
    rng = torch.Generator().manual_seed(len(KINDS) * seed + KINDS.index(kind))
    scene = SCENES[kind](rng)
    poses = MOTIONS[kind](torch.linspace(0, 1, frames), rng)
    camera = from_field_of_view(poses[0], FIELD_OF_VIEW, size, "width")
    path = CameraPath(poses, camera.focal, camera.centre, size)
    depth = torch.stack([cast(scene.surfaces, *rays_of(path, f, dtype=torch.float64))[0] for f in range(frames)])
    colour = torch.stack([photograph(scene, path, f) for f in range(frames)])
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
