"""Rotations of space as matrices (..., 3, 3) and as quaternions (..., 4), wxyz."""

import torch
from torch import Tensor


def skew(v: Tensor) -> Tensor:
    """(..., 3) to the matrix (..., 3, 3) of the cross product with it."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def unskew(matrix: Tensor) -> Tensor:
    """The inverse of `skew`."""
    return torch.stack([matrix[..., 2, 1], matrix[..., 0, 2], matrix[..., 1, 0]], -1)


def matrix(quaternions: Tensor) -> Tensor:
    """(..., 4) wxyz of any length to rotation matrices (..., 3, 3)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion(rotation: Tensor) -> Tensor:
    """A rotation matrix (3, 3) to wxyz, by the branch that does not cancel."""
    m = rotation
    candidates = torch.stack([
        torch.stack([1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]),
        torch.stack([m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]]),
        torch.stack([m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[1, 2] + m[2, 1]]),
        torch.stack([m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]]),
    ])  # fmt: skip
    best = candidates.detach().diagonal().argmax()
    return torch.nn.functional.normalize(candidates[best], dim=0)
