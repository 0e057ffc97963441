"""Cameras and depth adjusted together, where the same pictures gave the depth: patches of pixels move along their rays.

Depth that was found with cameras that are a little wrong is wrong so that it fits them, and each holds the other back. So the depth of
every patch is one more unknown. With v the gradient by the cameras and w that by the patches, a step is the solution of

    [ B   E ] [ cameras ]     [ v ]
    [ E'  C ] [ patches ] = - [ w ],    the diagonals of both B and C multiplied by 1 + damping

C is not diagonal, since the depth residual ties patches of two frames to each other. So the equations are solved by conjugate gradients
(Agarwal et al. 2010, Bundle Adjustment in the Large). The preconditioner has a diagonal in C's place, which makes it quick to invert:
the patches are eliminated, the cameras solved, and the patches follow (Schur's complement; Triggs et al. 2000, section 6.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import conjugate_gradients, sparse
from .levenberg import levenberg_marquardt
from .normal_equations import (
    Linearised,
    add_cameras,
    add_priors,
    columns_of,
    damped_cameras,
    fixed_parameters,
    linearised,
    pairs_at_once,
    scale_of_cost,
)
from .pyramid import Level
from .residuals import TARGET
from .sparse import SparseMatrix
from .state import GAIN, LOG_SCALE, OFFSET, POSE, State, retract

SIDE = 4  # pixels of a patch
CHANGE_PRIOR = 3.0  # deviation of a patch's change, log, as one pixel of one pair counts it: what shows nothing stays where it is
LARGEST_DEPTH_STEP = 0.3  # log: by which one step may change a depth, since the pictures are linear only nearby
MOST_ITERATIONS, TOLERANCE = 20, 0.03  # of conjugate gradients
PARAMETERS = (*range(POSE.stop), GAIN, OFFSET)  # of a frame: with the depth of patches free, its scale and shift are not needed


class Place(NamedTuple):
    """state, and by how much the given depth of each patch is changed: (F, n), log."""

    state: State
    change: Tensor


class Step(NamedTuple):
    """cameras: (c,), as `retract` wants it; patches: (F n,), log."""

    cameras: Tensor
    patches: Tensor


@dataclass(frozen=True)
class JointEquations:
    """Half of the cost's Hessian and gradient, by c parameters of cameras and by the depths of m = F n patches; and the cost.

    hessian: (c, c), B above; coupling: (m, c), E', 0 where fixed; diagonal: (m,), of C; between: (m, m), the rest of C;
    gradient: (c,), 0 where fixed; patch_gradient: (m,); fixed: (c,), what may not change.
    """

    hessian: Tensor
    coupling: Tensor
    diagonal: Tensor
    between: SparseMatrix
    gradient: Tensor
    patch_gradient: Tensor
    cost: float
    fixed: Tensor

    def step(self, damping: float) -> Step:
        count = len(self.fixed)
        damped, diagonal = damped_cameras(self.hessian, self.fixed, damping), self.diagonal * (1 + damping)
        # with the sums of its rows added, a diagonal is never smaller than the whole of C (Gershgorin), so all stays positive definite
        larger = diagonal + self.between.row_sums()
        shares = self.coupling / larger[:, None]
        # where rounding leaves it not definite, this raises nothing: the step does not help then, and the next one is damped more
        factor = torch.linalg.cholesky_ex(damped - self.coupling.mT @ shares).L

        def times(x: Tensor) -> Tensor:
            of_cameras, of_patches = x[:count], x[count:]
            lower = self.coupling @ of_cameras + diagonal * of_patches + self.between.times(of_patches)
            return torch.cat([damped @ of_cameras + self.coupling.mT @ of_patches, lower])

        def precondition(x: Tensor) -> Tensor:
            reduced = x[:count] - shares.mT @ x[count:]
            of_cameras = torch.cholesky_solve(reduced[:, None], factor)[:, 0]
            return torch.cat([of_cameras, x[count:] / larger - shares @ of_cameras])

        right = -torch.cat([self.gradient, self.patch_gradient])
        solution = conjugate_gradients.solve(times, right, precondition, MOST_ITERATIONS, TOLERANCE)
        return Step(solution[:count], solution[count:].clamp(-LARGEST_DEPTH_STEP, LARGEST_DEPTH_STEP))


def adjust_with_depth(
    level: Level, state: State, pairs: Sequence[tuple[int, int]], iterations: int, focal: bool = False
) -> tuple[State, Tensor, float]:
    """Better cameras and exposures of all frames, factors of their given depths (F, h, w), and the cost.

    The gauge is that of `bundle.adjust`; what keeps the unit of the depth is that its scales stay. focal: whether its length may change.
    """
    frames, patch = range(len(state.poses)), patch_of(level)
    index = torch.tensor(list(pairs), device=patch.device)
    fixed = fixed_parameters(frames, frames, focal, PARAMETERS).to(patch.device)
    start = Place(state, level.depth.new_zeros(len(frames), int(patch[-1]) + 1))
    (state, change), cost = levenberg_marquardt(start, lambda at: joint_equations(level, at, index, fixed), retract_both, iterations)
    return state, change[:, patch].view(-1, *level.size).exp(), cost


def retract_both(at: Place, step: Step) -> Place:
    return Place(retract(at.state, step.cameras), at.change + step.patches.view_as(at.change))


def patch_of(level: Level) -> Tensor:
    """The patch of every pixel, (N,)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=level.depth.device) // SIDE for n in level.size), indexing="ij")
    return (y * (x[0, -1] + 1) + x).flatten()


