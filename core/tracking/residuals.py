"""What two frames of a clip say of their cameras: residuals of picture and depth at each pixel, with derivatives (see bundle.py)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras

POSE, SCALE, SHIFT, GAIN, OFFSET = slice(0, 6), 6, 7, 8, 9
PER_FRAME = 10
BOTH = 2 * PER_FRAME + 1  # two frames and the focal length
SHARPEST = 2.0  # and its inverse: how much less noise, relative to a depth, a shift may be said to leave
SOLID, KNOWN_AROUND = 0.7, 0.4


@dataclass(frozen=True)
class Level:
    """One size of the clip. maps: (F, 5, h, w): grey, its derivatives along x and y, given depth, and where that is valid."""

    maps: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.maps.shape[-2], self.maps.shape[-1]


@dataclass(frozen=True)
class State:
    """poses: (F, 4, 4), world to camera; frames: (F, 4): log scale and shift of the depth, gain and offset of the grey.

    focal: (), in widths of the picture; shifts are in units of `unit`, the median of the first frame's given depth.
    inverse: whether what is given is 1 / depth.
    """

    poses: Tensor
    frames: Tensor
    focal: Tensor
    unit: float
    inverse: bool = False

    def depths(self, given: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """Given depths of frames, (f, ...), in the units of the poses; not above 0 where they are beyond measure."""
        scale, shift = (self.frames[which, k].view(-1, *[1] * (given.ndim - 1)) for k in (0, 1))
        value = scale.exp() * given + shift * self.unit
        return torch.where(value > 1e-3 * self.unit, 1 / value, -1) if self.inverse else value


def pyramid(pictures: Tensor, depths: Tensor, valid: Tensor, smallest: int = 12) -> list[Level]:
    """The clip (F, H, W, 3) with depths and their validity, (F, H, W), from coarse to fine, each twice as large.

    A pixel of a coarse level is valid where more than SOLID of what is usual in its frame is: depth may be sparse.
    """
    grey = (pictures * pictures.new_tensor([0.299, 0.587, 0.114])).sum(-1)[:, None]
    depth, mask = (depths * valid)[:, None], valid[:, None].to(grey)
    usual = mask.mean((1, 2, 3), keepdim=True)
    levels = []
    while True:
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        dx, dy = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        solid = (mask > SOLID * usual).to(grey)
        levels.append(Level(torch.cat([grey, dx, dy, depth / mask.clamp(min=1e-6), solid], 1)))
        if min(grey.shape[-2:]) < 2 * smallest:
            return levels[::-1]
        grey, depth, mask = (F.avg_pool2d(t, 2) for t in (grey, depth, mask))


class Seen(NamedTuple):
    """What P pairs of frames show at N pixels. here, there: (P, 5, N), maps of the first frame, and of the second where it sees the same;
    rays: (N, 3), of the first frame; points, moved: (P, N, 3), in the frames of both cameras; depth, other: (P, N), of the moved points,
    and what the second frame gives for it; turn: (P, 3, 3), between the cameras; focal: (), in pixels."""

    here: Tensor
    there: Tensor
    rays: Tensor
    points: Tensor
    moved: Tensor
    depth: Tensor
    other: Tensor
    turn: Tensor
    focal: Tensor


def residuals(level: Level, state: State, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor, Seen]:
    """Of P pairs at N pixels: whether seen (P, N), both residuals (P, N), and what their derivatives need."""
    i, j = pairs.unbind(1)
    height, width = level.size
    focal = state.focal * width
    y, x = torch.meshgrid(*(torch.arange(n, device=pairs.device) + 0.5 for n in level.size), indexing="ij")
    rays = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1).view(-1, 3)
    here = level.maps[i].flatten(2)  # (P, 5, N)
    z = state.depths(here[:, 3], i)
    points = z[..., None] * rays
    between = state.poses[j] @ cameras.inverse(state.poses[i])
    turn, shift = between[:, :3, :3], between[:, :3, 3]
    moved = points @ turn.mT + shift[:, None]
    depth = moved[..., 2]
    front = (depth > 0.05 * z) & (z > 0) & (here[:, 4] > 0)
    safe = torch.where(front, depth, 1)
    u, v = focal * moved[..., 0] / safe + width / 2, focal * moved[..., 1] / safe + height / 2
    place = torch.stack([2 * u / width - 1, 2 * v / height - 1], -1)
    there = F.grid_sample(level.maps[j], place.view(-1, height, width, 2), align_corners=False).flatten(2)
    there[:, 3] /= there[:, 4].clamp(min=1e-6)  # of what is valid around
    inside = (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    other = state.depths(there[:, 3], j)
    seen = front & inside & (there[:, 4] > KNOWN_AROUND) & (other > 0)
    gain, offset = state.frames[:, 2], state.frames[:, 3]
    picture = ((1 + gain[j])[:, None] * there[:, 0] + offset[j][:, None]) - ((1 + gain[i])[:, None] * here[:, 0] + offset[i][:, None])
    other = torch.where(seen, other, 1)
    return seen, picture, torch.log(safe / other), Seen(here, there, rays, points, moved, safe, other, turn, focal)


def picture_noise(state: State, pairs: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """That of the residual over that of a grey, (P, 1), and its derivatives: gains make it larger with the picture."""
    level = 1 + state.frames[pairs, 2].mean(1)[:, None]
    half = torch.full_like(level, 0.5)
    return level, {GAIN: half, PER_FRAME + GAIN: half}


def depth_noise(state: State, pairs: Tensor, both: Seen) -> tuple[Tensor, dict[int, Tensor]]:
    """That of the residual over that of a given depth, (P, N), and its derivatives: a shift adds none to what was given."""
    parts, derivatives = [], {}
    for side, (given, z) in enumerate(((both.here[:, 3], both.points[..., 2]), (both.there[:, 3], both.other))):
        value = (1 / z if state.inverse else z).clamp(min=1e-6)
        part = (state.frames[pairs[:, side], 0].exp()[:, None] * given / value).clamp(1 / SHARPEST, SHARPEST)
        loose = (part > 1 / SHARPEST) & (part < SHARPEST)
        parts.append(part)
        derivatives[side * PER_FRAME + SCALE] = loose * part.square() * (1 - part) / 2
        derivatives[side * PER_FRAME + SHIFT] = loose * part.square() * (-0.5 * state.unit / value)
    noise = (torch.stack(parts).square().mean(0)).sqrt()
    return noise, {k: each / noise for k, each in derivatives.items()}


def by_picture(state: State, pairs: Tensor, both: Seen) -> Tensor:
    """Derivatives of the picture's residual: (P, N, BOTH)."""
    gain = (1 + state.frames[pairs[:, 1], 2])[:, None]
    dx, dy = gain * both.there[:, 1] * both.focal, gain * both.there[:, 2] * both.focal
    x, y = both.moved[..., 0] / both.depth, both.moved[..., 1] / both.depth
    by_moved = torch.stack([dx, dy, -(dx * x + dy * y)], -1) / both.depth[..., None]
    direct = dx * x + dy * y  # by the logarithm of the focal length, at the second camera
    one = torch.ones_like(x)
    return _chain(state, pairs, both, by_moved, direct, {
        GAIN: -both.here[:, 0], OFFSET: -one, PER_FRAME + GAIN: both.there[:, 0], PER_FRAME + OFFSET: one,
    })  # fmt: skip


