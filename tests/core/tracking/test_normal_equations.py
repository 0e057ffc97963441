"""The normal equations of cameras, in float64, against differences of their cost."""

import pytest
import torch
from freesteer.core.tracking.levenberg import levenberg_marquardt
from freesteer.core.tracking.normal_equations import (
    LEAST_SEEN,
    MOSTLY_SEEN,
    add_priors,
    fixed_parameters,
    linearised,
    normal_equations,
    scale_of_cost,
)
from freesteer.core.tracking.state import FOCAL, LOG_SCALE, PER_FRAME, SHIFT, retract
from freesteer.tests.core.tracking.analytic import COUNT, level, state

PAIRS = torch.tensor([(0, 1), (1, 0), (2, 1), (3, 2), (0, 3)])
FREE = torch.zeros(COUNT * PER_FRAME + 1, dtype=torch.bool)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_gradient_is_that_of_the_cost(inverse):
    """Of half of it, with weights, priors and all, by every parameter."""
    at, maps = state(inverse), level(inverse)
    found, wanted = normal_equations(maps, at, PAIRS, FREE).gradient, []
    for step in 1e-6 * torch.eye(len(FREE), dtype=torch.float64):
        ends = [normal_equations(maps, retract(at, sign * step), PAIRS, FREE).cost for sign in (1, -1)]
        wanted.append((ends[0] - ends[1]) / 4e-6)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=1e-5 * float(found.abs().max()))


@pytest.mark.parametrize("at_once", [1, 100])
def test_the_cost_is_a_mean_over_what_is_seen(monkeypatch, at_once: int):
    """However many pairs are linearised at once."""
    at, maps = state(False), level(False)
    monkeypatch.setattr("freesteer.core.tracking.normal_equations.pairs_at_once", lambda _: at_once)
    each = linearised(maps, at, PAIRS)
    square = each.picture.square() + each.depth.square()
    seen = each.warped.seen.double()
    priors = add_priors(torch.zeros(len(FREE), len(FREE), dtype=torch.float64), torch.zeros(len(FREE), dtype=torch.float64), at)
    wanted = float((seen * (1 + square).log()).sum() / seen.sum()) + 2 * max(0.0, MOSTLY_SEEN - float(seen.mean())) + priors
    assert normal_equations(maps, at, PAIRS, FREE).cost == pytest.approx(wanted, rel=1e-9)


def test_priors_have_the_gradient_and_the_curvature_of_their_cost():
    at, size = state(False), len(FREE)
    hessian, gradient = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    middle = add_priors(hessian, gradient, at)
    for k, step in enumerate(1e-3 * torch.eye(size, dtype=torch.float64)):
        high, low = (add_priors(torch.zeros_like(hessian), torch.zeros_like(gradient), retract(at, sign * step)) for sign in (1, -1))
        assert float(gradient[k]) == pytest.approx((high - low) / 4e-3, abs=1e-9)
        assert float(hessian[k, k]) == pytest.approx((high - 2 * middle + low) / 2e-6, abs=1e-7)
    assert gradient[FOCAL] < 0 and hessian[FOCAL, FOCAL] > 0  # it is below what it was at first


def test_what_is_fixed_stays_and_damping_shrinks_the_rest():
    fixed = fixed_parameters(range(COUNT), range(COUNT), False, range(PER_FRAME))
    equations = normal_equations(level(False), state(False), PAIRS, fixed)
    step, small = equations.step(0.0), equations.step(1e6)
    assert not step[fixed].any() and step[~fixed].all()
    assert small.norm() < 1e-4 * step.norm()
    assert fixed[:PER_FRAME].tolist() == [k != SHIFT for k in range(PER_FRAME)] and not fixed[PER_FRAME:-1].any()
    only_scales = fixed_parameters(range(COUNT), range(COUNT), False, (LOG_SCALE, SHIFT))
    assert not only_scales[[LOG_SCALE, SHIFT]].any()  # cameras that are known give the unit


class Parabola:
    """Half of the cost's second derivative is said to be 20 times smaller than it is, so that the undamped step goes too far."""

    def __init__(self, x: float):
        self.x, self.cost = x, x * x

    def step(self, damping: float) -> float:
        return -self.x / (0.05 * (1 + damping))


def test_a_step_that_does_not_help_is_tried_shorter():
    tried = []

    def retracted(x: float, step: float) -> float:
        tried.append(x + step)
        return x + step

    x, cost = levenberg_marquardt(1.0, Parabola, retracted, 60)
    assert abs(tried[0]) > 1 and cost == x * x < 1e-3


def test_a_state_does_not_win_by_showing_less():
    """A mean over what is seen, of no less than a few pixels; and twice the share that is missing to what should be seen."""
    assert scale_of_cost(40.0, 100) == pytest.approx((1 / 40, 2 * (MOSTLY_SEEN - 0.4)))
    assert scale_of_cost(90.0, 100) == pytest.approx((1 / 90, 0.0))
    assert scale_of_cost(0.0, 100) == pytest.approx((1 / (100 * LEAST_SEEN), 2 * (MOSTLY_SEEN - 0.01)))
