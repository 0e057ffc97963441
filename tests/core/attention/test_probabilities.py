"""Maps of attention against the formula, written out for each head, query and key in float64."""

import math

import torch
from freesteer.core.attention.probabilities import attention_probabilities


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


def test_they_sum_to_one_over_all_tokens_and_are_cut_afterwards():
    q, k = torch.randn(2, 30, 8), torch.randn(2, 5, 8)
    whole = attention_probabilities(q, k, heads=2, chunk=7)
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, 30))
    torch.testing.assert_close(attention_probabilities(q, k, heads=2, key_tokens=slice(1, 3)), whole[..., 1:3])
