"""A term that asks cross-attention to look at the words of the thing that a place shows.

Without it, models of this size take days to learn which colour goes with which shape.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

GROUPS = 4  # ground, three objects
HEAD = 32  # channels
LEAST = 1e-3  # of the attention that a place pays to its words: no lower one is told apart


class Looks:
    """Collects the queries and keys of a network's cross-attentions as it runs; `names` are pairs of modules that make them."""

    def __init__(self, network: nn.Module, names: list[tuple[str, str]]) -> None:
        self.names = names
        self.collected: dict[str, Tensor] = {}
        for name in (name for pair in names for name in pair):
            network.get_submodule(name).register_forward_hook(self._collect(name))

    def _collect(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.collected[name] = output

        return hook

    @torch.autocast("cpu", enabled=False)
    def loss(self, groups: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
        """Cross-entropy between what is shown and where the first half of the heads look.

        groups: (B, tokens), what a token speaks of (`text.tokens_and_groups`). masks: (B, frames, 4, H, W) of the same things.
        weight: (B)."""
        member = F.one_hot(groups + 1, GROUPS + 1)[..., 1:].float()  # (B, tokens, 4)
        losses = []
        for pair in self.names:
            q, k = (rearrange(self.collected.pop(name), "b n (h d) -> b h n d", d=HEAD).float() for name in pair)
            heads = max(1, q.shape[1] // 2)
            p = torch.softmax(q[:, :heads] @ k[:, :heads].transpose(-1, -2) / HEAD**0.5, -1)
            seen = torch.einsum("bhnt,btg->bhng", p, member).clamp(min=LEAST)
            side = int((q.shape[2] / masks.shape[1]) ** 0.5)
            pooled = F.adaptive_avg_pool2d(masks.flatten(0, 1), side).unflatten(0, masks.shape[:2])
            target = rearrange(pooled, "b f g y x -> b 1 (f y x) g")
            losses.append(-(target * seen.log()).sum(-1).mean((1, 2)))
        return (torch.stack(losses).mean(0) * weight).mean()
