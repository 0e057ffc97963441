"""Cameras, depth scales and exposures of a clip, from how its frames look when they are warped into each other.

Dense bundle adjustment by Gauss-Newton (Levenberg's damping, Cauchy's weights) on two residuals of a pixel x of frame i, with
depth z_i, that is seen at u in frame j (direct alignment as in DSO, Engel et al. 2016, https://arxiv.org/abs/1607.02565):

    picture  (1 + g_j) I_j(u) + h_j - (1 + g_i) I_i(x) - h_i        depth  log(Z_j / z_j(u)),  z = exp(a) D + b

with D the given depth, which may be off by a scale and a shift in every frame. Both sides of a residual are noisy, and what makes a
frame flatter or greyer makes its noise smaller too: so residuals are counted in units of their noise, which depends on the parameters
(orthogonal regression, Deming 1943). Without, every frame comes out a little too flat, and the scene shrinks along the way.

COLMAP-Free 3D Gaussian Splatting (https://arxiv.org/abs/2312.07504) fits one pose after the other by 300 steps of Adam through the
rasteriser, and never again; here a frame takes about twenty steps, far cheaper ones, and all frames are adjusted together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..geometry import cameras
from . import residuals
from .residuals import GAIN, OFFSET, PER_FRAME, POSE, SCALE, SHIFT, Level, State

PICTURE_NOISE, DEPTH_NOISE = 0.04, 0.07  # where Cauchy's weight is a half: grey, and of a depth
PRIORS = {SHIFT: 0.15, GAIN: 0.15, OFFSET: 0.05}  # deviations from 0: of the median depth, of 1, of white
PRIOR_WEIGHT = 0.02  # of a frame's pixels
FOCAL_PRIOR = 0.3  # deviation, log
KEPT = 0.3  # of its contrast and of its relief: a frame that was made greyer and flatter than this fits anything
FEW = 0.2  # of a frame's pixels: where depth is known of fewer, that they agree says less
PIXELS_AT_ONCE = 2**20
DAMPING = 1e-3  # of the first step, of the Hessian's diagonal


def adjust(
    level: Level, state: State, pairs: Sequence[tuple[int, int]], free: Sequence[int], iterations: int, focal: bool = False,
    may: Sequence[int] = range(PER_FRAME),
) -> tuple[State, float]:  # fmt: skip
    """A better state, and its cost, after at most `iterations` steps on pairs (i, j) of frames.

    free: the frames that may change; the others stay. may: which of a frame's parameters. Frame 0 keeps its pose and exposure, which are
    the clip's own, and the scale of its depth, which gives the unit, unless no camera may move. focal: whether its length may change.
    """
    used = sorted({*free, *(frame for pair in pairs for frame in pair)})
    here = {frame: place for place, frame in enumerate(used)}
    index = torch.tensor([(here[a], here[b]) for a, b in pairs], device=level.maps.device)
    near = Level(level.maps[used])
    fixed = fixed_of(used, free, focal, may).to(level.maps.device)

    def equations(at: State) -> Equations:
        return _normal_equations(near, at, index)

    part, cost = descend(of_frames(state, used), equations, lambda at, step, found: moved(at, step), fixed, iterations)
    return with_frames(state, used, part), cost


class Equations(NamedTuple):
    """Half of the cost's Hessian, (n, n), and slope, (n,); the cost; and what else a step needs."""

    hessian: Tensor
    slope: Tensor
    cost: float
    more: Any = None


Place = TypeVar("Place")


