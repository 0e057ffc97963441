"""COLMAP's text model (colmap.github.io/format.html): world to camera, with our camera axes; a quaternion wxyz and a translation."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from ..geometry.cameras import CameraPath, rigid
from ..geometry.rotations import matrix, quaternion
from . import checks
from .checks import CameraFileError, short

CAMERAS, IMAGES, POINTS = "cameras.txt", "images.txt", "points3D.txt"
PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}  # f or fx fy, then cx cy: of COLMAP's models


def to_colmap(path: CameraPath) -> dict[str, str]:
    """File names and their texts; points3D.txt, which COLMAP wants to see, is empty."""
    fx, fy, cx, cy = (float(value) for value in (*path.focal, *path.centre))
    height, width = path.size
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, then a line of POINTS2D[]: none here"]
    for number, (name, pose) in enumerate(zip(checks.picture_names(len(path)), checks.exact(path.poses), strict=True), 1):
        numbers = [*quaternion(pose[:3, :3]).tolist(), *pose[:3, 3].tolist()]
        images += [" ".join([str(number), *map(repr, numbers), "1", name]), ""]
    return {
        CAMERAS: f"# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n1 PINHOLE {width} {height} {fx!r} {fy!r} {cx!r} {cy!r}\n",
        IMAGES: "\n".join(images) + "\n",
        POINTS: "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]: none here\n",
    }


def from_colmap(cameras_text: str, images_text: str) -> CameraPath:
    """In float32, of PINHOLE or SIMPLE_PINHOLE cameras."""
    cameras = _colmap_cameras(cameras_text)
    poses: dict[str, Tensor] = {}
    used: set[str] = set()
    lines = _lines(images_text)
    for number, line in lines:
        values = line.split(maxsplit=9)
        if not values or values[0].startswith("#"):
            continue
        if len(values) != 10 or len(values[9]) > checks.MOST["letters"]:
            raise CameraFileError(f"{IMAGES} has a line {number} that describes no picture: make it again.")
        name = values[9].strip()
        turn_and_shift = [checks.word(IMAGES, f"the pose of {short(name)}", value) for value in values[1:8]]
        turn, shift = torch.tensor(turn_and_shift, dtype=torch.float64).split([4, 3])
        if abs(float(turn.norm()) - 1) > checks.SKEWED:
            raise CameraFileError(f"{IMAGES} has a quaternion for frame {short(name)} whose length is not 1: make it again.")
        if values[8] not in cameras:
            raise CameraFileError(f"{IMAGES} has frame {short(name)} by camera {short(values[8])}, which {CAMERAS} lacks: copy both.")
        used.add(values[8])
        checks.add(IMAGES, poses, name, rigid(matrix(turn), shift))
        checks.count(IMAGES, len(poses))
        last = next(lines, (0, ""))[1].rsplit(maxsplit=1)[-1:]
        if last and not re.fullmatch("-?[0-9]+", last[0]):  # of x, y and the number of a point
            raise CameraFileError(f"{IMAGES} has no line of points after frame {short(name)}: there must be one, even if it is empty.")
    checks.count(IMAGES, len(poses))
    shared = {cameras[camera] for camera in used}
    if len(shared) > 1:
        raise CameraFileError(f"{IMAGES} uses {len(shared)} different cameras: reconstruct with one (--ImageReader.single_camera 1).")
    return checks.path(IMAGES, poses, *shared.pop())


def _colmap_cameras(text: str) -> dict[str, tuple[float, ...]]:
    """fl_x, fl_y, cx, cy, w, h of every camera, by its number."""
    cameras = {}
    for number, line in _lines(text):
        words = line.split(maxsplit=12)
        if not words or words[0].startswith("#"):
            continue
        model = words[1] if len(words) > 1 else ""
        if model not in PARAMETERS:
            raise CameraFileError(f"{CAMERAS} has a camera of kind {short(model)}: undistort the pictures first, which makes it PINHOLE.")
        if len(words) != 4 + PARAMETERS[model]:
            raise CameraFileError(f"{CAMERAS} has a line {number} that describes no camera: make it again.")
        width, height, *focal, cx, cy = (checks.word(CAMERAS, f"camera {short(words[0])}", word) for word in words[2:])
        cameras[words[0]] = (focal[0], focal[-1], cx, cy, width, height)
        if len(cameras) > checks.MOST["cameras"]:
            raise CameraFileError(f"{CAMERAS} has more than {checks.MOST['cameras']} cameras: it is something else.")
    return cameras


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """With their numbers; never all at once."""
    start = number = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        yield number, text[start:end]
        start = end + 1
