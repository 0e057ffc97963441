"""Sparse matrices against dense ones."""

import torch
from freesteer.core.tracking import sparse


def test_they_are_the_dense_ones():
    draw = torch.Generator().manual_seed(0)
    rows, columns = torch.randint(0, 6, (2, 40), generator=draw)
    values, x = torch.randn(40, generator=draw, dtype=torch.float64), torch.randn(6, generator=draw, dtype=torch.float64)
    dense = torch.zeros(6, 6, dtype=torch.float64)
    for row, column, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
        dense[row, column] += value
    matrix = sparse.of_entries(rows, columns, values, 6)
    assert len(matrix.values) == int((dense != 0).sum())
    torch.testing.assert_close(matrix.times(x), dense @ x)
    torch.testing.assert_close(matrix.row_sums(), dense.abs().sum(1))
    torch.testing.assert_close(matrix.symmetric(0.5).times(x), 0.5 * (dense + dense.mT) @ x)
    torch.testing.assert_close(sparse.added([matrix, matrix]).times(x), 2 * dense @ x)
