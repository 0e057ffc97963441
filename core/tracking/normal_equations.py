"""Gauss-Newton's equations of dense bundle adjustment: residuals of picture and depth (residuals.py) under Cauchy's robust cost.

With r^2 the sum of the squares of both residuals of a pixel, and J their derivatives,

    cost = mean log(1 + r^2) + priors,    W = 1 / (1 + r^2),    gradient / 2 = J'W r,    Hessian / 2 ~ J'W J

(iteratively reweighted least squares; Triggs et al. 2000, section 4.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .pyramid import Level
from .residuals import depth_residual, jacobian, picture_residual
from .state import FOCAL, GAIN, LOG_SCALE, OFFSET, PER_FRAME, POSE, SHIFT, State
from .warp import Warp, warp

PRIORS = {SHIFT: 0.15, GAIN: 0.15, OFFSET: 0.05}  # deviations from 0: of the median depth, of 1, of white
FOCAL_PRIOR = 0.3  # deviation from what it was at first, log
PRIOR_WEIGHT = 0.02  # of a frame's pixels
PIXELS_AT_ONCE = 2**20
LEAST_SEEN, MOSTLY_SEEN = 0.05, 0.5  # of all pixels of all pairs: see `scale_of_cost`
REGULAR = 1e-9  # added to the diagonal, for parameters that nothing depends on


class Linearised(NamedTuple):
    """Of P pairs at N pixels: values (P, N) and derivatives (P, PER_PAIR, N) of both residuals, weights (P, N); the cost's sum; how many
    pixels are seen; and the warp."""

    picture: Tensor
    by_picture: Tensor
    depth: Tensor
    by_depth: Tensor
    weight: Tensor
    cost: float
    seen: float
    warped: Warp


@dataclass(frozen=True)
class Equations:
    """Half of the cost's Hessian (n, n) and gradient (n,); the cost; fixed: (n,), what may not change."""

    hessian: Tensor
    gradient: Tensor
    cost: float
    fixed: Tensor

    def step(self, damping: float) -> Tensor:
        """(n,), as `state.retract` wants it."""
        damped = damped_cameras(self.hessian, self.fixed, damping)
        return -torch.linalg.solve(damped, self.gradient.where(~self.fixed, 0))


def fixed_parameters(used: Sequence[int], free: Sequence[int], focal: bool, parameters: Sequence[int]) -> Tensor:
    """What may not change, (n,), as one mask of all parameters of the frames `used`; the other arguments are those of `adjust`.

    The gauge: frame 0 keeps its pose and exposure, which are the clip's own, and the scale of its depth, which gives the unit, unless no
    camera may move.
    """
    fixed = torch.ones(len(used), PER_FRAME, dtype=torch.bool)
    of_first = (SHIFT,) if any(k < POSE.stop for k in parameters) else (LOG_SCALE, SHIFT)
    for frame in free:
        fixed[used.index(frame), [k for k in parameters if frame > 0 or k in of_first]] = False
    return torch.cat([fixed.flatten(), torch.tensor([not focal])])


def normal_equations(level: Level, state: State, pairs: Tensor, fixed: Tensor) -> Equations:
    """pairs: (P, 2)."""
    hessian = level.grey.new_zeros(len(fixed), len(fixed))
    gradient = level.grey.new_zeros(len(fixed))
    cost, seen = 0.0, 0.0
    for part in pairs.split(pairs_at_once(level)):
        each = linearised(level, state, part)
        add_cameras(hessian, gradient, each, columns_of(part, len(fixed)))
        cost, seen = cost + each.cost, seen + each.seen
    scale, hidden = scale_of_cost(seen, len(pairs) * level.size[0] * level.size[1])
    hessian, gradient = hessian * scale, gradient * scale
    return Equations(hessian, gradient, cost * scale + hidden + add_priors(hessian, gradient, state), fixed)


def pairs_at_once(level: Level) -> int:
    return max(1, PIXELS_AT_ONCE // (level.size[0] * level.size[1]))


def linearised(level: Level, state: State, pairs: Tensor) -> Linearised:
    """Both residuals of a pixel have one weight: what is hidden in the target shows in the depth, and then its picture says nothing."""
    warped = warp(level, state, pairs)
    picture, depth = picture_residual(state, pairs, warped), depth_residual(state, pairs, warped)
    square = picture.value.square() + depth.value.square()
    return Linearised(
        picture.value, jacobian(state, pairs, warped, picture), depth.value, jacobian(state, pairs, warped, depth),
        warped.seen / (1 + square), float((warped.seen * square.log1p()).sum()), float(warped.seen.sum()), warped,
    )  # fmt: skip


def damped_cameras(hessian: Tensor, fixed: Tensor, damping: float) -> Tensor:
    """The Hessian (n, n) with its diagonal multiplied by 1 + damping, and ones for what is fixed."""
    damped = hessian + torch.diag(damping * hessian.diagonal() + REGULAR)
    return torch.where(fixed[:, None] | fixed, 0, damped) + torch.diag(fixed.to(damped))


def columns_of(pairs: Tensor, count: int) -> Tensor:
    """Where the PER_PAIR parameters of pairs (P, 2) are among `count` of all: (P, PER_PAIR)."""
    within = torch.arange(PER_FRAME, device=pairs.device)
    columns = (pairs[:, :, None] * PER_FRAME + within).flatten(1)
    return torch.cat([columns, columns.new_full((len(columns), 1), count - 1)], 1)


def add_cameras(hessian: Tensor, gradient: Tensor, each: Linearised, columns: Tensor) -> None:
    """J'WJ and J'Wr of all parameters but the depths of patches."""
    for value, derivatives in ((each.picture, each.by_picture), (each.depth, each.by_depth)):
        weighted = derivatives * each.weight[:, None]
        hessian.index_put_((columns[:, :, None], columns[:, None, :]), weighted @ derivatives.mT, accumulate=True)
        gradient.index_put_((columns,), (weighted @ value[..., None]).squeeze(-1), accumulate=True)


def add_priors(hessian: Tensor, gradient: Tensor, state: State) -> float:
    """Of shifts, exposures and the focal length, each normal about its mean; their cost."""
    weight, cost = PRIOR_WEIGHT / len(state.poses), 0.0
    columns = torch.arange(len(state.poses), device=hessian.device) * PER_FRAME
    off_focal = (state.focal / state.first_focal).log()[None]
    values = [(columns + k, value, PRIORS[k]) for k, value in ((SHIFT, state.shift), (GAIN, state.gain), (OFFSET, state.offset))]
    for at, value, deviation in (*values, (columns.new_tensor([len(gradient) + FOCAL]), off_focal, FOCAL_PRIOR)):
        hessian[at, at] += weight / deviation**2
        gradient[at] += weight * value / deviation**2
        cost += float(weight * (value / deviation).square().sum())
    return cost


def scale_of_cost(seen: float, pixels: int) -> tuple[float, float]:
    """A factor that makes sums over what is seen a mean, and an addition, so that a state does not win by showing less."""
    share = max(seen, 1.0) / pixels
    return 1 / (pixels * max(share, LEAST_SEEN)), 2 * max(0.0, MOSTLY_SEEN - share)
