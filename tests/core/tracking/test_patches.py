"""Cameras and depth adjusted together."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.tracking import bundle, patches
from freesteer.core.tracking.patches import JointEquations, Place, Step, joint_equations
from freesteer.core.tracking.pyramid import pyramid
from freesteer.core.tracking.sparse import SparseMatrix
from freesteer.core.tracking.state import LOG_SCALE, PER_FRAME, State, at_rest
from freesteer.core.tracking.tracking import between
from freesteer.playground.rooms import clips
from freesteer.tests.core.tracking.analytic import COUNT, level, state

SIZE = (72, 96)
PAIRS = torch.tensor([(0, 1), (1, 0), (2, 1), (1, 3), (3, 2)])
FREE = torch.zeros(COUNT * PER_FRAME + 1, dtype=torch.bool)
BY_FRAME = torch.arange(COUNT) * PER_FRAME + LOG_SCALE


def dense(matrix: SparseMatrix) -> torch.Tensor:
    """(size, size)."""
    return torch.zeros(matrix.size, matrix.size).to(matrix.values).index_put((matrix.rows, matrix.columns), matrix.values)


def place(inverse: bool) -> Place:
    """Patches whose depths are a little off."""
    count = int(patches.patch_of(level(inverse))[-1]) + 1
    change = 0.03 * torch.randn(COUNT, count, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Place(state(inverse), change)


def equations(at: Place, inverse: bool) -> JointEquations:
    return joint_equations(level(inverse, planes=True), at, PAIRS, FREE)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_are_those_of_the_cost(inverse):
    """Of half of it, by every parameter of the cameras and by some patches; where patches are as they came, so that slopes are exact."""
    at = place(inverse)
    at = at._replace(change=torch.zeros_like(at.change))
    found, none = equations(at, inverse), torch.zeros_like(at.change)

    def difference(step: Step) -> float:
        ends = [equations(patches.retract_both(at, Step(sign * step.cameras, sign * step.patches)), inverse).cost for sign in (1, -1)]
        return (ends[0] - ends[1]) / 4e-7

    by_camera = [difference(Step(step, none.flatten())) for step in 1e-7 * torch.eye(len(FREE), dtype=torch.float64)]
    some = range(0, none.numel(), 7)
    by_patch = [difference(Step(FREE.double(), none.flatten().index_fill(0, torch.tensor(k), 1e-7))) for k in some]
    for gradient, wanted in ((found.gradient, by_camera), (found.patch_gradient[list(some)], by_patch)):
        wanted = torch.tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


def test_a_change_costs_what_its_prior_says(monkeypatch):
    at = place(False)
    found = equations(at, False)
    monkeypatch.setattr(patches, "CHANGE_PRIOR", 1e9)
    without = equations(at, False)
    slope = found.patch_gradient - without.patch_gradient
    assert found.cost - without.cost == pytest.approx(float(slope @ at.change.flatten()), rel=1e-9) and found.cost > without.cost


def test_all_patches_of_a_frame_together_are_its_scale(monkeypatch):
    """A frame's log scale multiplies the depth of all its pixels: its row of the Hessian is the sum of those of the patches."""
    monkeypatch.setattr(patches, "CHANGE_PRIOR", 1e9)
    found, count = equations(place(True), True), place(True).change.shape[1]
    of_frames = (dense(found.between) + found.diagonal.diag()).view(COUNT, count, COUNT, count).sum((1, 3))
    torch.testing.assert_close(of_frames, found.hessian[BY_FRAME][:, BY_FRAME])
    torch.testing.assert_close(found.coupling.view(COUNT, count, len(FREE)).sum(1), found.hessian[BY_FRAME])


def test_a_step_is_the_solution_of_all_damped_equations(monkeypatch):
    monkeypatch.setattr(patches, "MOST_ITERATIONS", 500)
    monkeypatch.setattr(patches, "TOLERANCE", 1e-10)
    monkeypatch.setattr(patches, "LARGEST_DEPTH_STEP", 10.0)
    found, damping = equations(place(False), False), 0.1
    assert dense(found.between).diagonal().abs().max() == 0
    whole = torch.cat([
        torch.cat([found.hessian, found.coupling.mT], 1), torch.cat([found.coupling, dense(found.between) + found.diagonal.diag()], 1),
    ])  # fmt: skip
    whole = whole + torch.diag(damping * whole.diagonal())
    wanted = torch.linalg.solve(whole, -torch.cat([found.gradient, found.patch_gradient]))
    step = found.step(damping)
    torch.testing.assert_close(torch.cat([step.cameras, step.patches]), wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    large, small = found.step(0.0), found.step(1e6)
    assert small.cameras.norm() < 1e-4 * large.cameras.norm() and small.patches.norm() < 1e-4 * large.patches.norm()
    assert float(torch.linalg.eigvalsh(whole)[0]) > 0


def test_cameras_that_bent_the_depth_are_mended_with_it():
    """A camera that turned by more than was found moves points as a slanted scene does: neither can be right without the other."""
    count = 8
    clip = clips.draw("arc", count, SIZE)
    near, x = 1 / clip.depth, (torch.arange(SIZE[1]) + 0.5) / SIZE[1] - 0.5
    bent = near * (1 + 0.25 * x)
    turn = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.004, 0.0])
    poses = cameras.exponential(torch.arange(count)[:, None] * turn) @ clip.path.poses @ cameras.inverse(clip.path.poses[:1])
    at = at_rest(float(clip.path.focal[0]) / SIZE[1], bent, bent > 0, inverse=True)
    at = replace(at, poses=poses, log_scale=torch.zeros(count))
    pairs, held, free, left = between(range(count), (1, 2, 4)), at, at, bent
    for size in (-2, -1):
        held, _ = bundle.adjust(pyramid(clip.frames, bent, bent > 0)[size], held, pairs, range(count), 15, parameters=patches.PARAMETERS)
        free, factors, _ = patches.adjust_with_depth(pyramid(clip.frames, left, left > 0)[size], free, pairs, 15)
        left = left * F.interpolate(factors[:, None], SIZE, mode="bilinear")[:, 0]

    def wrong(found: State) -> float:
        return trajectory.ate(cameras.inverse(found.poses)[:, :3, 3], clip.path.positions)

    def uneven(found: torch.Tensor) -> float:
        off = (found * clip.depth).log()
        return float((off - off.median()).abs().mean())

    assert wrong(free) < 0.5 * wrong(held) and uneven(left) < 0.6 * uneven(bent)
    assert torch.equal(free.poses[0], poses[0]) and not free.log_scale.any() and not free.shift.any()
