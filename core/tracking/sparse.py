"""A sparse square matrix as a list of its entries: torch's own kind is not there on every device (Apple's lacks it)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class SparseMatrix(NamedTuple):
    """rows, columns, values: (n,), each place once; size: of rows and of columns."""

    rows: Tensor
    columns: Tensor
    values: Tensor
    size: int

    def times(self, x: Tensor) -> Tensor:
        """Of a vector (size,)."""
        return x.new_zeros(self.size).index_add(0, self.rows, self.values * x[self.columns])

    def row_sums(self) -> Tensor:
        """(size,), of absolute values."""
        return self.values.new_zeros(self.size).index_add(0, self.rows, self.values.abs())

    def symmetric(self, scale: float) -> "SparseMatrix":
        """scale times the sum of this and its transpose."""
        transposed = SparseMatrix(self.columns, self.rows, self.values, self.size)
        both = added([self, transposed])
        return both._replace(values=scale * both.values)


def of_entries(rows: Tensor, columns: Tensor, values: Tensor, size: int) -> SparseMatrix:
    """Entries (n,) at the same place are added up."""
    places, number = torch.unique(rows * size + columns, return_inverse=True)
    return SparseMatrix(places // size, places % size, values.new_zeros(len(places)).index_add(0, number, values), size)


def added(matrices: Sequence[SparseMatrix]) -> SparseMatrix:
    """The sum of matrices of one size."""
    rows, columns, values = (torch.cat(parts) for parts in zip(*((m.rows, m.columns, m.values) for m in matrices), strict=True))
    return of_entries(rows, columns, values, matrices[0].size)
