"""One camera as the host's LOAD3D_CAMERA, what Load 3D, Create Camera Info and Render Splat give and take.

The host's world is three.js': right-handed, y up, and a camera looks down its own -z. Its splats lie in our frame, so that its
world is ours turned half around x: with D = diag(1, -1, -1), a pose R, t and C = -R't,

    position = D C,    rotation of the camera in the world (columns are its axes) = D R' D

The field of view is over the smaller side of the picture, and `zoom` multiplies the focal length (comfy_extras/
nodes_gaussian_splat.py of ComfyUI 0.30, _camera_basis and _render_gaussian; there a pixel's middle is at a whole number).
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.geometry.cameras import FARTHEST, Camera, from_field_of_view, rigid
from ..core.geometry.rotations import matrix, quaternion

D = (1.0, -1.0, -1.0)
FIELD_OF_VIEW = 35.0  # degrees; the host's own, where it is told none


def to_host(camera: Camera, distance: float = 1.0) -> dict[str, Any]:
    """`distance`: to the point that the viewer turns about, in the world's units.

    The host has one focal length and looks through the middle of the picture: of two focal lengths it gets the geometric mean,
    and a centre that is elsewhere is lost.
    """
    pose, flip = camera.pose.detach().cpu().double(), torch.tensor(D, dtype=torch.float64)
    turn = pose[:3, :3].mT
    position = -turn @ pose[:3, 3]
    focal = math.sqrt(float(camera.focal[0]) * float(camera.focal[1]))
    w, x, y, z = quaternion(flip[:, None] * turn * flip).tolist()
    return {
        "position": _named(flip * position),
        "target": _named(flip * (position + distance * turn[:, 2])),
        "quaternion": {"x": x, "y": y, "z": z, "w": w},
        "fov": math.degrees(2 * math.atan(min(camera.size) / 2 / focal)),
        "aspect": camera.size[1] / camera.size[0],
        "zoom": 1.0,
        "cameraType": "perspective",
    }


def from_host(info: dict[str, Any], size: tuple[int, int]) -> Camera:
    """The host's camera for pictures of a size (height, width), in float32. Raises ValueError for what is no camera of ours."""
    if not isinstance(info, dict):
        raise ValueError(f"camera_info has to be a camera, as from Create Camera Info; what came is {type(info).__name__}.")
    if str(info.get("cameraType", "")).lower().startswith("ortho"):
        raise ValueError("camera_info is orthographic: choose a perspective camera, since videos are taken with one.")
    flip = torch.tensor(D, dtype=torch.float64)
    position = flip * _vector(info, "position")
    if info.get("quaternion"):
        turn = (flip[:, None] * matrix(_vector(info, "quaternion", "wxyz", (1.0, 0.0, 0.0, 0.0))) * flip).mT
    else:
        turn = _upright(flip * _vector(info, "target") - position)
    degrees = _number(info, "fov") or FIELD_OF_VIEW
    zoom = _number(info, "zoom") or 1.0
    if not 0 < degrees < 180 or zoom < 0:
        raise ValueError(f"camera_info has a field of view of {degrees:g} degrees and a zoom of {zoom:g}: choose 1 to 120, and above 0.")
    camera = from_field_of_view(rigid(turn, -turn @ position).float(), degrees, size)
    return replace(camera, focal=camera.focal * zoom)


def target_of(info: dict[str, Any]) -> Tensor:
    """The point that the host's viewer turns about, (3,), in our frame. Raises ValueError for what is none."""
    return (torch.tensor(D, dtype=torch.float64) * _vector(info, "target")).float()


def _upright(forward: Tensor) -> Tensor:
    """World to camera, (3, 3), without roll; like the host, right is +x for what looks straight up or down, or nowhere."""
    forward = torch.nn.functional.normalize(forward, dim=0) if forward.any() else forward.new_tensor([0.0, 0.0, 1.0])
    right = forward.new_tensor([forward[2], 0.0, -forward[0]])
    right = torch.nn.functional.normalize(right, dim=0) if right.any() else forward.new_tensor([1.0, 0.0, 0.0])
    return torch.stack([right, torch.linalg.cross(forward, right), forward])


def _named(values: Tensor) -> dict[str, float]:
    return dict(zip("xyz", values.tolist(), strict=True))


def _vector(info: dict[str, Any], key: str, names: str = "xyz", without: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Tensor:
    values = info.get(key) or {}
    if not isinstance(values, dict):
        raise ValueError(f"camera_info has no numbers {', '.join(names)} as its {key}: take it from Create Camera Info.")
    numbers = [_number(values, name, usual) for name, usual in zip(names, without, strict=True)]
    return torch.tensor(numbers, dtype=torch.float64)


def _number(values: dict[str, Any], key: str, usual: float = 0.0) -> float:
    value = values.get(key, usual)
    try:
        number = float(value or 0.0)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= FARTHEST:
        raise ValueError(f"camera_info has {str(value)[:60]!r} for {key}, not a number within {FARTHEST:g}: use Create Camera Info.")
    return number
