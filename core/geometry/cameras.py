"""Pinhole cameras and rigid motions, in OpenCV's convention: x right, y down, z forward, pixel centres at +.5.

A pose is a matrix (4, 4) that takes points of the world into the camera's frame (world to camera). A twist is (6,): three of
translation, three of rotation, in radians; its exponential is a pose (Solà, Deray, Atchuthan 2018, arXiv 1812.01537, eq. 172).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .rotations import skew, unskew

FARTHEST = 1e9  # of a world, in its units: its square is still finite in float32
SMALL = 0.1  # radians: below it the quotients of the exponential and the logarithm are series, whose fifth terms are below 1e-16 there
# Taylor coefficients in the square of an angle x
SIN_SERIES = (1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)  # sin(x) / x
COS_SERIES = (1 / 2, -1 / 24, 1 / 720, -1 / 40320, 1 / 3628800)  # (1 - cos(x)) / x^2
CUBE_SERIES = (1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800)  # (x - sin(x)) / x^3
INVERSE_SIN_SERIES = (1, 1 / 6, 7 / 360, 31 / 15120, 127 / 604800)  # x / sin(x)
COT_SERIES = (1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160)  # (1 - x/2 cot(x/2)) / x^2


@dataclass(frozen=True)
class Camera:
    """pose: (4, 4), world to camera. focal: (2,) and centre: (2,), both x before y, in pixels. size: (height, width)."""

    pose: Tensor
    focal: Tensor
    centre: Tensor
    size: tuple[int, int]

    def resized(self, height: int, width: int) -> "Camera":
        """The same view in another number of pixels."""
        scale = self.focal.new_tensor([width / self.size[1], height / self.size[0]])
        return replace(self, focal=self.focal * scale, centre=self.centre * scale, size=(height, width))

    def at(self, pose: Tensor) -> "Camera":
        return replace(self, pose=pose)

    @property
    def position(self) -> Tensor:
        """(3,), in the world."""
        return -self.pose[:3, :3].mT @ self.pose[:3, 3]


@dataclass(frozen=True)
class CameraPath:
    """A camera that moves: poses (F, 4, 4), world to camera; focal, centre and size as in Camera, the same for all frames."""

    poses: Tensor
    focal: Tensor
    centre: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, frame: int) -> Camera:
        return Camera(self.poses[frame], self.focal, self.centre, self.size)

    @property
    def positions(self) -> Tensor:
        """(F, 3), in the world."""
        return inverse(self.poses)[:, :3, 3]


def from_field_of_view(pose: Tensor, degrees: float, size: tuple[int, int], over: str = "smaller side") -> Camera:
    """A camera whose field of view is `degrees` over the "smaller side", as the host has it, or over "width" or "height"."""
    height, width = size
    span = {"smaller side": min(size), "width": width, "height": height}[over]
    return from_focal(pose, span / 2 / math.tan(math.radians(degrees) / 2), size)


def from_focal(pose: Tensor, pixels: float, size: tuple[int, int]) -> Camera:
    """A camera with square pixels that looks through the middle of the picture."""
    height, width = size
    return Camera(pose, pose.new_tensor([pixels, pixels]), pose.new_tensor([width / 2, height / 2]), size)


def exponential(twist: Tensor) -> Tensor:
    """Twists (..., 6) to poses (..., 4, 4); differentiable at 0 as well."""
    translation, rotation = twist[..., :3], twist[..., 3:]
    square = rotation.square().sum(-1)[..., None, None]
    small = square < SMALL**2
    angle = torch.where(small, 1, square).sqrt()
    a = torch.where(small, _series(square, SIN_SERIES), angle.sin() / angle)
    b = torch.where(small, _series(square, COS_SERIES), 2 * ((angle / 2).sin() / angle).square())  # 1 - cos x = 2 sin(x/2)^2: no cancelling
    c = torch.where(small, _series(square, CUBE_SERIES), (angle - angle.sin()) / angle**3)
    w = skew(rotation)
    eye = torch.eye(3, dtype=twist.dtype, device=twist.device)
    turned = eye + a * w + b * w @ w
    return rigid(turned, ((eye + b * w + c * w @ w) @ translation[..., None]).squeeze(-1))


def logarithm(pose: Tensor) -> Tensor:
    """Poses (..., 4, 4) to twists (..., 6); rotations of less than half a turn; differentiable at rest as well."""
    turned = pose[..., :3, :3]
    axis = unskew(turned - turned.mT) / 2  # as long as the sine of the angle
    sine = axis.norm(dim=-1)
    cosine = (turned.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    angle = torch.atan2(sine, cosine)
    small, square = angle < SMALL, angle.square()
    ratio = torch.where(small, _series(square, INVERSE_SIN_SERIES), angle / torch.where(small, 1, sine))
    w = skew(axis * ratio[..., None])
    half = torch.where(small, 1, angle / 2)
    d = torch.where(small, _series(square, COT_SERIES), (1 - half / half.tan()) / (4 * half.square()))
    inverse = torch.eye(3, dtype=pose.dtype, device=pose.device) - w / 2 + d[..., None, None] * w @ w
    return torch.cat([(inverse @ pose[..., :3, 3:]).squeeze(-1), unskew(w)], -1)


def _series(square: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """A polynomial in the square of an angle, by Horner's rule."""
    value = torch.zeros_like(square)
    for coefficient in reversed(coefficients):
        value = value * square + coefficient
    return value


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """(..., 3, 3) and (..., 3) to poses (..., 4, 4)."""
    last = translation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*translation.shape[:-1], 1, 4)
    return torch.cat([torch.cat([rotation, translation[..., None]], -1), last], -2)


def inverse(pose: Tensor) -> Tensor:
    """Of poses (..., 4, 4)."""
    turned = pose[..., :3, :3].mT
    return rigid(turned, -(turned @ pose[..., :3, 3:]).squeeze(-1))


def look_at(position: Tensor, target: Tensor) -> Tensor:
    """The pose of cameras at `position` (..., 3) that look at `target` (..., 3), with +y of the world down."""
    down = position.new_tensor([0.0, 1.0, 0.0])
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(down.expand_as(forward), forward), dim=-1)
    turned = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    return rigid(turned, -(turned @ position[..., None]).squeeze(-1))


def interpolate(poses: Tensor, place: Tensor) -> Tensor:
    """Poses (K, 4, 4) at places (M,) in 0..K-1, along the shortest screw motion from one to the next."""
    low = place.floor().long().clamp(0, max(len(poses) - 2, 0))
    high = (low + 1).clamp(max=len(poses) - 1)
    twist = logarithm(poses[high] @ inverse(poses[low]))
    return exponential(twist * (place - low)[:, None].to(poses)) @ poses[low]


def orbit(target: Tensor, radius: float, degrees: Tensor, height: float = 0.0) -> Tensor:
    """Poses (M, 4, 4) on a circle about `target` (3,), `height` above it, at angles (M,); at 0 it looks along +z."""
    angle = torch.deg2rad(degrees.to(target))
    position = target + torch.stack([-radius * angle.sin(), torch.full_like(angle, -height), -radius * angle.cos()], -1)
    return look_at(position, target.expand_as(position))
