"""The noise levels of consistency models."""

import torch
from torch import Tensor

from ...host.adapters.practice import Practice

LEVELS = 50  # as the host's sampling for such models has them


def levels_of(practice: Practice) -> Tensor:
    """(LEVELS + 1,), rising, from none: those that the host's sampling lcm knows, or for flows evenly spread."""
    sampling = practice.sampling
    if hasattr(sampling, "sigmas") and hasattr(sampling, "num_timesteps"):
        table = sampling.sigmas
        found = table[len(table) // LEVELS - 1 :: len(table) // LEVELS]
    else:
        found = torch.tensor(
            [min(float(sampling.percent_to_sigma(1 - i / LEVELS)), float(sampling.sigma_max)) for i in range(1, LEVELS + 1)]
        )
    return torch.cat([found.new_zeros(1), found]).float()


def path_of(levels: Tensor, steps: int) -> list[float]:
    """The noise levels of so many steps: from the highest down, evenly spread, without the last one, which is none."""
    return levels[torch.linspace(len(levels) - 1, 0, steps + 1).round().long()][:-1].tolist()
