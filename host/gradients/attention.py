"""Attention that has a derivative, for the one pass that is differentiated, whatever attention the host uses.

The fast kernels of a GPU (SageAttention, FlashAttention) have no backward pass: the gradient stops there without a word, or fails.
So the host's own function is exchanged for torch's while a pass is differentiated. An override that another pack has put on the model
stays in place and is called as ever, with that function inside; what it computes in a kernel of its own keeps its value, and gets the
derivative of ordinary attention (a straight-through estimator: Bengio et al. 2013, https://arxiv.org/abs/1308.3432).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ..models.taps import OVERRIDE

Attention = Callable[..., Tensor]


def with_derivative(transformer_options: dict[str, Any]) -> dict[str, Any]:
    """The same options, with attention that can be differentiated where autograd is on."""
    override: Attention | None = transformer_options.get(OVERRIDE)

    def attention(function: Attention, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled():
            function = attention_pytorch
        return function(*args, **kwargs) if override is None else _through(override, function, args, kwargs)

    return {**transformer_options, OVERRIDE: attention}


def _through(override: Attention, function: Attention, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """What another pack's override gives, with a derivative even if it has none."""
    calls = 0

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return function(*args, **kwargs)

    output = override(counted, *args, **kwargs)
    if not torch.is_grad_enabled() or (calls and output.requires_grad):
        return output
    exact = function(*args, **kwargs)
    return exact + (output - exact).detach() if exact.requires_grad else output
