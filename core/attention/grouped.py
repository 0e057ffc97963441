"""PEEKABOO (arXiv 2312.07509): masked attention, without a mask of all tokens by all.

    MaskedAttention(Q, K, V)  =  softmax(Q K^T / sqrt(d) + M) V         M = 0 where labels match, -inf elsewhere

M falls into blocks: the queries of one label attend to the keys of that label. So tokens are gathered by label, attention runs block by
block, and results go back to their places. That is exact, works with every kernel, and costs less than plain attention, where the
matrix M of a video would take gigabytes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ANYTHING = -1  # the label of queries that attend to all keys
TOKENS = -2  # axis

Attend = Callable[["Part", Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A block of the attention matrix: rows of the batch, and of each its queries and keys. None: all. rows: (n,). queries, keys:
    (n, tokens), or (1, tokens) if they are the same in all rows."""

    rows: Tensor | None
    queries: Tensor | None
    keys: Tensor | None

    def to(self, device: torch.device) -> "Part":
        return Part(*(None if index is None else index.to(device) for index in (self.rows, self.queries, self.keys)))


def parts(query_labels: Tensor, key_members: Tensor) -> list[Part]:
    """The blocks of attention. query_labels: (R, Lq), ANYTHING or 0..G-1. key_members: (R, G, Lk) bool, which keys a label attends to.
    R is the number of rows, or 1 where they are all alike. A label that has no key attends to all."""
    found = []
    rows, groups = max(len(query_labels), len(key_members)), key_members.shape[1]
    query_labels, key_members = query_labels.expand(rows, -1), key_members.expand(rows, -1, -1)
    for label in range(ANYTHING, groups):
        asks = query_labels == label
        keys = key_members[:, label] if label != ANYTHING else torch.ones_like(key_members[:, 0])
        keys = torch.where(keys.any(1, keepdim=True), keys, True)
        counts = torch.stack([asks.sum(1), keys.sum(1)], 1)
        for count in counts.unique(dim=0):  # rows with as many queries and keys go together
            if count[0] == 0:
                continue
            chosen = (counts == count).all(1).nonzero()[:, 0]
            found.append(
                Part(None if len(chosen) == rows else chosen, _places(asks[chosen], int(count[0])), _places(keys[chosen], int(count[1])))
            )
    return found


def table(query_labels: Tensor, key_members: Tensor) -> Tensor:
    """M itself: (R, Lq, Lk) of 0 and -inf. Arguments as those of `parts`. For few queries by few keys, where one call is quicker than one
    for each label."""
    rows = max(len(query_labels), len(key_members))
    members = torch.cat([key_members | ~key_members.any(-1, keepdim=True), torch.ones_like(key_members[:, :1])], 1)  # the last: ANYTHING
    allowed = members.expand(rows, -1, -1)[torch.arange(rows)[:, None], query_labels.expand(rows, -1)]
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)


def _places(member: Tensor, count: int) -> Tensor | None:
    """(n or 1, count) indices of the members of each row, in order; None if all are."""
    if count == member.shape[1]:
        return None
    places = member.nonzero()[:, 1].view(len(member), count)
    return places[:1] if (places == places[:1]).all() else places


def grouped_attention(attend: Attend, q: Tensor, k: Tensor, v: Tensor, blocks: list[Part]) -> Tensor:
    """Attention in blocks that together hold every query once. q, k, v: (R, [heads,] tokens, channels). attend(part, q, k, v) does plain
    attention on gathered tokens, and gives (n, ..., tokens, channels); so does this."""
    if len(blocks) == 1 and blocks[0] == Part(None, None, None):
        return attend(blocks[0], q, k, v)
    output: Tensor | None = None
    for part in blocks:
        found = attend(part, *(take(x, part.rows, index) for x, index in ((q, part.queries), (k, part.keys), (v, part.keys))))
        if output is None:
            output = found.new_empty(len(q), *found.shape[1:TOKENS], q.shape[TOKENS], found.shape[-1])
        _put(output, part, found)
    assert output is not None
    return output


def take(x: Tensor, rows: Tensor | None, tokens: Tensor | None) -> Tensor:
    """Of x (R, ..., L, C), some rows and some tokens of each."""
    x = x if rows is None else x[rows]
    if tokens is None:
        return x
    if len(tokens) == 1:
        return x.index_select(TOKENS % x.ndim, tokens[0])
    return x.gather(TOKENS, _along(tokens, x))


def _put(output: Tensor, part: Part, found: Tensor) -> None:
    """Writes the tokens of a block to their places."""
    if part.queries is None:
        output[slice(None) if part.rows is None else part.rows] = found
    elif part.rows is None and len(part.queries) == 1:
        output.index_copy_(TOKENS % output.ndim, part.queries[0], found)
    elif part.rows is None:
        output.scatter_(TOKENS, _along(part.queries, found), found)
    else:
        some = output[part.rows]
        output[part.rows] = some.scatter_(TOKENS, _along(part.queries.expand(len(some), -1), found), found)


def _along(tokens: Tensor, x: Tensor) -> Tensor:
    """Indices (n, L) spread over the axes of x (n, ..., L, C)."""
    return tokens.view(len(tokens), *[1] * (x.ndim - 3), tokens.shape[1], 1).expand(len(x), *x.shape[1:TOKENS], -1, x.shape[-1])
