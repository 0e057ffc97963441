"""A term that asks cross-attention to look at the words of the thing that a place shows, and at how that moves.

Without it, models of this size take days to learn which colour goes with which shape. Names and motions have heads of their own: a place
that looks at a name knows what it shows, and where one pair of eyes does for both, nothing asks it to look at the motion any more.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

GROUPS = 4  # ground, three objects; as many again are their motions
HEAD = 32  # channels
LEAST = 1e-3  # of the attention that a place pays to its words: no lower one is told apart


class Looks:
    """Collects the queries and keys of a network's cross-attentions as it runs; `names` are pairs of modules that make them. In temporal
    layers a clip has all frames of one place before those of the next."""

    def __init__(self, network: nn.Module, names: list[tuple[str, str]], temporal: bool = False) -> None:
        self.names, self.temporal = names, temporal
        self.collected: dict[str, Tensor] = {}
        for name in (name for pair in names for name in pair):
            network.get_submodule(name).register_forward_hook(self._collect(name))

    def _collect(self, name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self.collected[name] = output

        return hook

    def loss(self, groups: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
        """Cross-entropy between what is shown and where heads look: the first half at names, the last third at motions if any is told.

        groups: (B, tokens), what a token speaks of (`text.tokens_and_groups`). masks: (B, frames, 4, H, W) of the same things.
        weight: (B)."""
        with torch.autocast(groups.device.type, enabled=False):
            return self._loss(groups, masks, weight)

    def _loss(self, groups: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
        told = (groups[..., None] == torch.arange(2 * GROUPS, device=groups.device)).float()  # (B, tokens, 8)
        names, motions = told.split(GROUPS, -1)
        moving = motions.amax((1, 2))
        losses = []
        for pair in self.names:
            q, k = (self.collected.pop(name) for name in pair)
            if self.temporal:
                q = rearrange(q, "b (s f) c -> b (f s) c", f=masks.shape[1])
            q, k = (rearrange(x, "b n (h d) -> b h n d", d=HEAD).float() for x in (q, k))
            heads = q.shape[1]
            side = int((q.shape[2] / masks.shape[1]) ** 0.5)
            pooled = F.adaptive_avg_pool2d(masks.flatten(0, 1), side).unflatten(0, masks.shape[:2])
            target = rearrange(pooled, "b f g y x -> b 1 (f y x) g")
            half, third = max(1, heads // 2), max(1, heads // 3)
            losses.append(_missed(q[:, :half], k[:, :half], names, target))
            if masks.shape[1] > 1:
                even = target / target.mean(2, keepdim=True).clamp(min=LEAST) / motions.amax(1).sum(-1).clamp(min=1)[:, None, None, None]
                losses[-1] = losses[-1] + moving * _missed(q[:, -third:], k[:, -third:], motions, even)
        return (torch.stack(losses).mean(0) * weight).mean()


def _missed(q: Tensor, k: Tensor, member: Tensor, target: Tensor) -> Tensor:
    """(B) the cross-entropy between `target` (B, 1, places, groups) and the attention that places pay to the tokens of each group, of
    what they pay to all of these: whether they look elsewhere as well is the network's own affair."""
    logits = q @ k.transpose(-1, -2) / HEAD**0.5
    told = member.amax(-1) > 0
    p = torch.softmax(logits.masked_fill((~told & told.any(1, keepdim=True))[:, None, None], -torch.inf), -1)
    seen = torch.einsum("bhnt,btg->bhng", p, member).clamp(min=LEAST)
    return -(target * seen.log()).sum(-1).mean((1, 2))
