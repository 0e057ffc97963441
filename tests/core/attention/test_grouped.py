import pytest
import torch
import torch.nn.functional as F
from freesteer.core.attention import grouped
from freesteer.core.attention.grouped import ANYTHING


def attend(part, q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def dense(q, k, v, query_labels, key_members):
    """As the paper writes it."""
    allowed = torch.ones(len(q), q.shape[-2], k.shape[-2], dtype=torch.bool)
    for row in range(len(q)):
        labels, members = query_labels[min(row, len(query_labels) - 1)], key_members[min(row, len(key_members) - 1)]
        for i, label in enumerate(labels.tolist()):
            if label != ANYTHING and members[label].any():
                allowed[row, i] = members[label]
    while allowed.ndim < q.ndim:
        allowed = allowed[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def problem(rows=5, queries=24, keys=18, labels=3, alike=False, heads=(), seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(rows, *heads, n, 8, generator=g) for n in (queries, keys, keys))
    r = 1 if alike else rows
    return q, k, v, torch.randint(-1, labels, (r, queries), generator=g), torch.rand(r, labels, keys, generator=g) < 0.4


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("heads", [(), (3,)])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_give_what_a_dense_mask_gives(alike, heads, seed):
    q, k, v, labels, members = problem(alike=alike, heads=heads, seed=seed)
    found = grouped.grouped_attention(attend, q, k, v, grouped.parts(labels, members))
    torch.testing.assert_close(found, dense(q, k, v, labels, members), atol=1e-5, rtol=1e-5)
    mask = grouped.table(labels, members)
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None] if heads else mask)
    torch.testing.assert_close(masked, found, atol=1e-5, rtol=1e-5)


def test_rows_with_equal_counts_go_together():
    labels = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]])
    members = torch.stack([labels == 0, labels == 1], 1)
    blocks = grouped.parts(labels, members)
    assert sorted(len(block.rows) for block in blocks if block.rows is not None) == [1, 1, 2, 2]


def test_one_label_is_plain_attention_without_a_copy():
    q, k, v, *_ = problem()
    blocks = grouped.parts(torch.zeros(1, 24, dtype=torch.long), torch.ones(1, 1, 18, dtype=torch.bool))
    seen = []
    found = grouped.grouped_attention(lambda part, *tensors: seen.append(tensors) or tensors[0], q, k, v, blocks)
    assert found is q and all(a is b for a, b in zip(seen[0], (q, k, v), strict=True))


def test_a_block_goes_to_a_device_whole():
    block = grouped.Part(torch.arange(2), torch.zeros(2, 3, dtype=torch.long), None)
    moved = block.to(torch.device("meta"))
    assert moved.rows is not None and moved.queries is not None and moved.keys is None
    assert moved.rows.is_meta and moved.queries.is_meta and moved.queries.shape == (2, 3)


def test_a_label_without_keys_attends_to_all():
    q, k, v, *_ = problem(rows=2)
    labels, members = torch.zeros(1, 24, dtype=torch.long), torch.zeros(1, 1, 18, dtype=torch.bool)
    found = grouped.grouped_attention(attend, q, k, v, grouped.parts(labels, members))
    torch.testing.assert_close(found, attend(None, q, k, v))


def test_each_query_is_in_one_block():
    *_, labels, members = problem(seed=7)
    times = torch.zeros(5, 24)
    for block in grouped.parts(labels, members):
        rows = torch.arange(5) if block.rows is None else block.rows
        queries = torch.arange(24).expand(len(rows), -1) if block.queries is None else block.queries.expand(len(rows), -1)
        times[rows[:, None], queries] += 1
    assert (times == 1).all()
