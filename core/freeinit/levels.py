"""Where a pass of FreeInit starts again, below the end of a schedule: for models whose schedule leaks no signal there, and for others.

A model that predicts noise is given, at sampling's start, pure noise where it was trained on noise with a trace of signal: that gap is
what FreeInit (arXiv 2312.07537) closes, and the trace is what carries the layout from pass to pass. With flow matching,
x_s = (1 - s) x_0 + s e, there is neither at s = 1. So a pass starts again at s_r < 1, from

    x_{s_r}  =  (1 - s_r) x_0  +  s_r mix(e_0, e_new)

which is what the model was trained on. By default s_r is where signal and noise stand as at the end of Stable Diffusion's schedule,
(1 - s_r) / s_r = 1 / 14.6. Models that predict noise can start below their end as well: x_0 + sigma e is the same, 1 / (1 - s_r) times
as large, where sigma = s_r / (1 - s_r).
"""

import torch
from torch import Tensor

SD_END = 14.6146  # the highest sigma of Stable Diffusion's schedule
MATCHED = SD_END / (1 + SD_END)  # .936


def sigma_of(level: float) -> float:
    """The sigma of a model that predicts noise at which signal and noise stand as at `level` of a flow model."""
    return level / (1 - level)


def highest_of(sigma_max: float) -> float:
    """The highest sigma at which a model that predicts noise is still given a layout: the end of its schedule, unless that lies far above
    Stable Diffusion's, as in SVD (700) and with a terminal signal of zero."""
    return sigma_max if sigma_max < 2 * SD_END else SD_END


def restarted(sigmas: Tensor, level: float) -> Tensor:
    """The part of a schedule (steps + 1,) that lies below `level`, which it now begins with."""
    below = sigmas[sigmas < level * (1 - 1e-4)]
    return torch.cat([sigmas.new_tensor([level]), below])


def first_steps(sigmas: Tensor, share: float) -> Tensor:
    """The first steps of a schedule (steps + 1,), so many of 1; at least one step."""
    steps = max(1, round(share * (len(sigmas) - 1)))
    return sigmas[: steps + 1]


def per_pass(first: float, last: float, passes: int) -> list[float]:
    """Values of `passes` passes that go evenly from the first to the last; of one pass, the last."""
    return torch.linspace(first, last, passes).tolist() if passes > 1 else [last]
