"""A scene of Gaussians: 3D Gaussian Splatting, Kerbl et al. 2023, https://arxiv.org/abs/2308.04079."""
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from . import harmonics


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians, activated, in the world's frame and units.

    positions: (N, 3); scales: (N, 3), deviations along their own axes; rotations: (N, 4), unit quaternions wxyz; opacities:
    (N,), 0..1; sh: (N, K, 3), K = (degree + 1)^2 coefficients of the colour, see harmonics.py.
    """

    positions: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    sh: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows) -> "Gaussians":
        return Gaussians(*(getattr(self, f.name)[rows] for f in fields(self)))

    def to(self, where: torch.device | str | torch.dtype) -> "Gaussians":
        return Gaussians(*(getattr(self, f.name).to(where) for f in fields(self)))

    def detach(self) -> "Gaussians":
        return Gaussians(*(getattr(self, f.name).detach() for f in fields(self)))


def join(parts: list[Gaussians]) -> Gaussians:
    return Gaussians(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Gaussians)))


def moved(gaussians: Gaussians, pose: Tensor) -> Gaussians:
    """The scene in another frame: positions, covariances and view-dependent colours all turn with the pose (4, 4)."""
    turn = pose[:3, :3]
    return replace(
        gaussians,
        positions=gaussians.positions @ turn.mT + pose[:3, 3],
        rotations=multiply(quaternion(turn), gaussians.rotations),
        sh=harmonics.rotated(gaussians.sh, turn),
    )


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


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Products of quaternions wxyz, (..., 4)."""
    w, x, y, z = a.unbind(-1)
    s, i, j, k = b.unbind(-1)
    return torch.stack([
        w * s - x * i - y * j - z * k, w * i + x * s + y * k - z * j,
        w * j - x * k + y * s + z * i, w * k + x * j - y * i + z * s,
    ], -1)  # fmt: skip
