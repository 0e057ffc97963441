"""Consistency training without a teacher, by the improved recipe (Song & Dhariwal 2023, https://arxiv.org/abs/2310.14189), as CCM
(Xiao et al. 2023, https://arxiv.org/abs/2312.06971) trains ControlNets by it on a consistency model that stays as it is.

    L      = lambda(n) d( f(x0 + sigma_{n+1} z), sg f(x0 + sigma_n z) ),    the same z for both, no average as target
    lambda = 1 / (sigma_{n+1} - sigma_n)
    d(a,b) = sqrt(|a - b|^2 + h^2) - h,   h = .00054 sqrt(numbers of a picture)
    p(n)   ~ erf((ln sigma_{n+1} - m) / (s sqrt 2)) - erf((ln sigma_n - m) / (s sqrt 2)),   m = -1.1, s = 2
    N(k)   = min(s0 2^floor(k / K'), s1) + 1,   K' = floor(K / (log2 floor(s1 / s0) + 1))

The paper's s1 is 1280. A model that was distilled on 50 levels knows no others, so there N ends at these.
"""

import math

import torch
from torch import Tensor

FEWEST, MOST = 10, 1280  # s0, s1
MEAN, SPREAD = -1.1, 2.0
HUBER = 0.00054


def discretisation(step: int, steps: int, most: int = MOST, fewest: int = FEWEST) -> int:
    """N(k): how many noise levels there are at a step, between `fewest` + 1 and `most` + 1, doubled at even intervals."""
    fewest = min(fewest, most)
    stretch = max(int(steps / (math.log2(most // fewest) + 1)), 1)
    return min(fewest * 2 ** (step // stretch), most) + 1


def spread(levels: int, count: int) -> Tensor:
    """`count` numbers, evenly spread, from 0 to `levels` - 1."""
    return torch.linspace(0, levels - 1, count).round().long()


def odds(sigmas: Tensor) -> Tensor:
    """The probability of each pair of neighbours (N - 1,), of rising levels (N,)."""
    below = torch.erf((sigmas.clamp(min=1e-12).log() - MEAN) / (SPREAD * 2**0.5))
    share = below[1:] - below[:-1]
    return share / share.sum()


def pairs_of_levels(sigmas: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(lower, higher) noise levels of `count` pictures, (count,) each, neighbours among the rising `sigmas`."""
    lower = torch.multinomial(odds(sigmas), count, replacement=True, generator=generator)
    return sigmas[lower], sigmas[lower + 1]


def consistency_loss(found: Tensor, target: Tensor, lower: Tensor, higher: Tensor) -> Tensor:
    """The mean over pictures (B, ...) of the weighted distance, over the numbers of a picture. target: has no gradient."""
    numbers = found[0].numel()
    h = HUBER * numbers**0.5
    distance = ((found.float() - target.detach().float()).square().flatten(1).sum(1) + h * h).sqrt() - h
    return (distance / (higher - lower)).mean() / numbers
