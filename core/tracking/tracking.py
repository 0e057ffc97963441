"""From a clip with monocular depth to the camera of every frame: one frame after the other, then all together (see bundle.py)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from ..geometry.cameras import CameraPath
from .bundle import adjust, agreement, of_frames, set_frame, start, with_frames
from .patches import adjust_with_depth
from .residuals import PER_FRAME, POSE, Level, State, pyramid

STEPS, LOCAL_STEPS, GLOBAL_STEPS = 10, 3, 10
BACK = (1, 2, 4)  # frames before it that a new one is compared with
WINDOW = 5  # frames that are adjusted again with every new one
MOST_KEYFRAMES = 60  # that are adjusted together at the end; the frames of a longer clip then follow them
FINE = 2**15  # pixels of a frame at most where depth is adjusted with cameras
APART = (1, 2, 4, 8, 16, 32)  # of keyframes that are compared at the end
DISTANCES = torch.logspace(0, 3, 13)  # of a scene, in steps of its camera, that are tried where cameras are given
LIGHT = range(POSE.stop, PER_FRAME)  # what is left where cameras are known: scales of depth, exposures
LOST = 0.45  # of a frame's pixels agree with another frame's: less is no evidence
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Tracked:
    """state: cameras, depth scales, exposures; confidence: (F,), the share of pixels that agree with another frame, 0..1."""

    state: State
    levels: list[Level]
    confidence: Tensor
    iterations: int

    @property
    def lost(self) -> list[int]:
        """Frames whose place is not known."""
        return (self.confidence < LOST).nonzero()[:, 0].tolist()

    def path(self, size: tuple[int, int]) -> CameraPath:
        """The cameras of pictures of a size (h, w)."""
        height, width = size
        focal = self.state.focal * width
        return CameraPath(self.state.poses, torch.stack([focal, focal]), focal.new_tensor([width / 2, height / 2]), size)


def track(
    pictures: Tensor, depths: Tensor, valid: Tensor, focal: float, focal_known: bool = True, inverse: bool = False,
    progress: Progress = lambda done, total: None, from_motion: bool = False,
) -> Tracked:  # fmt: skip
    """pictures: (F, H, W, 3) in 0..1; depths: (F, H, W), each frame's right up to a scale and a shift, and where they are valid.

    inverse: depths are 1 / depth, so that near is large. focal: in widths of the picture; a guess within a third of the truth
    where it is not known. The first camera is the world. from_motion: whether depth was found in the same pictures, so that it is as wrong
    as the cameras were, and is adjusted with them.
    """
    levels = pyramid(pictures, depths, valid)
    count, iterations = len(pictures), 0
    state = start(count, focal, depths, valid, inverse)
    for frame in range(1, count):
        pairs = [pair for back in BACK if back <= frame for pair in ((frame, frame - back), (frame - back, frame))]
        state = _place(levels[:-1] or levels, state, frame, pairs)
        window = range(max(1, frame - WINDOW + 1), frame + 1)
        if frame > 1:
            near = between(range(max(0, frame - WINDOW), frame + 1), (1, 2, 4))
            state, _ = adjust(levels[-2 if len(levels) > 1 else 0], state, near, [0, *window], LOCAL_STEPS)
        iterations += STEPS * len(levels) + LOCAL_STEPS
        progress(frame, count)
    levels, state = _together(levels, state, not focal_known, from_motion)
    return _judged(levels, state, iterations + GLOBAL_STEPS * len(levels))


def locate(pictures: Tensor, depths: Tensor, valid: Tensor, path: CameraPath, inverse: bool = False) -> Tracked:
    """As `track`, where the cameras are known: finds scales of depth, in the cameras' own unit, and exposures."""
    count = len(pictures)
    travel = (path.positions[1:] - path.positions[:-1]).norm(dim=1).mean()
    if travel == 0:
        raise ValueError("The cameras stand still, so they do not tell how far anything is.")
    levels, pairs = pyramid(pictures, depths, valid), between(range(count), APART)
    focal, median = float(path.focal[0]) / path.size[1], depths[0][valid[0]].median()
    found, one = [], depths.new_tensor(1.0)
    for distance in DISTANCES.to(travel) * travel:
        unit = (1 / distance if inverse else distance) / median
        state = replace(start(count, focal, depths * unit, valid, inverse), poses=path.poses)
        scaled = [replace(level, maps=level.maps * torch.stack([one, one, one, unit, one])[:, None, None]) for level in levels]
        state, cost = adjust(scaled[0], state, pairs, range(count), LOCAL_STEPS, may=LIGHT)
        found.append((cost, state, scaled))
    _, state, levels = min(found, key=lambda each: each[0])
    for level in levels:
        state, _ = adjust(level, state, pairs, range(count), GLOBAL_STEPS, may=LIGHT)
    return _judged(levels, state, 0)


