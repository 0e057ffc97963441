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
from .bundle import adjust
from .patches import adjust_with_depth
from .plane_sweep import pattern, sweep
from .pyramid import pyramid
from .state import GAIN, OFFSET, POSE, State, at_rest
from .tracking import between

LARGEST_SIDE = 128  # pixels: larger frames are halved until they fit, then swept
FLOW = 2.0  # pixels by which points move from one keyframe to the next, in the median
FIRST_FRAMES = 5  # keyframes that are placed together at first
EVERY = 3  # of their points, one of so many counts
GUESSES = 3  # motions of the first frames that are tried
STEP = 0.04  # of a known camera between keyframes, in depths of the scene: where to look for the scene, before anything is known of it
FIRST_RANGE = (0.05, 5.0)  # of 1 / depth that is swept at first, about 1 / (the scene's depth)
RANGE_QUANTILES, RANGE_MARGINS = (0.02, 0.98), (0.7, 1.4)  # of the 1 / depth found, times which is swept the next time
GAPS = (1, 2, 4)  # keyframes between those that are swept against each other, and compared
AROUND = 2  # keyframes on either side of another frame, that this is swept against
LEAST_BASELINE = 0.3  # of the median distance between keyframes: nearer ones tell too little of a frame's depth
LEAST_CERTAINTY = 0.1  # of a depth that counts: 1 - the cost of the best plane / that of the best which is not next to it
PLACED_WITH, ADJUSTED_WITH = 5, 3  # keyframes before a new one that it is compared with, and those that are adjusted again, it included
ROUNDS, STEPS = 3, 10  # how often sweeps and adjustments take turns, and steps of an adjustment at most
LEVELS = (-2, -1)  # of the pyramid, that are adjusted one after the other
PARAMETERS = (*range(POSE.stop), GAIN, OFFSET)  # of a frame: its depth is swept with its camera, so it has no scale of its own
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
    small = _at_most(pictures, LARGEST_SIDE)
    patterns = pattern(small)
    keys = _keys(patterns)
    progress(0.1)
    some, of_keys = small[keys], patterns[keys]
    swept = _first(some, of_keys, focal) if path is None else _of_known_cameras(of_keys, focal, path.poses[keys])
    while len(swept.near) < len(keys):
        swept = _next(some, of_keys, swept)
        progress(0.2 + 0.4 * len(swept.near) / len(keys))
    for turn in range(ROUNDS):
        if path is None:
            swept, _ = _adjusted(some, of_keys, swept)
        else:
            swept = _sweep_all(of_keys, swept.state, _range(swept))
        progress(0.6 + 0.2 * (turn + 1) / ROUNDS)
    near, valid = _between(patterns, keys, swept, path, lambda share: progress(0.8 + 0.2 * share))
    both = F.interpolate(torch.stack([near, valid.to(near)], 1), (height, width), mode="nearest")
    progress(1.0)
    return both[:, 0], both[:, 1] > 0


def _keys(patterns: Tensor) -> list[int]:
    """Frames between which points move by about FLOW pixels, from the first on; by less where the whole path is short."""
    coarse, travelled = F.avg_pool2d(patterns, 2), [0.0]
    for frame in range(1, len(patterns)):
        there, sure = flow.matches(coarse[frame - 1], coarse[frame])
        lengths = 2 * (there - flow.pixels(there)).norm(dim=-1)[sure]
        travelled.append(travelled[-1] + (float(lengths.median()) if len(lengths) else FLOW))
    step, keys = min(FLOW, travelled[-1] / FIRST_FRAMES), [0]
    for frame in range(1, len(patterns)):
        if travelled[frame] - travelled[keys[-1]] >= step:
            keys.append(frame)
    return keys


def _at_most(pictures: Tensor, side: int) -> Tensor:
    """Pictures (F, H, W, 3), halved until no side is longer."""
    while max(pictures.shape[1:3]) > side:
        pictures = F.avg_pool2d(pictures.movedim(-1, 1), 2, ceil_mode=True).movedim(1, -1)
    return pictures


def _of_known_cameras(patterns: Tensor, focal: float, poses: Tensor) -> Swept:
    """All frames, by known cameras."""
    flat = torch.ones_like(patterns[:, 0])
    travel = float(cameras.inverse(poses)[:, :3, 3].diff(dim=0).norm(dim=1).mean())
    state = replace(at_rest(focal, flat, flat > 0, inverse=True), poses=poses)
    return _sweep_all(patterns, state, (FIRST_RANGE[0] * STEP / travel, FIRST_RANGE[1] * STEP / travel))


def _sweep_all(patterns: Tensor, state: State, span: tuple[float, float]) -> Swept:
    focal, count = float(state.focal), len(state.poses)
    depths = [sweep(patterns, state.poses, focal, frame, _around(frame, count), span) for frame in range(count)]
    near, sure = (torch.stack(part) for part in zip(*depths, strict=True))
    return Swept(state, near, sure > LEAST_CERTAINTY)


def _around(frame: int, count: int) -> list[int]:
    return [frame + sign * gap for gap in GAPS for sign in (1, -1) if 0 <= frame + sign * gap < count]


