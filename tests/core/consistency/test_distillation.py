"""Distillation beside its formulas, number by number in float64."""

import math

import pytest
import torch
from freesteer.core.consistency import distillation as d

RNG = torch.Generator().manual_seed(0)
X, CONDITIONAL, UNCONDITIONAL = (torch.randn(2, 3, 2, 2, generator=RNG, dtype=torch.float64) for _ in range(3))
HIGH, LOW = torch.tensor([14.6, 0.5], dtype=torch.float64), torch.tensor([12.1, 0.0], dtype=torch.float64)


def test_a_guided_step_is_ddims():
    """As published, in latents z = alpha x with alpha^2 + s^2 = 1: alpha' (z - s eps) / alpha + s' eps."""
    clean = d.guided(CONDITIONAL, UNCONDITIONAL, 4.0)
    found = d.ddim_step(X, clean, HIGH, LOW)
    for row in range(2):
        high, low = float(HIGH[row]), float(LOW[row])
        alpha, alpha_next = 1 / math.sqrt(1 + high**2), 1 / math.sqrt(1 + low**2)
        s, s_next = high * alpha, low * alpha_next
        for x, c, u, stepped in zip(*(t[row].flatten().tolist() for t in (X, CONDITIONAL, UNCONDITIONAL, found)), strict=True):
            z, x0 = alpha * x, u + 4 * (c - u)
            eps = (z - alpha * x0) / s
            z_next = alpha_next * (z - s * eps) / alpha + s_next * eps
            assert stepped == pytest.approx(z_next / alpha_next, rel=1e-9)


def test_a_step_to_no_noise_ends_at_the_prediction():
    clean = d.guided(CONDITIONAL, UNCONDITIONAL, 4.0)
    torch.testing.assert_close(d.ddim_step(X, clean, HIGH, torch.zeros(2, dtype=torch.float64)), clean)


def test_pseudo_huber():
    found = d.pseudo_huber(X, CONDITIONAL, 0.3)
    for a, b, distance in zip(*(t.flatten().tolist() for t in (X, CONDITIONAL, found)), strict=True):
        assert distance == pytest.approx(math.sqrt((a - b) ** 2 + 0.09) - 0.3, rel=1e-12)


def test_the_target_has_no_gradient():
    student, target = (X.float().clone().requires_grad_() for _ in range(2))
    d.distillation_loss(student, target + 1).backward()
    assert student.grad is not None and target.grad is None


def test_all_levels_but_that_without_noise_are_drawn():
    found = d.times(50, 5000, torch.Generator().manual_seed(0))
    assert found.unique().tolist() == list(range(1, 51))