class _Sums(NamedTuple):
    """What is added up over pairs; between: parts of a sum. The names are those of JointEquations."""

    hessian: Tensor
    gradient: Tensor
    coupling: Tensor
    diagonal: Tensor
    patch_gradient: Tensor
    between: list[SparseMatrix]


def joint_equations(level: Level, at: Place, pairs: Tensor, fixed: Tensor) -> JointEquations:
    """level: with the depths as they are given; pairs: (P, 2)."""
    count, many, patch, zero = len(fixed), at.change.numel(), patch_of(level), level.depth.new_zeros
    changed = level.with_depth(level.depth * at.change[:, patch].exp().view_as(level.depth))
    sums = _Sums(zero(count, count), zero(count), zero(many, count), zero(many), zero(many), [])
    cost, seen = 0.0, 0.0
    for part in pairs.split(pairs_at_once(level)):
        each, columns = linearised(changed, at.state, part), columns_of(part, count)
        cost, seen = cost + each.cost, seen + each.seen
        add_cameras(sums.hessian, sums.gradient, each, columns)
        _add_patches(sums, each, part, columns, patch)
    scale, hidden = scale_of_cost(seen, len(pairs) * len(patch))
    for total in sums[:5]:
        total *= scale
    prior = scale * len(pairs) * len(patch) / many / CHANGE_PRIOR**2
    change = at.change.flatten()
    cost = cost * scale + hidden + float(prior * change.square().sum()) + add_priors(sums.hessian, sums.gradient, at.state)
    sums.coupling[:, fixed] = 0
    return JointEquations(
        sums.hessian, sums.coupling, sums.diagonal + prior, sparse.added(sums.between).symmetric(scale), sums.gradient.where(~fixed, 0),
        sums.patch_gradient + prior * change, cost, fixed,
    )  # fmt: skip


def _add_patches(sums: _Sums, each: Linearised, pairs: Tensor, columns: Tensor, patch: Tensor) -> None:
    """Of every pixel: a patch of the reference changes both residuals, and those around its place in the target the depth's.

    For the Hessian the nearest pixel of the target stands for the four that its depth is interpolated from; the gradient is exact.
    """
    many = int(patch[-1]) + 1
    at, sampled = each.warped.bilinear, each.warped.target_given
    by_own = torch.stack([each.by_picture[:, LOG_SCALE], each.by_depth[:, LOG_SCALE]]) * each.weight
    by_target = each.by_depth[:, TARGET + LOG_SCALE]
    weighted = by_target * each.weight
    own, other = pairs[:, :1] * many + patch, pairs[:, 1:] * many + patch[at.nearest]
    own_diagonal = by_own[0] * each.by_picture[:, LOG_SCALE] + by_own[1] * each.by_depth[:, LOG_SCALE]
    around = (pairs[:, 1:] * many)[:, None] + patch[at.pixels]
    for total, index, values in (
        (sums.diagonal, own, own_diagonal),
        (sums.diagonal, other, weighted * by_target),
        (sums.patch_gradient, own, by_own[0] * each.picture + by_own[1] * each.depth),
        (sums.patch_gradient, around, sampled.shares * (weighted * each.depth)[:, None]),
    ):
        total.index_add_(0, index.flatten(), values.flatten())
    tied = (by_own[1] * by_target).flatten()
    sums.between.append(sparse.of_entries(own.flatten(), other.flatten(), tied, len(sums.diagonal)))
    rows = by_own[0, :, None] * each.by_picture + by_own[1, :, None] * each.by_depth, weighted[:, None] * each.by_depth
    for index, values in zip((own, other), rows, strict=True):
        for place, column in enumerate(columns):
            frame = slice(int(index[place, 0]) // many * many, (int(index[place, 0]) // many + 1) * many)
            block = values.new_zeros(many, len(column)).index_add_(0, index[place] - frame.start, values[place].mT)
            sums.coupling[frame, column] += block