def _range(swept: Swept) -> tuple[float, float]:
    """Of 1 / depth that is worth sweeping next."""
    sure = swept.near[swept.valid]
    if len(sure) == 0:
        return FIRST_RANGE
    low, high = sure[:: len(sure) // 10**6 + 1].quantile(sure.new_tensor(RANGE_QUANTILES)).tolist()
    return RANGE_MARGINS[0] * low, RANGE_MARGINS[1] * high


def _first(small: Tensor, patterns: Tensor, focal: float) -> Swept:
    """The first frames, with a camera that moves on in one direction: of a few guesses, the one that makes them most alike."""
    small, patterns = small[:FIRST_FRAMES], patterns[:FIRST_FRAMES]
    count = len(small)
    matched = [_matched(patterns, focal, a, a + gap) for gap in (1, 2) for a in range(count - gap)]
    here, there, sure = (torch.stack(part)[:, ::EVERY] for part in zip(*matched, strict=True))
    flat = torch.ones_like(small[..., 0])
    rest = at_rest(focal, flat, flat > 0, inverse=True)
    tried = []
    for moves in flow.headings(here, there, sure, flow.EPIPOLAR_NOISE / (focal * small.shape[2]), GUESSES):
        poses = [rest.poses[0]]
        for move in moves[: count - 1]:
            poses.append(move @ poses[-1])
        swept = _sweep_all(patterns, replace(rest, poses=torch.stack(poses)), FIRST_RANGE)
        tried.append(_adjusted(small, patterns, swept))
    best, _ = min(tried, key=lambda each: each[1])
    for _ in range(ROUNDS - 1):
        best, _ = _adjusted(small, patterns, best)
    return best


def _adjusted(small: Tensor, patterns: Tensor, swept: Swept) -> tuple[Swept, float]:
    """Cameras and depth adjusted together, and swept again; and a cost."""
    state, near, cost, pairs = swept.state, swept.near, 0.0, between(range(len(small)), GAPS)
    for size in LEVELS:
        level = pyramid(small, near, swept.valid)[size]
        state, factor, cost = adjust_with_depth(level, state, pairs, STEPS)
        near = near * F.interpolate(factor[:, None], near.shape[1:], mode="bilinear")[:, 0]
    return _sweep_all(patterns, state, _range(replace(swept, near=near))), cost


def _matched(patterns: Tensor, focal: float, a: int, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of frame a and where they are in frame b, (N, 2), in focal lengths from the middle, and which are certain."""
    there, sure = flow.matches(patterns[a], patterns[b])
    height, width = sure.shape
    middle = there.new_tensor([width / 2, height / 2])
    here, there = ((flat.flatten(0, 1) - middle) / (focal * width) for flat in (flow.pixels(there), there))
    return here, there, sure.flatten()


def _next(small: Tensor, patterns: Tensor, swept: Swept) -> Swept:
    """With one frame more, placed by the points of the last one whose depth is known; then swept and adjusted."""
    frame, focal = len(swept.near), float(swept.state.focal)
    first, here = max(0, frame - PLACED_WITH), min(frame, PLACED_WITH)
    relative = _relative_pose(patterns, focal, frame - 1, frame, swept.near[-1], swept.valid[-1])
    every = swept.state.of([*range(frame), frame - 1])
    every.poses[-1] = relative @ every.poses[-1]
    state = every.of(range(first, frame + 1))
    near, valid = (torch.cat([each[first:], each[-1:]]) for each in (swept.near, swept.valid))
    some, patterns, span = small[first : frame + 1], patterns[first : frame + 1], _range(swept)
    for window in ([here], range(max(1, here + 1 - ADJUSTED_WITH), here + 1)):
        for each in window:
            near[each], sure = sweep(patterns, state.poses, focal, each, _around(each, here + 1), span)
            valid[each] = sure > LEAST_CERTAINTY
        level = pyramid(some, near, valid)[-1]
        state, _ = adjust(level, state, between(range(here + 1), GAPS), window, STEPS, parameters=PARAMETERS)
    near, valid = (torch.cat([before[:first], part]) for before, part in ((swept.near, near), (swept.valid, valid)))
    return Swept(every.with_frames(range(first, frame + 1), state), near, valid)


def _relative_pose(patterns: Tensor, focal: float, a: int, b: int, near: Tensor, valid: Tensor) -> Tensor:
    """The pose (4, 4) from frame a to frame b, by the points of a whose 1 / depth (h, w) is valid."""
    here, there, sure = _matched(patterns, focal, a, b)
    return flow.step(here, there, near.flatten(), sure & valid.flatten(), flow.EPIPOLAR_NOISE / (focal * near.shape[1]))


def _between(patterns: Tensor, keys: list[int], swept: Swept, path: CameraPath | None, progress: Progress) -> tuple[Tensor, Tensor]:
    """Of all frames, 1 / depth (F, h, w) and where it is valid: those after a key frame are placed by it, and swept against some around."""
    focal, span = float(swept.state.focal), _range(swept)
    stride = cameras.inverse(swept.state.poses)[:, :3, 3].diff(dim=0).norm(dim=1).median()
    near, valid = (each.new_zeros(len(patterns), *each.shape[1:]) for each in (swept.near, swept.valid))
    poses = swept.state.poses.new_zeros(len(patterns), 4, 4)
    near[keys], valid[keys], poses[keys] = swept.near, swept.valid, swept.state.poses
    for place, (first, last) in enumerate(pairwise([*keys, len(patterns)])):
        around = keys[max(0, place - AROUND + 1) : place + AROUND + 1]
        for frame in range(first + 1, last):
            if path is None:
                poses[frame] = _relative_pose(patterns, focal, first, frame, near[first], valid[first]) @ poses[first]
            else:
                poses[frame] = path.poses[frame]
            positions = cameras.inverse(poses[[frame, *around]])[:, :3, 3]
            baselines = (positions[1:] - positions[0]).norm(dim=1)
            others = [key for key, baseline in zip(around, baselines, strict=True) if baseline > LEAST_BASELINE * stride] or around
            near[frame], sure = sweep(patterns, poses, focal, frame, others, span)
            valid[frame] = sure > LEAST_CERTAINTY
        progress(last / len(patterns))
    return near, valid
