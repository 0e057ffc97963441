"""Layers compiled for a CPU, whose time is mostly spent between the products of matrices."""

from collections.abc import Iterable

import torch._dynamo
from torch import nn

FORMS = 64  # of inputs, and of what is told with them, that one layer is compiled for


def compile_each(layers: Iterable[nn.Module]) -> None:
    """Compiles layers in place, at their first call; those of one class together."""
    torch._dynamo.config.recompile_limit = FORMS
    for layer in layers:
        layer.compile(dynamic=False)
