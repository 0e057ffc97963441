"""CAMERA_PATH, what passes between the nodes of cameras, and checks of it."""

from dataclasses import fields, replace
from typing import TypeVar

import torch
from comfy_api.latest import io
from torch import Tensor

from ...core.geometry.cameras import FARTHEST, CameraPath
from .checks import InputError, kind_of

CATEGORY = "FreeSteer/Splats"
CAMERA_PATH = io.Custom("FREESTEER_CAMERA_PATH")
NARROWEST = 1e-6  # focal length, in pixels
SKEWED = 1e-2  # by which a rotation may miss being one

Value = TypeVar("Value")


def copied_to(value: Value, device: torch.device | str) -> Value:
    """A dataclass of tensors (Gaussians, Camera, CameraPath) with copies of them on a device: no inference tensors, no gradients."""
    tensors = {f.name: getattr(value, f.name) for f in fields(value)}  # pyright: ignore[reportArgumentType]
    with torch.inference_mode(False):
        copies = {name: tensor.detach().clone().to(device) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    return replace(value, **copies)  # pyright: ignore[reportArgumentType]


def camera_path(name: str, value: object) -> CameraPath:
    if not isinstance(value, CameraPath):
        raise InputError(f"{name} has to be a camera path, as from Camera Orbit or Load Camera Path; what came is {kind_of(value)}.")
    tensors = (value.poses, value.focal, value.centre)
    shapes = [tuple(part.shape[-2:]) if isinstance(part, Tensor) and part.is_floating_point() else None for part in tensors]
    sizes = isinstance(value.size, tuple) and len(value.size) == 2 and all(isinstance(side, int) and side > 0 for side in value.size)
    if shapes != [(4, 4), (2,), (2,)] or value.poses.ndim != 3 or len(value.poses) == 0 or not sizes:
        raise InputError(f"{name} has no frames, or tensors of other shapes than a camera path has: make or load it again.")
    if not all(torch.isfinite(part).all() for part in tensors):
        raise InputError(f"{name} has cameras with values that are not numbers (NaN or infinity): make or load it again.")
    turns = value.poses[:, :3, :3].cpu().double()  # MPS has no float64
    skew = (turns @ turns.mT - torch.eye(3).to(turns)).abs().amax()
    if skew > SKEWED or value.focal.amin() < NARROWEST or max(float(part.abs().amax()) for part in tensors) > FARTHEST:
        raise InputError(f"{name} has poses that scale or skew, numbers beyond {FARTHEST:g}, or no focal length: make or load it again.")
    return value


def as_many(name: str, value: Tensor, other: str, wanted: Tensor) -> None:
    if len(value) != len(wanted):
        raise InputError(f"{name} has {len(value)} pictures, {other} {len(wanted)}: connect as many of both.")