def by_depth(state: State, pairs: Tensor, both: Seen) -> Tensor:
    """Derivatives of the depth's residual: (P, N, BOTH)."""
    zero = torch.zeros_like(both.depth)
    by_moved = torch.stack([zero, zero, 1 / both.depth], -1)
    by_scale, by_shift = _depth_slopes(state, pairs[:, 1], both.there[:, 3], both.other)
    return _chain(state, pairs, both, by_moved, zero, {
        PER_FRAME + SCALE: -by_scale / both.other, PER_FRAME + SHIFT: -by_shift / both.other,
    })  # fmt: skip


def _depth_slopes(state: State, frames: Tensor, given: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of depths (P, N) of frames (P,) by the log scale and the shift."""
    outer = -depth.square() if state.inverse else torch.ones_like(depth)
    return outer * state.frames[frames, 0].exp()[:, None] * given, outer * state.unit


def _chain(state: State, pairs: Tensor, both: Seen, by_moved: Tensor, direct: Tensor, others: dict[int, Tensor]) -> Tensor:
    """From derivatives by the moved point, (P, N, 3), to those by all parameters of two frames and the focal length."""
    by_point = by_moved @ both.turn
    by_depth = (by_point * both.rays).sum(-1)
    by_scale, by_shift = _depth_slopes(state, pairs[:, 0], both.here[:, 3], both.points[..., 2])
    whole = by_moved.new_zeros(*by_moved.shape[:2], BOTH)
    whole[..., 0:3], whole[..., 3:6] = -by_point, -torch.linalg.cross(both.points, by_point)
    whole[..., SCALE], whole[..., SHIFT] = by_depth * by_scale, by_depth * by_shift
    whole[..., PER_FRAME : PER_FRAME + 3], whole[..., PER_FRAME + 3 : PER_FRAME + 6] = by_moved, torch.linalg.cross(both.moved, by_moved)
    whole[..., -1] = direct - (by_point[..., :2] * both.points[..., :2]).sum(-1)
    for k, value in others.items():
        whole[..., k] = value
    return whole
