"""Attention as a map: how much each query looks at each key.

Attention Is All You Need, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1: softmax(q k^T / sqrt(d)).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def attention_probabilities(
    q: Tensor, k: Tensor, heads: int, words: Tensor | None = None, known: Tensor | None = None, chunk: int = 1024
) -> Tensor:
    """softmax(q k^T / sqrt(d)) averaged over heads, in float32 or better.

    q: (rows, n, heads * d), k: (rows, m, heads * d); the result is (rows, n, m), or (rows, n, j), its product with `words` (rows, m, j).
    known: (rows, m) bool, False for keys that are masked out. Queries go in chunks, so that the map of all heads never exists at once;
    where there are several, backward computes each again.
    """
    q, k = (t.to(torch.promote_types(t.dtype, torch.float32)).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))

    def of_chunk(q: Tensor, k: Tensor) -> Tensor:
        scores = q * q.shape[-1] ** -0.5 @ k.mT
        scores = scores if known is None else scores.masked_fill(~known[:, None, None], -torch.inf)
        mean = scores.softmax(-1).mean(1)
        return mean if words is None else mean @ words.to(mean.dtype)

    parts = q.split(chunk, dim=2)  # rows, heads, tokens, d
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([of_chunk(part, k) for part in parts], 1)
    return torch.cat([checkpoint(of_chunk, part, k, use_reentrant=False) for part in parts], 1)


def mean_maps(layers: list[Tensor], grids: list[tuple[int, int, int]]) -> Tensor:
    """Means over layers of maps (B, F * h * w, tokens) on token grids (F, h, w), on the finest of these: (B, tokens, F, h, w)."""
    finest = max(grids)
    maps = []
    for layer, grid in zip(layers, grids, strict=True):
        f, h, w = grid
        each = rearrange(layer, "b (f h w) t -> b t f h w", f=f, h=h, w=w)
        maps.append(each if grid == finest else F.interpolate(each, finest, mode="trilinear"))
    return torch.stack(maps).mean(0)
