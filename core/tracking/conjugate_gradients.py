"""Preconditioned conjugate gradients (Hestenes and Stiefel 1952; in Saad's Iterative Methods for Sparse Linear Systems, algorithm 9.1)."""

from collections.abc import Callable

import torch
from torch import Tensor


def solve(
    times: Callable[[Tensor], Tensor], right: Tensor, precondition: Callable[[Tensor], Tensor], iterations: int, tolerance: float
) -> Tensor:
    """x (n,) with times(x) = right (n,); both functions are symmetric and positive definite, and `precondition` is about times' inverse.

    tolerance: of the residual's norm, as `precondition` measures it, over that of `right`.
    """
    x, residual = torch.zeros_like(right), right
    direction = precondition(residual)
    first = norm = residual @ direction
    for _ in range(iterations):
        if norm <= tolerance**2 * first:
            break
        image = times(direction)
        length = norm / (direction @ image)
        x, residual = x + length * direction, residual - length * image
        better = precondition(residual)
        before, norm = norm, residual @ better
        direction = better + norm / before * direction
    return x
