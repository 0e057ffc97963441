"""nerfstudio's transforms.json (docs.nerf.studio, "Data conventions"): camera to world, with OpenGL's camera axes.

Those are x right, y up, looking down -z.
"""

from typing import Any

import torch
from torch import Tensor

from ..geometry.cameras import CameraPath, inverse, rigid
from . import checks
from .checks import CameraFileError, short

NERFSTUDIO = "transforms.json"
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")  # without distortion, all are the same
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def to_nerfstudio(path: CameraPath) -> dict[str, Any]:
    """The content of transforms.json."""
    fx, fy, cx, cy = (float(value) for value in (*path.focal, *path.centre))
    height, width = path.size
    seen_from = _flipped(inverse(checks.exact(path.poses)))
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
        for name, pose in zip(checks.picture_names(len(path)), seen_from, strict=True)
    ]
    return {"camera_model": "OPENCV", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height, "frames": frames}


def from_nerfstudio(content: dict[str, Any], file: str = NERFSTUDIO) -> CameraPath:
    """In float32. `file` is what errors call it."""
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise CameraFileError(f"{file} has no list of frames: choose a transforms.json of nerfstudio.")
    checks.count(file, len(frames))
    poses: dict[str, Tensor] = {}
    for number, frame in enumerate(frames, 1):
        name = frame.get("file_path")
        if not isinstance(name, str) or not 0 < len(name) <= checks.MOST["letters"]:
            raise CameraFileError(f"{file} does not say which picture frame {number} is (file_path): make it again.")
        rows = frame.get("transform_matrix")
        if not isinstance(rows, list) or len(rows) != 4 or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise CameraFileError(f"{file} has no transform_matrix of 4 x 4 numbers for frame {short(name)}: make it again.")
        pose = torch.tensor([[checks.number(file, f"the pose of {short(name)}", v) for v in row] for row in rows], dtype=torch.float64)
        if (pose[3] - torch.tensor([0.0, 0.0, 0.0, 1.0])).abs().max() > checks.SKEWED:
            raise CameraFileError(f"{file} has a pose for frame {short(name)} whose last row is not 0 0 0 1: make it again.")
        checks.add(file, poses, name, inverse(_flipped(rigid(checks.rotation(file, name, pose[:3, :3]), pose[:3, 3]))))
    return checks.path(file, poses, *_nerfstudio_intrinsics(file, content, frames))


def _nerfstudio_intrinsics(file: str, content: dict[str, Any], frames: list[dict[str, Any]]) -> tuple[float, ...]:
    """fl_x, fl_y, cx, cy, w, h. As in nerfstudio, those of a frame count where the file has none for all."""
    model = content.get("camera_model", PINHOLES[0])
    if model not in PINHOLES:
        raise CameraFileError(f"{file} has a camera of kind {short(model)}: only pinhole cameras can be read.")
    values = {}
    for key in (*INTRINSICS, *DISTORTION):
        whole = [content] if key in content else [frame for frame in frames if key in frame]
        found = {checks.number(file, key, holder[key]) for holder in whole}
        if key in DISTORTION:
            if found - {0.0}:
                raise CameraFileError(f"{file} has lens distortion ({key}): undistort the pictures first, and use the file for those.")
            continue
        if len(found) > 1 or (key not in content and 0 < len(whole) < len(frames)):
            raise CameraFileError(f"{file} has frames whose {key} differs: all frames must share one camera.")
        if not found:
            raise CameraFileError(f"{file} lacks {key}: add it, in pixels.")
        values[key] = found.pop()
    return tuple(values.values())


def _flipped(seen_from: Tensor) -> Tensor:
    """Poses camera to world (..., 4, 4) with OpenGL's camera axes to the same with OpenCV's, and back."""
    return seen_from * seen_from.new_tensor([1.0, -1.0, -1.0, 1.0])
