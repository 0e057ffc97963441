"""Depth from a moving camera, for clips that come without any: a plane sweep between frames, and cameras found by turns with it.

The first frames are tried with a camera that moves along each axis; turned so that a flat scene fits best, swept, adjusted, and swept
again, that one is kept whose frames agree best. Every further frame is placed by the depth of the one before it, and swept in its turn
(plane sweep: Collins 1996; cameras from small motion and unknown depth: Yu and Gallup 2014). Depth of any network is better.
"""
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import cameras
from ..cameras import CameraPath
from .bundle import GAIN, OFFSET, POSE, State, adjust, agreement, pyramid, start
from .tracking import between, together

FIRST = 5  # frames that are tried along each axis
STEP = 0.04  # of the camera in them, in depths of the scene
PLANES = 48
FIRST_RANGE = (0.05, 5.0)  # of nearness, where the scene's is 1
APART = (1, 2, 4)  # frames that are swept against each other
WINDOW = 2  # pixels around one that are compared with it
SURE = 0.1  # by how much the best plane has to be better than any that is not next to it
LARGEST, TRIED_SIDE = 128, 64  # side of the frames that are swept, and of those that are tried
BEFORE, TOGETHER = 5, 3  # frames that a new one is placed with, and that are adjusted with it
TURNS, TRIED = 3, 10  # how often sweeps and adjustments take turns, and steps of an adjustment
TURN, LIGHT = (3, 4, 5, GAIN, OFFSET), (*range(POSE.stop), GAIN, OFFSET)
AXES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Swept:
    """The first frames of a clip: their cameras, and 1 / depth (f, h, w) where it is valid."""

    state: State
    near: Tensor
    valid: Tensor


def nearness(
    pictures: Tensor, focal: float, path: CameraPath | None = None, progress: Progress = lambda share: None
) -> tuple[Tensor, Tensor]:
    """1 / depth (F, H, W) of the frames (F, H, W, 3) of a clip, and where it is valid; in an unknown unit, or in that of known cameras.

    focal: in widths of the picture.
    """
    count, height, width = pictures.shape[:3]
    small = _at_most(pictures, LARGEST)
    patterns = pattern(small)
    if path is None:
        found = _swept(patterns[:FIRST], _first(_at_most(small, TRIED_SIDE), focal, progress), FIRST_RANGE)
    else:
        found = _seen(small, patterns, focal, path)
    while len(found.near) < count:
        found = _next(small, patterns, found)
        progress(0.3 + 0.5 * len(found.near) / count)
    for turn in range(TURNS):
        if path is None:
            state = together(pyramid(small, found.near, found.valid)[-2:], found.state, may=LIGHT)
            found = replace(found, state=state)
        found = _swept(patterns, found.state, _range(found))
        progress(0.8 + 0.2 * (turn + 1) / TURNS)
    both = F.interpolate(torch.stack([found.near, found.valid.to(found.near)], 1), (height, width), mode="nearest")
    return both[:, 0], both[:, 1] > 0


def _at_most(pictures: Tensor, side: int) -> Tensor:
    """Pictures (F, H, W, 3), halved until no side is longer."""
    while max(pictures.shape[1:3]) > side:
        pictures = F.avg_pool2d(pictures.movedim(-1, 1), 2, ceil_mode=True).movedim(1, -1)
    return pictures


def _seen(small: Tensor, patterns: Tensor, focal: float, path: CameraPath) -> Swept:
    """All frames, by known cameras."""
    flat = torch.ones_like(small[..., 0])
    travel = float((path.positions[1:] - path.positions[:-1]).norm(dim=1).mean())
    state = replace(start(len(small), focal, flat, flat > 0, inverse=True), poses=path.poses)
    return _swept(patterns, state, (FIRST_RANGE[0] * STEP / travel, FIRST_RANGE[1] * STEP / travel))


