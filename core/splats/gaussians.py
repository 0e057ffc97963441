"""A scene of Gaussians: 3D Gaussian Splatting, Kerbl et al. 2023, https://arxiv.org/abs/2308.04079."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


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
