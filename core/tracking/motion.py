"""Depth from a moving camera, for clips that come without any: a plane sweep between frames, and cameras found by turns with it.

The first frames start from a camera that goes one way and turns as the points that are found again say (flow.py); they are swept
and adjusted by turns (patches.py). Every further frame is placed by the points of the one before it, whose depth is known, and swept
in its turn (plane sweep: Collins 1996; cameras from small motion and unknown depth: Yu and Gallup 2014). Depth of a network is quicker.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from ..geometry.cameras import CameraPath
from . import flow
from .bundle import adjust, start
from .patches import adjust_with_depth
from .plane_sweep import pattern, sweep
from .residuals import GAIN, OFFSET, POSE, State, pyramid
from .tracking import between

FIRST, EVERY = 5, 3  # frames that are placed together at first, and of their points, one that counts
STEP = 0.04  # of a camera that is known, in depths of the scene, about which is looked for it
FIRST_RANGE = (0.05, 5.0)  # of nearness, where the scene's is 1
TRAVEL = 2.0  # pixels by which points move from one key frame to the next
APART = (1, 2, 4)  # key frames that are swept against each other
AROUND, ASIDE = 2, 0.3  # key frames on either side of another frame that it is swept against, if they are so many of their strides away
SURE = 0.1  # by how much the best plane has to be better than any that is not next to it
LARGEST = 128  # side of the frames that are swept
BEFORE, TOGETHER = 5, 3  # frames that a new one is placed with, and that are adjusted with it
GUESSES = 3  # at the motion of the first frames
TURNS, TRIED = 3, 15  # how often sweeps and adjustments take turns, and steps of an adjustment
FINEST = (-2, -1)  # sizes of the pictures that are adjusted one after the other
MOVE = (*range(POSE.stop), GAIN, OFFSET)  # of a frame's parameters: its depth is swept, so it has no scale of its own
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
    height, width = pictures.shape[1:3]
    small = _at_most(pictures, LARGEST)
    patterns = pattern(small)
    keys = _keys(patterns)
    progress(0.1)
    some, of_keys = small[keys], patterns[keys]
    found = _first(some, of_keys, focal) if path is None else _seen(of_keys, focal, path.poses[keys])
    while len(found.near) < len(keys):
        found = _next(some, of_keys, found)
        progress(0.2 + 0.4 * len(found.near) / len(keys))
    for turn in range(TURNS):
        if path is None:
            found, _ = _adjusted(some, of_keys, found)
        else:
            found = _swept(of_keys, found.state, _range(found))
        progress(0.6 + 0.2 * (turn + 1) / TURNS)
    near, valid = _between(patterns, keys, found, path, lambda share: progress(0.8 + 0.2 * share))
    both = F.interpolate(torch.stack([near, valid.to(near)], 1), (height, width), mode="nearest")
    progress(1.0)
    return both[:, 0], both[:, 1] > 0


def _keys(patterns: Tensor) -> list[int]:
    """Frames between which points move by about TRAVEL pixels, from the first on; by less where the whole way is short."""
    coarse, way = F.avg_pool2d(patterns, 2), [0.0]
    for frame in range(1, len(patterns)):
        there, sure = flow.matches(coarse[frame - 1], coarse[frame])
        moved = 2 * (there - flow.pixels(there)).norm(dim=-1)[sure]
        way.append(way[-1] + (float(moved.median()) if len(moved) else TRAVEL))
    step, keys = min(TRAVEL, way[-1] / FIRST), [0]
    for frame in range(1, len(patterns)):
        if way[frame] - way[keys[-1]] >= step:
            keys.append(frame)
    return keys


def _at_most(pictures: Tensor, side: int) -> Tensor:
    """Pictures (F, H, W, 3), halved until no side is longer."""
    while max(pictures.shape[1:3]) > side:
        pictures = F.avg_pool2d(pictures.movedim(-1, 1), 2, ceil_mode=True).movedim(1, -1)
    return pictures


def _seen(patterns: Tensor, focal: float, poses: Tensor) -> Swept:
    """All frames, by known cameras."""
    flat = torch.ones_like(patterns[:, 0])
    travel = float(cameras.inverse(poses)[:, :3, 3].diff(dim=0).norm(dim=1).mean())
    state = replace(start(len(poses), focal, flat, flat > 0, inverse=True), poses=poses)
    return _swept(patterns, state, (FIRST_RANGE[0] * STEP / travel, FIRST_RANGE[1] * STEP / travel))


def _swept(patterns: Tensor, state: State, span: tuple[float, float]) -> Swept:
    focal, count = float(state.focal), len(state.poses)
    found = [sweep(patterns, state.poses, focal, frame, _around(frame, count), span) for frame in range(count)]
    near, sure = (torch.stack(part) for part in zip(*found, strict=True))
    return Swept(state, near, sure > SURE)


def _around(frame: int, count: int) -> list[int]:
    return [frame + sign * gap for gap in APART for sign in (1, -1) if 0 <= frame + sign * gap < count]


def _range(found: Swept) -> tuple[float, float]:
    sure = found.near[found.valid]
    if len(sure) == 0:
        return FIRST_RANGE
    low, high = sure[:: len(sure) // 10**6 + 1].quantile(sure.new_tensor([0.02, 0.98])).tolist()
    return 0.7 * low, 1.4 * high


def _first(small: Tensor, patterns: Tensor, focal: float) -> Swept:
    """The first frames, with a camera that moves on in one direction: of a few guesses, the one that makes them most alike."""
    small, patterns = small[:FIRST], patterns[:FIRST]
    count = len(small)
    matched = [_matched(patterns, focal, a, a + gap) for gap in (1, 2) for a in range(count - gap)]
    here, there, sure = (torch.stack(part)[:, ::EVERY] for part in zip(*matched, strict=True))
    flat = torch.ones_like(small[..., 0])
    rest = start(count, focal, flat, flat > 0, inverse=True)
    found = []
    for moves in flow.headings(here, there, sure, flow.BESIDE / (focal * small.shape[2]), GUESSES):
        poses = [rest.poses[0]]
        for move in moves[: count - 1]:
            poses.append(move @ poses[-1])
        swept = _swept(patterns, replace(rest, poses=torch.stack(poses)), FIRST_RANGE)
        found.append(_adjusted(small, patterns, swept))
    best, _ = min(found, key=lambda each: each[1])
    for _ in range(TURNS - 1):
        best, _ = _adjusted(small, patterns, best)
    return best


def _adjusted(small: Tensor, patterns: Tensor, found: Swept) -> tuple[Swept, float]:
    """Cameras and depth adjusted together, and swept again; and a cost."""
    state, near, cost, pairs = found.state, found.near, 0.0, between(range(len(small)), APART)
    for size in FINEST:
        level = pyramid(small, near, found.valid)[size]
        state, factor, cost = adjust_with_depth(level, state, pairs, TRIED)
        near = near * F.interpolate(factor[:, None], near.shape[1:], mode="bilinear")[:, 0]
    return _swept(patterns, state, _range(replace(found, near=near))), cost


def _matched(patterns: Tensor, focal: float, a: int, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of frame a and where they are in frame b, (N, 2), in focal lengths from the middle, and which are certain."""
    there, sure = flow.matches(patterns[a], patterns[b])
    height, width = sure.shape
    middle = there.new_tensor([width / 2, height / 2])
    here, there = ((flat.flatten(0, 1) - middle) / (focal * width) for flat in (flow.pixels(there), there))
    return here, there, sure.flatten()


