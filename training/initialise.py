"""Weights to start from."""

import math

from torch import nn


def initialise(module: nn.Module, zero: tuple[str, ...] = ()) -> None:
    """Fills all parameters (the host's layers start as uninitialised memory); names ending in one of `zero` start at 0."""
    for name, p in module.named_parameters():
        if name.endswith(zero) if zero else False:
            nn.init.zeros_(p)
        elif p.ndim > 1:
            nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))
        elif name.endswith("weight"):
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)
        p.requires_grad_(True)
