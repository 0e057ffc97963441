"""From a clip with monocular depth to the camera of every frame: one frame after the other, then all together (see bundle.py)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from ..geometry.cameras import CameraPath
from .bundle import adjust, agreement
from .patches import adjust_with_depth
from .pyramid import Level, pyramid
from .state import PER_FRAME, POSE, State, at_rest

STEPS = 10  # at most, on every level, to place a frame
LOCAL_STEPS = 3  # at most, after every frame, for those of the window
GLOBAL_STEPS = 10  # at most, on every level, for all frames at the end
GAPS = (1, 2, 4)  # frames between those that are compared while a clip is tracked
FEW_GAPS = (1, 2)  # the same, between two keyframes, and where the agreement of frames is judged
KEYFRAME_GAPS = (1, 2, 4, 8, 16, 32)  # keyframes between those that are compared at the end: doubling ties the ends with few pairs
WINDOW = 5  # frames that are adjusted again with every new one
MOST_KEYFRAMES = 60  # that are adjusted together at the end; the frames of a longer clip then follow them
MOST_PIXELS_WITH_DEPTH = 2**15  # of a frame, where depth is adjusted with cameras: the finest level that has no more is taken
DISTANCES = torch.logspace(0, 3, 13)  # of a scene, in mean steps of its camera: what is tried where cameras are given, but not the unit
DEPTH_AND_EXPOSURE = range(POSE.stop, PER_FRAME)  # the parameters of a frame that are left where cameras are known
STILL = 0.005  # of how far the first frame's things are: a camera that moves by less shows nothing from another side
LOST = 0.45  # share of a frame's pixels that agree with another frame's: with less, its camera counts as not found
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

    @property
    def still(self) -> bool:
        """Whether the camera stays where it is, or only turns."""
        level = self.levels[-1]
        seen = self.state.depths(level.depth[:1], slice(1))[level.valid[:1] > 0]
        places = self.path(level.size).positions
        return bool((places - places[0]).norm(dim=1).amax() < STILL * seen.median())

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
    state = at_rest(focal, depths, valid, inverse)
    for frame in range(1, count):
        pairs = [pair for back in GAPS if back <= frame for pair in ((frame, frame - back), (frame - back, frame))]
        state = _place(levels[:-1] or levels, state, frame, pairs)
        window = range(max(1, frame - WINDOW + 1), frame + 1)
        if frame > 1:
            near = between(range(max(0, frame - WINDOW), frame + 1), GAPS)
            state, _ = adjust(levels[-2 if len(levels) > 1 else 0], state, near, [0, *window], LOCAL_STEPS)
        iterations += STEPS * len(levels) + LOCAL_STEPS
        progress(frame, count)
    levels, state = _adjust_all(levels, state, not focal_known, from_motion)
    return _with_confidence(levels, state, iterations + GLOBAL_STEPS * len(levels))


def locate(pictures: Tensor, depths: Tensor, valid: Tensor, path: CameraPath, inverse: bool = False) -> Tracked:
    """As `track`, where the cameras are known: finds scales of depth, in the cameras' own unit, and exposures."""
    count = len(pictures)
    travel = (path.positions[1:] - path.positions[:-1]).norm(dim=1).mean()
    if travel == 0:
        raise ValueError("The cameras stand still, so they do not tell how far anything is.")
    levels, pairs = pyramid(pictures, depths, valid), between(range(count), KEYFRAME_GAPS)
    focal, median = float(path.focal[0]) / path.size[1], depths[0][valid[0]].median()
    tried = []
    for distance in DISTANCES.to(travel) * travel:
        unit = (1 / distance if inverse else distance) / median
        state = replace(at_rest(focal, depths * unit, valid, inverse), poses=path.poses)
        scaled = [level.with_depth(level.depth * unit) for level in levels]
        state, cost = adjust(scaled[0], state, pairs, range(count), LOCAL_STEPS, parameters=DEPTH_AND_EXPOSURE)
        tried.append((cost, state, scaled))
    _, state, levels = min(tried, key=lambda each: each[0])
    for level in levels:
        state, _ = adjust(level, state, pairs, range(count), GLOBAL_STEPS, parameters=DEPTH_AND_EXPOSURE)
    return _with_confidence(levels, state, 0)


