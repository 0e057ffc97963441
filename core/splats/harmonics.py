"""Real spherical harmonics to degree 3, with the signs and order of 3D Gaussian Splatting: y before z before x in degree 1.

A colour is 1/2 + sum_k sh_k Y_k(direction from the camera to the Gaussian), not below 0.
"""

import math

import torch
from torch import Tensor

DC = 0.28209479177387814  # Y_0, a constant


def basis(directions: Tensor, degree: int) -> Tensor:
    """Unit vectors (..., 3) to (..., (degree + 1)^2)."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, DC)]
    if degree > 0:
        c = math.sqrt(3 / (4 * math.pi))
        values += [-c * y, c * z, -c * x]
    if degree > 1:
        c, d, e = math.sqrt(15 / (4 * math.pi)), math.sqrt(5 / (16 * math.pi)), math.sqrt(15 / (16 * math.pi))
        values += [c * x * y, -c * y * z, d * (3 * z * z - 1), -c * x * z, e * (x * x - y * y)]
    if degree > 2:
        a, b = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (4 * math.pi))
        c, d, e = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi)), math.sqrt(105 / (16 * math.pi))
        values += [
            -a * y * (3 * x * x - y * y), b * x * y * z, -c * y * (5 * z * z - 1), d * z * (5 * z * z - 3),
            -c * x * (5 * z * z - 1), e * z * (x * x - y * y), -a * x * (x * x - 3 * y * y),
        ]  # fmt: skip
    return torch.stack(values, -1)


def degree_of(sh: Tensor) -> int:
    return math.isqrt(sh.shape[-2]) - 1


def colours(sh: Tensor, directions: Tensor) -> Tensor:
    """Coefficients (N, K, 3) seen along directions (N, 3), of any length, to RGB (N, 3)."""
    if sh.shape[-2] == 1:
        return (0.5 + DC * sh[:, 0]).clamp(min=0)
    seen = basis(torch.nn.functional.normalize(directions, dim=-1), degree_of(sh))
    return (0.5 + (seen[..., None] * sh).sum(-2)).clamp(min=0)


def of_colours(rgb: Tensor) -> Tensor:
    """RGB (N, 3) to coefficients (N, 1, 3) that look like it from everywhere."""
    return ((rgb - 0.5) / DC)[:, None]
