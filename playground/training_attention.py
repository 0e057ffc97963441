"""Attention for training: on a CPU torch's own kernel takes five times as long for the derivative of short sequences in bfloat16 as the
formula written out does."""

from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from einops import rearrange
from torch import Tensor

from ..host.models.taps import OVERRIDE

SHORT = 512  # tokens: the table of who attends to whom is small enough


def _attention(_function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any, **named: Any) -> Tensor:
    if q.shape[1] * k.shape[1] > SHORT**2 or q.device.type != "cpu":
        return attention_pytorch(q, k, v, heads, *rest, **named)
    q, k, v = (rearrange(x, "b n (h c) -> b h n c", h=heads) for x in (q, k, v))
    weights = torch.softmax((q @ k.mT) * q.shape[-1] ** -0.5, -1).to(v.dtype)
    return rearrange(weights @ v, "b h n c -> b n (h c)")


OPTIONS = {OVERRIDE: _attention}  # of a transformer; without masks, as the playground has none
