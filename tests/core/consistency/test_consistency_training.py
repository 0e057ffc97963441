"""Consistency training beside its formulas, number by number in float64."""

import math

import pytest
import torch
from freesteer.core.consistency import consistency_training as ct

SIGMAS = torch.tensor([0.0, 0.03, 0.4, 1.3, 5.0, 14.6], dtype=torch.float64)


def test_levels_double_at_even_intervals():
    found = [ct.discretisation(k, 400, most=80) for k in range(400)]
    k_prime = 400 // (math.floor(math.log2(80 // 10)) + 1)
    assert found == [min(10 * 2 ** math.floor(k / k_prime), 80) + 1 for k in range(400)]
    assert sorted(set(found)) == [11, 21, 41, 81] and found[-1] == 81


def test_no_more_levels_than_there_are():
    assert {ct.discretisation(k, 30, most=4) for k in range(30)} == {5}
    assert ct.spread(51, 11).tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]


def test_odds_are_lognormal():
    found = ct.odds(SIGMAS)

    def below(sigma):
        return math.erf((math.log(max(sigma, 1e-12)) + 1.1) / (2.0 * math.sqrt(2)))

    shares = [below(b) - below(a) for a, b in zip(SIGMAS.tolist()[:-1], SIGMAS.tolist()[1:], strict=True)]
    torch.testing.assert_close(found, torch.tensor([share / sum(shares) for share in shares], dtype=torch.float64))


def test_pairs_are_neighbours_as_often_as_they_should_be():
    lower, higher = ct.pairs_of_levels(SIGMAS, 20_000, torch.Generator().manual_seed(0))
    index = torch.searchsorted(SIGMAS, lower)
    assert torch.equal(higher, SIGMAS[index + 1])
    torch.testing.assert_close(torch.bincount(index, minlength=5) / 20_000, ct.odds(SIGMAS).float(), atol=0.01, rtol=0)


def test_the_loss():
    found, target = (torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(s)) for s in range(2))
    lower, higher = SIGMAS[:3].float(), SIGMAS[1:4].float()
    h, wanted = 0.00054 * math.sqrt(8), 0.0
    for row in range(3):
        square = sum((a - b) ** 2 for a, b in zip(found[row].flatten().tolist(), target[row].flatten().tolist(), strict=True))
        wanted += (math.sqrt(square + h * h) - h) / (float(higher[row]) - float(lower[row])) / 3
    assert float(ct.consistency_loss(found, target, lower, higher)) == pytest.approx(wanted / 8, rel=1e-5)


def test_the_target_has_no_gradient():
    found, target = (torch.randn(2, 4, 2, 2).requires_grad_() for _ in range(2))
    ct.consistency_loss(found, target, torch.zeros(2), torch.ones(2)).backward()
    assert found.grad is not None and target.grad is None
