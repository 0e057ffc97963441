"""What a Gaussian looks like on a picture: EWA splatting, Zwicker et al. 2001, as in 3D Gaussian Splatting (2308.04079, eq. 5).

The image of a covariance V is J W V W' J' + LOW_PASS, with W the camera's rotation and J the derivative of the perspective
division at the Gaussian's centre.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import Camera
from ..geometry.rotations import matrix
from .gaussians import Gaussians

LOW_PASS = 0.3  # pixels squared, added to the covariance: what is smaller than a pixel still covers one
NEAR = 0.01  # in units of the world; what is nearer, or behind, is not seen
WIDEST = 1e8  # pixels that a deviation counts for: beyond, the determinant is not finite in float32
FIELD = 0.3  # of half the picture: beyond its rim by this much, the derivative is that at the rim


@dataclass(frozen=True)
class Projected:
    """means: (N, 2), pixels; covariances: (N, 3), xx, xy, yy in pixels squared; depths: (N,), along the camera's axis."""

    means: Tensor
    covariances: Tensor
    depths: Tensor

    @property
    def conics(self) -> Tensor:
        """The inverses of the covariances: (N, 3)."""
        xx, xy, yy = self.covariances.unbind(-1)
        return torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy).clamp(min=LOW_PASS**2)[:, None]


def project(gaussians: Gaussians, camera: Camera) -> Projected:
    """Differentiable in the Gaussians, the pose and the intrinsics. What is not in front of NEAR has no meaning."""
    turn, shift = camera.pose[:3, :3], camera.pose[:3, 3]
    x, y, depth = (gaussians.positions @ turn.mT + shift).unbind(-1)
    z = torch.where(depth > NEAR, depth, 1)
    (fx, fy), (cx, cy), (height, width) = camera.focal, camera.centre, camera.size
    means = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    tx = torch.clamp(x / z, -(cx + FIELD * width / 2) / fx, (width - cx + FIELD * width / 2) / fx)
    ty = torch.clamp(y / z, -(cy + FIELD * height / 2) / fy, (height - cy + FIELD * height / 2) / fy)
    o = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, o, -fx * tx / z, o, fy / z, -fy * ty / z], -1).unflatten(-1, (2, 3))
    axes = jacobian @ (turn @ matrix(gaussians.rotations)) * gaussians.scales[:, None, :]  # (N, 2, 3)
    u, v = axes.clamp(-WIDEST, WIDEST).unbind(1)
    covariances = torch.stack([(u * u).sum(-1) + LOW_PASS, (u * v).sum(-1), (v * v).sum(-1) + LOW_PASS], -1)
    return Projected(means, covariances, depth)