def _judged(levels: list[Level], state: State, iterations: int) -> Tracked:
    return Tracked(state, levels, agreement(levels[-1], state, between(range(len(state.poses)), (1, 2))), iterations)


def _together(levels: list[Level], state: State, focal: bool, from_motion: bool) -> tuple[list[Level], State]:
    """All frames at once; of a long clip the keyframes at once, then those between each two of them."""
    count, before = len(state.poses), state.poses
    keys = torch.linspace(0, count - 1, min(count, MOST_KEYFRAMES)).round().int().tolist()
    apart = between(range(len(keys)), APART)
    for level in levels:
        state, _ = adjust(level, state, [(keys[a], keys[b]) for a, b in apart], keys, GLOBAL_STEPS, focal)
    if from_motion:
        levels, state = _with_depth(levels, state, keys, apart, focal)
    for first, last in pairwise(keys):
        inner = range(first + 1, last)
        if inner:
            poses = state.poses.clone()
            poses[inner] = before[inner] @ cameras.inverse(before[first]) @ poses[first]
            state = replace(state, poses=poses)
            for level in levels[-2:]:
                state, _ = adjust(level, state, between(range(first, last + 1), (1, 2)), inner, GLOBAL_STEPS)
    return levels, state


def _with_depth(levels: list[Level], state: State, keys: list[int], pairs: list[tuple[int, int]], focal: bool) -> tuple[list[Level], State]:
    """Keyframes once more, with their depth. pairs: of places in `keys`."""
    fine = [level for level in levels if level.size[0] * level.size[1] <= FINE][-1:] or levels[:1]
    part, factors, _ = adjust_with_depth(Level(fine[0].maps[keys]), of_frames(state, keys), pairs, GLOBAL_STEPS, focal)
    changed = []
    for level in levels:
        maps = level.maps.clone()
        maps[keys, 3] *= F.interpolate(factors[:, None], level.size, mode="bilinear")[:, 0]
        changed.append(Level(maps))
    return changed, with_frames(state, keys, part)


def between(frames: range, apart: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs of frames, both ways, that are so far apart."""
    return [pair for a in frames for gap in apart if a + gap in frames for pair in ((a, a + gap), (a + gap, a))]


def _place(levels: list[Level], state: State, frame: int, pairs: list[tuple[int, int]]) -> State:
    """A new frame: from where the camera would be if it moved on as before, and from where it was; what fits better stays."""
    last, values = state.poses[frame - 1], _like_the_last(levels[0], state, frame)
    guesses = [last]
    if frame > 1:
        guesses.insert(0, last @ cameras.inverse(state.poses[frame - 2]) @ last)
    found = []
    for guess in guesses:
        placed, cost = adjust(levels[0], set_frame(state, frame, guess, values), pairs, [frame], STEPS)
        found.append((cost, placed))
    placed = min(found, key=lambda each: each[0])[1]
    for level in levels[1:]:
        placed, _ = adjust(level, placed, pairs, [frame], STEPS)
    return placed


def _like_the_last(level: Level, state: State, frame: int) -> Tensor:
    """First parameters of a frame: those with which its depths are spread like those of the frame before, which sees nearly the same."""
    quarters = torch.tensor([0.25, 0.75]).to(level.maps)

    def spread(given: Tensor, of: int) -> Tensor:
        return given[level.maps[of, 4].flatten() > 0].quantile(quarters)

    raw = [level.maps[each, 3].flatten() for each in (frame - 1, frame)]
    before = state.frames[frame - 1]
    (low, high), (wanted_low, wanted_high) = spread(raw[1], frame), spread(before[0].exp() * raw[0] + before[1] * state.unit, frame - 1)
    scale = ((wanted_high - wanted_low) / (high - low).clamp(min=1e-6)).clamp(1e-3, 1e3)
    shift = ((wanted_low + wanted_high) - scale * (low + high)) / 2 / state.unit
    return torch.stack([scale.log(), shift, before[2], before[3]])
