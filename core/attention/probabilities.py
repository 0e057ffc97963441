"""Attention as a map: how much each query looks at each key.

Attention Is All You Need, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1: softmax(q k^T / sqrt(d)).
"""

import torch
from torch import Tensor


def attention_probabilities(q: Tensor, k: Tensor, heads: int, key_tokens: slice = slice(None), chunk: int = 1024) -> Tensor:
    """softmax(q k^T / sqrt(d)) averaged over heads, in float32, for the keys in `key_tokens`.

    q: (rows, n, heads * d), k: (rows, m, heads * d); the result is (rows, n, m'). The softmax is over all m keys before
    `key_tokens` are cut out. Queries go in chunks, so that the map of all heads never exists at once.
    """
    q, k = (t.float().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))  # rows, heads, tokens, d
    scale = q.shape[-1] ** -0.5
    parts = [((part * scale) @ k.transpose(-1, -2)).softmax(-1)[..., key_tokens].mean(1) for part in q.split(chunk, dim=2)]
    return torch.cat(parts, dim=1)
