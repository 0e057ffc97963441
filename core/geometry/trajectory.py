"""How far an estimated camera path is from the true one, however it is placed, turned and scaled.

The similarity that brings points x to points y with the least squared error (Umeyama 1991, IEEE PAMI 13(4), eq. 34-43), with
U D V' the singular values of the covariance of y and x, and S = diag(1, 1, det U det V):

    R = U S V',   s = tr(D S) / var(x),   t = mean(y) - s R mean(x)

ATE and RPE: Sturm et al. 2012, "A benchmark for the evaluation of RGB-D SLAM systems", in the protocol of COLMAP-Free 3D
Gaussian Splatting (2312.07504), whose tables have ATE in units of the path's own size. All is computed in float64, on the CPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .cameras import inverse, rigid
from .rotations import unskew


class Similarity(NamedTuple):
    """x to scale * rotation @ x + translation. rotation: (3, 3); translation: (3,)."""

    scale: float
    rotation: Tensor
    translation: Tensor

    def of(self, points: Tensor) -> Tensor:
        """(..., 3) to (..., 3)."""
        return self.scale * points @ self.rotation.mT + self.translation


def similarity(source: Tensor, target: Tensor) -> Similarity:
    """The one that brings `source` (F, 3) nearest to `target` (F, 3), in the type and on the device of `source`.

    Points on one line leave a turn about it open; one of the best is taken. Raises ValueError where either set is one place.
    """
    return _similarity(*_moving(source, target), source)


def ate(estimated: Tensor, true: Tensor) -> float:
    """The absolute trajectory error of positions (F, 3) as CF-3DGS has it: without unit, 0..1/sqrt(F).

    Both are centred and divided by their Frobenius norms, then a similarity is found, and what is left is a root of mean squares
    over frames. So it is `aligned_rmse` over the norm of the true path: it falls with the number of frames.
    """
    x, y = (points - points.mean(0) for points in _moving(estimated, true))
    return _rmse(x / x.norm(), y / y.norm())


def aligned_rmse(estimated: Tensor, true: Tensor) -> float:
    """How far positions (F, 3) are from the true ones after the best similarity: a root of mean squares, in the units of `true`."""
    return _rmse(*_moving(estimated, true))


def rpe(estimated_poses: Tensor, true_poses: Tensor) -> tuple[float, float]:
    """The relative pose error between neighbours, of poses (F, 4, 4), world to camera: the mean length of what is left of each
    step, in the units of the true ones, and the mean angle in degrees.

    The estimated translations are first brought to the true scale, that of `similarity`; as they are where either camera never
    moves. CF-3DGS prints 100 times the first over the Frobenius norm of the true positions, centred.
    """
    estimated, true = (inverse(poses.detach().cpu().double()) for poses in (estimated_poses, true_poses))  # camera to world
    x, y = _pair(estimated[:, :3, 3], true[:, :3, 3])
    if len(x) < 2:
        raise ValueError("One frame has no neighbour: the relative error needs two or more.")
    if not _still(x, estimated_poses.dtype) and not _still(y, true_poses.dtype):
        estimated = rigid(estimated[:, :3, :3], estimated[:, :3, 3] * _similarity(x, y, x).scale)
    left = inverse(_steps(true)) @ _steps(estimated)
    return float(left[:, :3, 3].norm(dim=-1).mean()), float(torch.rad2deg(_angle(left[:, :3, :3])).mean())


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim != 2 or a.shape[-1] != 3 or len(a) == 0:
        raise ValueError(f"Two paths must have the same frames to be compared; these have {len(a)} and {len(b)}.")
    return a.detach().cpu().double(), b.detach().cpu().double()


def _moving(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _pair(a, b)
    if _still(x, a.dtype) or _still(y, b.dtype):
        raise ValueError("A camera that never moves has no path to compare: all of its positions are the same.")
    return x, y


def _still(points: Tensor, dtype: torch.dtype) -> bool:
    """Whether points (F, 3) are one place, up to the rounding of the type that they came in."""
    return float((points - points.mean(0)).abs().amax()) <= 16 * torch.finfo(dtype).eps * float(points.abs().amax())


def _similarity(x: Tensor, y: Tensor, like: Tensor) -> Similarity:
    from_x, from_y = x - x.mean(0), y - y.mean(0)
    u, d, vh = torch.linalg.svd(from_y.mT @ from_x)
    s = torch.ones_like(d)
    s[2] = torch.linalg.det(u @ vh).sign()
    turn = u @ (s[:, None] * vh)
    scale = float((d * s).sum() / from_x.square().sum())
    return Similarity(scale, turn.to(like), (y.mean(0) - scale * turn @ x.mean(0)).to(like))


def _rmse(x: Tensor, y: Tensor) -> float:
    left = _similarity(x, y, x).of(x) - y
    return float(left.square().sum(-1).mean().sqrt())


def _steps(poses: Tensor) -> Tensor:
    """From each to the next, (F - 1, 4, 4), of poses camera to world."""
    return inverse(poses[:-1]) @ poses[1:]


def _angle(rotation: Tensor) -> Tensor:
    """Radians, 0..pi, of (..., 3, 3); exact at both ends, where an arc cosine is not."""
    sine = unskew(rotation - rotation.mT).norm(dim=-1)
    return torch.atan2(sine, rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)