def descend(
    place: Place, equations: Callable[[Place], Equations], moved: Callable[[Place, Tensor, Equations], Place], fixed: Tensor,
    iterations: int,
) -> tuple[Place, float]:  # fmt: skip
    """A better place, and its cost: Gauss-Newton with Levenberg's damping. fixed: (n,), what may not change."""
    found, damping = equations(place), DAMPING
    for _ in range(iterations):
        damped = found.hessian + torch.diag(damping * found.hessian.diagonal() + 1e-9)
        damped = torch.where(fixed[:, None] | fixed, 0, damped) + torch.diag(fixed.to(damped))
        trial = moved(place, -torch.linalg.solve(damped, torch.where(fixed, 0, found.slope)), found)
        tried = equations(trial)
        if tried.cost < found.cost:
            gained = found.cost - tried.cost
            place, found, damping = trial, tried, damping / 5
            if gained < 1e-4 * found.cost:
                break
        else:
            damping = max(damping, 1e-5) * 10
            if damping > 1e4:
                break
    return place, found.cost


def of_frames(state: State, frames: Sequence[int]) -> State:
    return replace(state, poses=state.poses[frames], frames=state.frames[frames])


def with_frames(state: State, frames: Sequence[int], part: State) -> State:
    """What `of_frames` took out, put back."""
    poses, values = state.poses.clone(), state.frames.clone()
    poses[frames], values[frames] = part.poses, part.frames
    return replace(state, poses=poses, frames=values, focal=part.focal)


