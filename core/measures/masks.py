"""How well two masks cover each other."""

from torch import Tensor


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of masks (..., H, W) of bool, 0 where both are empty: (...)."""
    both, either = (a & b).sum((-2, -1)), (a | b).sum((-2, -1))
    return both / either.clamp(min=1)