def _with_confidence(levels: list[Level], state: State, iterations: int) -> Tracked:
    return Tracked(state, levels, agreement(levels[-1], state, between(range(len(state.poses)), FEW_GAPS)), iterations)


def _adjust_all(levels: list[Level], state: State, focal: bool, from_motion: bool) -> tuple[list[Level], State]:
    """All frames at once; of a long clip the keyframes at once, then those between each two of them."""
    count, before = len(state.poses), state.poses
    keys = torch.linspace(0, count - 1, min(count, MOST_KEYFRAMES)).round().int().tolist()
    gaps = between(range(len(keys)), KEYFRAME_GAPS)
    for level in levels:
        state, _ = adjust(level, state, [(keys[a], keys[b]) for a, b in gaps], keys, GLOBAL_STEPS, focal)
    if from_motion:
        levels, state = _adjust_depth_too(levels, state, keys, gaps, focal)
    for first, last in pairwise(keys):
        inner = range(first + 1, last)
        if inner:
            poses = state.poses.clone()
            poses[inner] = before[inner] @ cameras.inverse(before[first]) @ poses[first]
            state = replace(state, poses=poses)
            for level in levels[-2:]:
                state, _ = adjust(level, state, between(range(first, last + 1), FEW_GAPS), inner, GLOBAL_STEPS)
    return levels, state


def _adjust_depth_too(
    levels: list[Level], state: State, keys: list[int], pairs: list[tuple[int, int]], focal: bool
) -> tuple[list[Level], State]:
    """Keyframes once more, with their depth. pairs: of places in `keys`."""
    fine = [level for level in levels if level.size[0] * level.size[1] <= MOST_PIXELS_WITH_DEPTH][-1:] or levels[:1]
    part, factors, _ = adjust_with_depth(fine[0].of(keys), state.of(keys), pairs, GLOBAL_STEPS, focal)
    changed = []
    for level in levels:
        depth = level.depth.clone()
        depth[keys] *= F.interpolate(factors[:, None], level.size, mode="bilinear")[:, 0]
        changed.append(level.with_depth(depth))
    return changed, state.with_frames(keys, part)


def between(frames: range, gaps: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs of frames, both ways, that are so far gaps."""
    return [pair for a in frames for gap in gaps if a + gap in frames for pair in ((a, a + gap), (a + gap, a))]


def _place(levels: list[Level], state: State, frame: int, pairs: list[tuple[int, int]]) -> State:
    """A new frame: from where the camera would be if it moved on as before, and from where it was; what fits better stays."""
    last, start = state.poses[frame - 1], _like_the_last(levels[0], state, frame)
    guesses = [last]
    if frame > 1:
        guesses.insert(0, last @ cameras.inverse(state.poses[frame - 2]) @ last)
    tried = []
    for guess in guesses:
        part = replace(start.of([frame]), poses=guess[None])
        placed, cost = adjust(levels[0], start.with_frames([frame], part), pairs, [frame], STEPS)
        tried.append((cost, placed))
    placed = min(tried, key=lambda each: each[0])[1]
    for level in levels[1:]:
        placed, _ = adjust(level, placed, pairs, [frame], STEPS)
    return placed


def _like_the_last(level: Level, state: State, frame: int) -> State:
    """First parameters of a frame: those with which its depths are spread like those of the frame before, which sees nearly the same."""
    quarters = torch.tensor([0.25, 0.75]).to(level.depth)

    def spread(of: int) -> tuple[Tensor, Tensor]:
        low, high = level.depth[of][level.valid[of] > 0].quantile(quarters)
        return low, high

    before = state.of([frame - 1])
    factor, addition = before.log_scale.exp(), before.shift * state.unit
    (low, high), (wanted_low, wanted_high) = spread(frame), (factor * each + addition for each in spread(frame - 1))
    scale = ((wanted_high - wanted_low) / (high - low).clamp(min=1e-6)).clamp(1e-3, 1e3)
    shift = ((wanted_low + wanted_high) - scale * (low + high)) / 2 / state.unit
    return state.with_frames([frame], replace(before, log_scale=scale.log(), shift=shift))
