"""Cameras, depth scales and exposures of a clip, from how its frames look when they are warped into each other.

Dense bundle adjustment (Triggs et al. 2000, Bundle Adjustment - A Modern Synthesis) of the residuals of picture and depth.

COLMAP-Free 3D Gaussian Splatting (https://arxiv.org/abs/2312.07504) fits one pose after the other by 300 steps of Adam through the
rasteriser, and never again; here a frame takes about twenty steps, far cheaper ones, and all frames are adjusted together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .levenberg import levenberg_marquardt
from .normal_equations import fixed_parameters, normal_equations, pairs_at_once
from .pyramid import Level
from .residuals import depth_difference, picture_difference
from .state import PER_FRAME, State, retract
from .warp import warp

KEPT = 0.3  # of a frame's contrast and of its relief: one that was made greyer or flatter than this fits anything
FEW = 0.2  # of a frame's pixels: where depth is known of fewer, that they agree says less
ALIKE = 0.08  # of white: pictures that differ by less agree
SAME_DEPTH = 0.15  # log: depths that differ by less are of the same surface
ALL = range(PER_FRAME)


def adjust(
    level: Level, state: State, pairs: Sequence[tuple[int, int]], free: Sequence[int], iterations: int, focal: bool = False,
    parameters: Sequence[int] = ALL,
) -> tuple[State, float]:  # fmt: skip
    """A better state, and its cost, after at most `iterations` steps on pairs (reference, target) of frames.

    free: the frames that may change; the others stay. parameters: which of a frame's may change (columns, as in state.py). focal: whether
    its length may change. The gauge: see `fixed_parameters`.
    """
    used = sorted({*free, *(frame for pair in pairs for frame in pair)})
    here = {frame: place for place, frame in enumerate(used)}
    index = torch.tensor([(here[a], here[b]) for a, b in pairs], device=level.grey.device)
    near = level.of(used)
    fixed = fixed_parameters(used, free, focal, parameters).to(level.grey.device)
    part, cost = levenberg_marquardt(state.of(used), lambda at: normal_equations(near, at, index, fixed), retract, iterations)
    return state.with_frames(used, part), cost


def agreement(level: Level, state: State, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """For each frame, the share of its pixels of known depth that fit another frame's picture and depth, the best of its pairs: (F,), 0..1.

    A frame that fits only because it was made grey or flat fits nothing.
    """
    index = torch.tensor(list(pairs), device=level.grey.device)
    kept = _kept(level, state)
    known = level.valid.flatten(1).mean(1).clamp(min=FEW)
    best = torch.zeros(len(state.poses), device=level.grey.device)
    for part in index.split(pairs_at_once(level)):
        warped = warp(level, state, part)
        alike = picture_difference(state, part, warped).abs() < ALIKE
        fits = warped.seen & alike & (depth_difference(warped).abs() < SAME_DEPTH) & kept[part].all(1)[:, None]
        share = fits.float().mean(1) / known[part[:, 0]]
        for side in (0, 1):
            best.scatter_reduce_(0, part[:, side], share, "amax")
    return best


def _kept(level: Level, state: State) -> Tensor:
    """Whether each frame still has KEPT of its contrast and of its relief, (F,)."""
    given = torch.stack([d[s].median() if s.any() else d.max() for d, s in zip(level.depth, level.valid > 0, strict=True)])
    relief = state.log_scale.exp() * given
    return (1 + state.gain > KEPT) & (relief > KEPT * (relief + state.shift * state.unit))