def pattern(pictures: Tensor, radius: int = 3) -> Tensor:
    """(F, H, W, 3) to (F, 1, H, W): grey without the mean and the contrast of what is around."""
    grey = pictures.mean(-1)[:, None]
    around = F.pad(torch.cat([grey, grey.square()], 1), (radius,) * 4, mode="replicate")
    mean, square = F.avg_pool2d(around, 2 * radius + 1, 1).split(1, 1)
    return (grey - mean) / ((square - mean.square()).clamp(min=0).sqrt() + 0.02)


def sweep(patterns: Tensor, poses: Tensor, focal: float, frame: int, span: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """1 / depth (h, w) of one frame, of PLANES values over `span`, where its pattern is like those of the frames around; and how sure."""
    height, width = patterns.shape[-2:]
    length = focal * width
    y, x = torch.meshgrid(*(torch.arange(n, device=poses.device) + 0.5 for n in (height, width)), indexing="ij")
    rays = torch.stack([(x - width / 2) / length, (y - height / 2) / length, torch.ones_like(x)], -1)
    planes = torch.linspace(*span, PLANES, device=poses.device)
    others = [frame + sign * gap for gap in APART for sign in (1, -1) if 0 <= frame + sign * gap < len(poses)]
    costs = []
    for other in others:
        between = poses[other] @ cameras.inverse(poses[frame])
        seen = rays @ between[:3, :3].mT + between[:3, 3] * planes[:, None, None, None]
        depth = seen[..., 2].clamp(min=1e-3)
        place = torch.stack([2 * length * seen[..., 0] / depth / width, 2 * length * seen[..., 1] / depth / height], -1)
        there = F.grid_sample(patterns[other].expand(PLANES, -1, -1, -1), place, align_corners=False)[:, 0]
        outside = (place.abs().amax(-1) > 1) | (seen[..., 2] < 1e-3)
        costs.append((there - patterns[frame]).abs().clamp(max=2).masked_fill(outside, 3))
    cost = torch.stack(costs).sort(0).values[: (len(costs) + 1) // 2].mean(0)  # what is hidden in some frames is seen in others
    cost = F.avg_pool2d(F.pad(cost[:, None], (WINDOW,) * 4, mode="replicate"), 2 * WINDOW + 1, 1)[:, 0]
    best, found = cost.min(0)
    at = found.clamp(1, PLANES - 2)
    low, middle, high = (cost.gather(0, (at + offset)[None])[0] for offset in (-1, 0, 1))
    part = ((low - high) / (2 * (low - 2 * middle + high)).clamp(min=1e-6)).clamp(-0.5, 0.5)
    apart = (torch.arange(PLANES, device=at.device)[:, None, None] - at).abs() > 2
    sure = 1 - best / cost.where(apart, torch.inf).amin(0).clamp(min=1e-6)
    return planes[0] + (at + part) * (planes[1] - planes[0]), torch.where(found == at, sure, 0)  # at an end, it may lie beyond


def _swept(patterns: Tensor, state: State, span: tuple[float, float]) -> Swept:
    found = [sweep(patterns, state.poses, float(state.focal), frame, span) for frame in range(len(state.poses))]
    near, sure = (torch.stack(part) for part in zip(*found, strict=True))
    return Swept(state, near, sure > SURE)


def _range(found: Swept) -> tuple[float, float]:
    sure = found.near[found.valid]
    if len(sure) == 0:
        return FIRST_RANGE
    low, high = sure[:: len(sure) // 10**6 + 1].quantile(sure.new_tensor([0.02, 0.98])).tolist()
    return 0.7 * low, 1.4 * high


def _first(pictures: Tensor, focal: float, progress: Progress) -> State:
    """The first frames, with a camera that moves along the axis along which they agree best."""
    some = pictures[:FIRST]
    count, patterns = len(some), pattern(some)
    flat = torch.ones_like(some[..., 0])
    levels, pairs = pyramid(some, flat, flat > 0), between(range(count), (1, 2, 3))
    tried = []
    for number, axis in enumerate(AXES):
        poses = torch.eye(4).to(some).repeat(count, 1, 1)
        poses[:, :3, 3] = -STEP * torch.arange(count).to(some)[:, None] * some.new_tensor(axis)
        state = replace(start(count, focal, flat, flat > 0, inverse=True), poses=poses)
        for level in levels[:-1] or levels:
            state, _ = adjust(level, state, pairs, range(count), TRIED, may=TURN)
        found = _swept(patterns, state, FIRST_RANGE)
        for _ in range(TURNS):
            seen = pyramid(some, found.near, found.valid)
            for level in seen[-2:]:
                state, _ = adjust(level, state, pairs, range(count), TRIED, may=LIGHT)
            found = _swept(patterns, state, FIRST_RANGE)
        finest = pyramid(some, found.near, found.valid)[-1]
        tried.append((float(agreement(finest, state, pairs).mean()), state))
        progress(0.3 * (number + 1) / len(AXES))
    return max(tried, key=lambda each: each[0])[1]


def _next(small: Tensor, patterns: Tensor, found: Swept) -> Swept:
    """With one frame more: by the depth of the last one, from where the camera would be if it moved on as before, or from where it was."""
    frame = len(found.near)
    first, here = max(0, frame - BEFORE), min(frame, BEFORE)
    poses, frames = found.state.poses[first:], found.state.frames[first:]
    pairs = [pair for back in APART if back <= here for pair in ((here, here - back), (here - back, here))]
    tried = []
    for guess in (poses[-1] @ cameras.inverse(poses[-2]) @ poses[-1], poses[-1]):
        near, valid = _warped(found, guess @ cameras.inverse(poses[-1]))
        near, valid = torch.cat([found.near[first:], near[None]]), torch.cat([found.valid[first:], valid[None]])
        state = replace(found.state, poses=torch.cat([poses, guess[None]]), frames=torch.cat([frames, frames[-1:]]))
        cost = 0.0
        for level in pyramid(small[first : frame + 1], near, valid):
            state, cost = adjust(level, state, pairs, [here], TRIED, may=LIGHT)
        tried.append((cost, state, near, valid))
    _, state, near, valid = min(tried, key=lambda each: each[0])
    window = range(max(1, here + 1 - TOGETHER), here + 1)
    for _ in range(2):
        for each in window:
            near[each], sure = sweep(patterns[first : frame + 1], state.poses, float(state.focal), each, _range(found))
            valid[each] = sure > SURE
        level = pyramid(small[first : frame + 1], near, valid)[-1]
        state, _ = adjust(level, state, between(range(here + 1), APART), window, TRIED, may=LIGHT)
    every = replace(
        state, poses=torch.cat([found.state.poses[:first], state.poses]), frames=torch.cat([found.state.frames[:first], state.frames])
    )
    return Swept(every, torch.cat([found.near[:first], near]), torch.cat([found.valid[:first], valid]))


def _warped(found: Swept, between: Tensor) -> tuple[Tensor, Tensor]:
    """Nearness of the last frame as the next one sees it, and where anything is seen: (h, w)."""
    near, valid = found.near[-1], found.valid[-1]
    height, width = near.shape
    length = found.state.focal * width
    y, x = (part + 0.5 for part in valid.nonzero().unbind(1))
    rays = torch.stack([(x - width / 2) / length, (y - height / 2) / length, torch.ones_like(x)], -1)
    seen = rays @ between[:3, :3].mT + between[:3, 3] * near[valid][:, None]
    column, row = (length * seen[:, :2] / seen[:, 2:].clamp(min=1e-3) + length.new_tensor([width / 2, height / 2])).long().unbind(1)
    inside = (seen[:, 2] > 1e-3) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = torch.zeros_like(near).flatten()
    place = (row * width + column)[inside]
    there.scatter_reduce_(0, place, (near[valid] / seen[:, 2])[inside], "amax")
    return there.view(height, width), there.view(height, width) > 0