def agreement(level: Level, state: State, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """For each frame, the share of its pixels of known depth that fit another frame's picture and depth, the best of its pairs: (F,), 0..1.

    A frame that fits only because it was made grey or flat fits nothing.
    """
    index = torch.tensor(list(pairs), device=level.maps.device)
    kept = _kept(level, state)
    known = level.maps[:, 4].flatten(1).mean(1).clamp(min=FEW)
    best = torch.zeros(len(state.poses), device=level.maps.device)
    for part in index.split(_pairs_at_once(level)):
        seen, picture, depth = residuals.residuals(level, state, part)[:3]
        fits = seen & (picture.abs() < 2 * PICTURE_NOISE) & (depth.abs() < 2 * DEPTH_NOISE) & kept[part].all(1)[:, None]
        share = fits.float().mean(1) / known[part[:, 0]]
        for side in (0, 1):
            best.scatter_reduce_(0, part[:, side], share, "amax")
    return best


def _kept(level: Level, state: State) -> Tensor:
    """Whether each frame still has KEPT of its contrast and of its relief, (F,)."""
    depths, solid = level.maps[:, 3], level.maps[:, 4] > 0
    given = torch.stack([d[s].median() if s.any() else d.max() for d, s in zip(depths, solid, strict=True)])
    relief = state.frames[:, 0].exp() * given
    return (1 + state.frames[:, 2] > KEPT) & (relief > KEPT * (relief + state.frames[:, 1] * state.unit))


def fixed_of(used: list[int], free: Sequence[int], focal: bool, may: Sequence[int]) -> Tensor:
    """What may not change, (n,); the arguments are those of `adjust`."""
    fixed = torch.ones(len(used), PER_FRAME, dtype=torch.bool)
    for frame in free:
        own = (SHIFT,) if any(k < POSE.stop for k in may) else (SCALE, SHIFT)
        fixed[used.index(frame), [k for k in may if frame > 0 or k in own]] = False
    return torch.cat([fixed.flatten(), torch.tensor([not focal])])


def moved(state: State, step: Tensor) -> State:
    """By a step, (n,): ten parameters of each frame, then the logarithm of the focal length."""
    by_frame = step[:-1].view(-1, PER_FRAME)
    return replace(
        state, poses=cameras.exponential(by_frame[:, POSE]) @ state.poses, frames=state.frames + by_frame[:, 6:],
        focal=state.focal * step[-1].exp(),
    )  # fmt: skip


def _pairs_at_once(level: Level) -> int:
    return max(1, PIXELS_AT_ONCE // (level.size[0] * level.size[1]))


def _normal_equations(level: Level, state: State, pairs: Tensor) -> Equations:
    count = len(state.poses) * PER_FRAME + 1
    hessian, slope = pairs.new_zeros(count, count, dtype=level.maps.dtype), pairs.new_zeros(count, dtype=level.maps.dtype)
    cost, places = 0.0, 0.0
    for part in pairs.split(_pairs_at_once(level)):
        seen, picture, ratio, both = residuals.residuals(level, state, part)
        grey, by_grey = residuals.picture_noise(state, part)
        given, by_given = residuals.depth_noise(state, part, both)
        picture, ratio = picture / (PICTURE_NOISE * grey), ratio / (DEPTH_NOISE * given)
        size = picture.square() + ratio.square()  # together: what is hidden shows in the depth
        weight = seen / (1 + size)
        at = places_of(part, count)
        picture_part = (picture, PICTURE_NOISE, grey, by_grey, residuals.by_picture)
        for residual, unit, noise, by_noise, derivative in (picture_part, (ratio, DEPTH_NOISE, given, by_given, residuals.by_depth)):
            j = in_noise(derivative(state, part, both), residual, unit, noise, by_noise)
            weighted = j * weight[..., None]
            hessian.index_put_((at[:, :, None], at[:, None, :]), weighted.mT @ j, accumulate=True)
            slope.index_put_((at,), (weighted.mT @ residual[..., None]).squeeze(-1), accumulate=True)
        cost += float((seen * torch.log1p(size)).sum())
        places += float(seen.sum())
    weight, hidden = per_place(places, len(pairs) * level.size[0] * level.size[1])
    hessian, slope, cost = hessian * weight, slope * weight, cost * weight + hidden
    prior = PRIOR_WEIGHT / len(state.poses)
    for k, deviation in PRIORS.items():
        every = torch.arange(len(state.poses), device=pairs.device) * PER_FRAME + k
        value = state.frames[:, k - 6]
        hessian[every, every] += prior / deviation**2
        slope[every] += prior * value / deviation**2
        cost += float(prior * (value / deviation).square().sum())
    hessian[-1, -1] += prior / FOCAL_PRIOR**2
    return Equations(hessian, slope, cost)


def in_noise(j: Tensor, residual: Tensor, unit: float, noise: Tensor, by_noise: dict[int, Tensor]) -> Tensor:
    """Derivatives (P, N, BOTH) of a residual that is counted in units of its noise."""
    j = j / (unit * noise)[..., None]
    for k, each in by_noise.items():  # else all would be made flat and grey, where there is less noise
        j[..., k] -= residual * each / noise
    return j


def per_place(seen: float, pixels: int) -> tuple[float, float]:
    """A weight that makes sums over what is seen a mean, and an addition, so that a state does not win by showing less."""
    known = max(seen, 1.0) / pixels
    return 1 / (pixels * max(known, 0.05)), 2 * max(0.0, 0.5 - known)


def places_of(pairs: Tensor, count: int) -> Tensor:
    """Where the parameters of pairs (P, 2) are among `count` of all: (P, BOTH)."""
    within = torch.arange(PER_FRAME, device=pairs.device)
    at = (pairs[:, :, None] * PER_FRAME + within).flatten(1)
    return torch.cat([at, at.new_full((len(at), 1), count - 1)], 1)


def start(count: int, focal: float, depths: Tensor, valid: Tensor, inverse: bool = False) -> State:
    """All cameras at rest. focal: in widths; depths, valid: (F, H, W). Scales make every frame's median that of the first."""
    medians = torch.stack([d[v].median() if v.any() else d.new_tensor(1.0) for d, v in zip(depths, valid, strict=True)])
    frames = depths.new_zeros(count, 4)
    frames[:, 0] = (medians[0] / medians).log()
    return State(torch.eye(4).to(depths).expand(count, 4, 4).clone(), frames, depths.new_tensor(focal), float(medians[0]), inverse)


def set_frame(state: State, frame: int, pose: Tensor, values: Tensor) -> State:
    part = of_frames(state, [frame])
    return with_frames(state, [frame], replace(part, poses=pose[None], frames=values[None]))