def _next(small: Tensor, patterns: Tensor, found: Swept) -> Swept:
    """With one frame more, placed by the points of the last one whose depth is known; then swept and adjusted."""
    frame, focal = len(found.near), float(found.state.focal)
    first, here = max(0, frame - BEFORE), min(frame, BEFORE)
    move = _moved(patterns, focal, frame - 1, frame, found.near[-1], found.valid[-1])
    poses = torch.cat([found.state.poses, (move @ found.state.poses[-1])[None]])
    frames = torch.cat([found.state.frames, found.state.frames[-1:]])
    state = replace(found.state, poses=poses[first:], frames=frames[first:])
    near, valid = (torch.cat([each[first:], each[-1:]]) for each in (found.near, found.valid))
    some, patterns, span = small[first : frame + 1], patterns[first : frame + 1], _range(found)
    for window in ([here], range(max(1, here + 1 - TOGETHER), here + 1)):
        for each in window:
            near[each], sure = sweep(patterns, state.poses, focal, each, _around(each, here + 1), span)
            valid[each] = sure > SURE
        level = pyramid(some, near, valid)[-1]
        state, _ = adjust(level, state, between(range(here + 1), APART), window, TRIED, may=MOVE)
    every = replace(state, poses=torch.cat([poses[:first], state.poses]), frames=torch.cat([frames[:first], state.frames]))
    return Swept(every, torch.cat([found.near[:first], near]), torch.cat([found.valid[:first], valid]))


def _moved(patterns: Tensor, focal: float, a: int, b: int, near: Tensor, valid: Tensor) -> Tensor:
    """The pose (4, 4) from frame a to frame b, by the points of a whose 1 / depth (h, w) is valid."""
    here, there, sure = _matched(patterns, focal, a, b)
    return flow.step(here, there, near.flatten(), sure & valid.flatten(), flow.BESIDE / (focal * near.shape[1]))


def _between(patterns: Tensor, keys: list[int], found: Swept, path: CameraPath | None, progress: Progress) -> tuple[Tensor, Tensor]:
    """Of all frames, 1 / depth (F, h, w) and where it is valid: those after a key frame are placed by it, and swept against some around."""
    focal, span = float(found.state.focal), _range(found)
    stride = cameras.inverse(found.state.poses)[:, :3, 3].diff(dim=0).norm(dim=1).median()
    near, valid = (each.new_zeros(len(patterns), *each.shape[1:]) for each in (found.near, found.valid))
    poses = found.state.poses.new_zeros(len(patterns), 4, 4)
    near[keys], valid[keys], poses[keys] = found.near, found.valid, found.state.poses
    for place, (first, last) in enumerate(pairwise([*keys, len(patterns)])):
        around = keys[max(0, place - AROUND + 1) : place + AROUND + 1]
        for frame in range(first + 1, last):
            moved = _moved(patterns, focal, first, frame, near[first], valid[first]) @ poses[first] if path is None else path.poses[frame]
            poses[frame] = moved
            there = cameras.inverse(poses[[frame, *around]])[:, :3, 3]
            apart = (there[1:] - there[0]).norm(dim=1)
            others = [key for key, far in zip(around, apart, strict=True) if far > ASIDE * stride] or around
            near[frame], sure = sweep(patterns, poses, focal, frame, others, span)
            valid[frame] = sure > SURE
        progress(last / len(patterns))
    return near, valid
