"""How far to follow the gradient of an energy.

Polyak's step, E g / |g|^2 (Introduction to Optimization, 1987, sec. 5.3.2), which needs no rate that has to be found anew for every
model and number of steps, under a bound.
"""

import torch
from torch import Tensor


def bounded_step(gradient: Tensor, energy: Tensor, rate: float, limit: float) -> Tensor:
    """What to take off a latent so that its energy falls by the share `rate`, to first order, but not more than `limit` (RMS).

    gradient: (B, ...); energy: (B,). Where the gradient vanishes there is nothing to do, and the step is 0.
    """
    flat = gradient.flatten(1)
    square = flat.square().sum(1)
    step = flat * (rate * energy / square.clamp(min=1e-30))[:, None]
    rms = step.square().mean(1).sqrt()
    shrink = limit / (limit**2 + rms**2).sqrt()  # smooth, so that the limit is approached and never crossed
    return (step * torch.where(square > 0, shrink, 0)[:, None]).view_as(gradient)
