"""Maps of attention against the formula, written out for each head, query and key in float64."""

import math

import torch
from freesteer.core.attention.probabilities import attention_probabilities, mean_maps


def test_they_are_the_formula():
    q, k = (torch.randn(2, n, 6, generator=torch.Generator().manual_seed(n)) for n in (7, 5))
    found = attention_probabilities(q, k, heads=2, chunk=3)
    for row in range(2):
        for i in range(7):
            wanted = torch.zeros(5, dtype=torch.float64)
            for head in (slice(0, 3), slice(3, 6)):
                scores = [math.exp(float(q[row, i, head].double() @ k[row, j, head].double()) / math.sqrt(3)) for j in range(5)]
                wanted += torch.tensor(scores, dtype=torch.float64) / sum(scores) / 2
            torch.testing.assert_close(found[row, i].double(), wanted, rtol=1e-5, atol=1e-6)


def test_they_sum_to_one_over_all_tokens_and_are_put_together_afterwards():
    q, k, words = torch.randn(2, 30, 8), torch.randn(2, 5, 8), torch.rand(2, 5, 3)
    whole = attention_probabilities(q, k, heads=2, chunk=7)
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, 30))
    torch.testing.assert_close(attention_probabilities(q, k, 2, words, chunk=7), whole @ words)


def test_keys_that_are_masked_out_get_nothing():
    q, k = torch.randn(2, 30, 8), torch.randn(2, 5, 8)
    known = torch.tensor([[True, True, True, False, False], [True] * 5])
    found = attention_probabilities(q, k, 2, known=known)
    torch.testing.assert_close(found[:1, :, :3], attention_probabilities(q[:1], k[:1, :3], 2))
    torch.testing.assert_close(found[1:], attention_probabilities(q[1:], k[1:], 2))
    assert not found[0, :, 3:].any()


def test_in_chunks_the_gradient_is_the_same():
    q, k = (torch.randn(2, n, 8, dtype=torch.float64, requires_grad=True) for n in (30, 5))
    wanted, found = (torch.autograd.grad(attention_probabilities(q, k, 2, chunk=c).square().sum(), (q, k)) for c in (1024, 7))
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other)


def test_maps_of_several_grids_come_to_the_finest():
    fine, coarse = torch.rand(2, 24, 3), torch.full((2, 6, 3), 0.5)
    found = mean_maps([fine, coarse], [(1, 4, 6), (1, 2, 3)])
    assert found.shape == (2, 3, 1, 4, 6)
    torch.testing.assert_close(found, (fine.mT.reshape(2, 3, 1, 4, 6) + 0.5) / 2)


def test_a_coarse_map_lies_where_it_lay():
    ramp = torch.arange(4.0).view(1, 4, 1)  # (1, 1, 4): centres at 1, 3, 5, 7 of 8
    found = mean_maps([ramp, torch.zeros(1, 8, 1)], [(1, 1, 4), (1, 1, 8)])[0, 0, 0, 0] * 2
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))
