"""Camera paths as files that other programs read: nerfstudio's transforms.json, and COLMAP's text model.

nerfstudio (docs.nerf.studio, "Data conventions"): camera to world, with OpenGL's camera axes (x right, y up, looking down -z).
COLMAP (colmap.github.io/format.html): world to camera, with ours; a quaternion wxyz and a translation. Both have the middle of
the first pixel at (.5, .5), as we do; the world's axes and unit stay as they are. Frames come in the order of their names, with
2 before 10.

A file may come from a stranger, so every length, type and value is checked before it is believed.
"""
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cameras import CameraPath, inverse, rigid
from .splat.gaussians import matrix, quaternion

NERFSTUDIO, CAMERAS, IMAGES, POINTS = "transforms.json", "cameras.txt", "images.txt", "points3D.txt"
LARGEST = {".json": 2**24, ".txt": 2**28}  # bytes; COLMAP's text also lists every feature that it found
MOST = {"frames": 10_000, "cameras": 10_000, "pixels": 65_536, "letters": 1000}
FARTHEST = 1e9  # of any number: its square is still finite in float32
SKEWED = 1e-3  # by which a rotation may miss being one
INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")  # without distortion, all are the same
PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}  # f or fx fy, then cx cy: of COLMAP's models
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


class CameraFileError(ValueError):
    """Written for the user: which file, and what is wrong with it."""


def picture_names(count: int) -> list[str]:
    """What the files that are written call the pictures of a path, from 1."""
    return [f"frame_{number:05d}.png" for number in range(1, count + 1)]


def load(file: Path) -> CameraPath:
    """Reads transforms.json (any .json), or COLMAP's cameras.txt and images.txt: either of them, or their folder. On the CPU."""
    if file.suffix.lower() == ".json":
        text = _read(file, LARGEST[".json"])
        try:
            content = json.loads(text, parse_int=float)
        except (ValueError, RecursionError):
            raise CameraFileError(f"{file.name} is damaged or is no JSON file: make or copy it again.") from None
        return from_nerfstudio(content, file.name)
    folder = file if file.is_dir() else file.parent
    if not file.is_dir() and file.name not in (CAMERAS, IMAGES):
        raise CameraFileError(f"{file.name} is no camera file: choose a transforms.json, or the folder of {CAMERAS} and {IMAGES}.")
    if not (folder / CAMERAS).exists() and (folder / "cameras.bin").exists():
        raise CameraFileError(f"{folder.name} has COLMAP's model as cameras.bin: convert it (colmap model_converter --output_type TXT).")
    return from_colmap(_read(folder / CAMERAS, LARGEST[".txt"]), _read(folder / IMAGES, LARGEST[".txt"]))


def save(path: CameraPath, file: Path) -> None:
    """Writes transforms.json for a name that ends in .json, otherwise COLMAP's text model into that folder. Each file whole or not."""
    if file.suffix.lower() == ".json":
        texts = {file: json.dumps(to_nerfstudio(path), indent=1, allow_nan=False)}
    else:
        texts = {file / name: text for name, text in to_colmap(path).items()}
        file.mkdir(parents=True, exist_ok=True)
    for whole, text in texts.items():
        unfinished = whole.with_name(f"{whole.name}.{os.getpid()}.part")
        try:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
            os.replace(unfinished, whole)
        finally:
            unfinished.unlink(missing_ok=True)


def to_nerfstudio(path: CameraPath) -> dict[str, Any]:
    """The content of transforms.json."""
    fx, fy, cx, cy = (float(value) for value in (*path.focal, *path.centre))
    height, width = path.size
    seen_from = _flipped(inverse(_exact(path.poses)))
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
        for name, pose in zip(picture_names(len(path)), seen_from, strict=True)
    ]
    return {"camera_model": "OPENCV", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height, "frames": frames}


def from_nerfstudio(content: dict[str, Any], file: str = NERFSTUDIO) -> CameraPath:
    """In float32. `file` is what errors call it."""
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise CameraFileError(f"{file} has no list of frames: choose a transforms.json of nerfstudio.")
    _count(file, len(frames))
    poses: dict[str, Tensor] = {}
    for number, frame in enumerate(frames, 1):
        name = frame.get("file_path")
        if not isinstance(name, str) or not 0 < len(name) <= MOST["letters"]:
            raise CameraFileError(f"{file} does not say which picture frame {number} is (file_path): make it again.")
        rows = frame.get("transform_matrix")
        if not isinstance(rows, list) or len(rows) != 4 or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise CameraFileError(f"{file} has no transform_matrix of 4 x 4 numbers for frame {_short(name)}: make it again.")
        pose = torch.tensor([[_number(file, f"the pose of {_short(name)}", v) for v in row] for row in rows], dtype=torch.float64)
        if (pose[3] - torch.tensor([0.0, 0.0, 0.0, 1.0])).abs().max() > SKEWED:
            raise CameraFileError(f"{file} has a pose for frame {_short(name)} whose last row is not 0 0 0 1: make it again.")
        _add(file, poses, name, inverse(_flipped(rigid(_rotation(file, name, pose[:3, :3]), pose[:3, 3]))))
    return _path(file, poses, *_nerfstudio_intrinsics(file, content, frames))


def to_colmap(path: CameraPath) -> dict[str, str]:
    """File names and their texts; points3D.txt, which COLMAP wants to see, is empty."""
    fx, fy, cx, cy = (float(value) for value in (*path.focal, *path.centre))
    height, width = path.size
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, then a line of POINTS2D[]: none here"]
    for number, (name, pose) in enumerate(zip(picture_names(len(path)), _exact(path.poses), strict=True), 1):
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
        if len(values) != 10 or len(values[9]) > MOST["letters"]:
            raise CameraFileError(f"{IMAGES} has a line {number} that describes no picture: make it again.")
        name = values[9].strip()
        turn_and_shift = [_word(IMAGES, f"the pose of {_short(name)}", value) for value in values[1:8]]
        turn, shift = torch.tensor(turn_and_shift, dtype=torch.float64).split([4, 3])
        if abs(float(turn.norm()) - 1) > SKEWED:
            raise CameraFileError(f"{IMAGES} has a quaternion for frame {_short(name)} whose length is not 1: make it again.")
        if values[8] not in cameras:
            raise CameraFileError(f"{IMAGES} has frame {_short(name)} by camera {_short(values[8])}, which {CAMERAS} lacks: copy both.")
        used.add(values[8])
        _add(IMAGES, poses, name, rigid(matrix(turn), shift))
        _count(IMAGES, len(poses))
        last = next(lines, (0, ""))[1].rsplit(maxsplit=1)[-1:]
        if last and not re.fullmatch("-?[0-9]+", last[0]):  # of x, y and the number of a point
            raise CameraFileError(f"{IMAGES} has no line of points after frame {_short(name)}: there must be one, even if it is empty.")
    _count(IMAGES, len(poses))
    shared = {cameras[camera] for camera in used}
    if len(shared) > 1:
        raise CameraFileError(f"{IMAGES} uses {len(shared)} different cameras: reconstruct with one (--ImageReader.single_camera 1).")
    return _path(IMAGES, poses, *shared.pop())


def _nerfstudio_intrinsics(file: str, content: dict[str, Any], frames: list[dict[str, Any]]) -> tuple[float, ...]:
    """fl_x, fl_y, cx, cy, w, h. As in nerfstudio, those of a frame count where the file has none for all."""
    model = content.get("camera_model", PINHOLES[0])
    if model not in PINHOLES:
        raise CameraFileError(f"{file} has a camera of kind {_short(model)}: only pinhole cameras can be read.")
    values = {}
    for key in (*INTRINSICS, *DISTORTION):
        whole = [content] if key in content else [frame for frame in frames if key in frame]
        found = {_number(file, key, holder[key]) for holder in whole}
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


def _colmap_cameras(text: str) -> dict[str, tuple[float, ...]]:
    """fl_x, fl_y, cx, cy, w, h of every camera, by its number."""
    cameras = {}
    for number, line in _lines(text):
        words = line.split(maxsplit=12)
        if not words or words[0].startswith("#"):
            continue
        model = words[1] if len(words) > 1 else ""
        if model not in PARAMETERS:
            raise CameraFileError(f"{CAMERAS} has a camera of kind {_short(model)}: undistort the pictures first, which makes it PINHOLE.")
        if len(words) != 4 + PARAMETERS[model]:
            raise CameraFileError(f"{CAMERAS} has a line {number} that describes no camera: make it again.")
        width, height, *focal, cx, cy = (_word(CAMERAS, f"camera {_short(words[0])}", word) for word in words[2:])
        cameras[words[0]] = (focal[0], focal[-1], cx, cy, width, height)
        if len(cameras) > MOST["cameras"]:
            raise CameraFileError(f"{CAMERAS} has more than {MOST['cameras']} cameras: it is something else.")
    return cameras


def _path(file: str, poses: dict[str, Tensor], *intrinsics: float) -> CameraPath:
    fx, fy, cx, cy, width, height = intrinsics
    for side in (width, height):
        if side != int(side) or not 1 <= side <= MOST["pixels"]:
            raise CameraFileError(f"{file} has pictures of {width:g} x {height:g}: 1 to {MOST['pixels']} whole pixels are possible.")
    if not min(fx, fy) >= 1 / FARTHEST:
        raise CameraFileError(f"{file} has a focal length of {min(fx, fy):g}: it must be positive, in pixels.")
    ordered = torch.stack([poses[name] for name in sorted(poses, key=_by_number)]).float()
    return CameraPath(ordered, ordered.new_tensor([fx, fy]), ordered.new_tensor([cx, cy]), (int(height), int(width)))


def _add(file: str, poses: dict[str, Tensor], name: str, pose: Tensor) -> None:
    if name in poses:
        raise CameraFileError(f"{file} has two frames called {_short(name)}: make it again.")
    poses[name] = pose


def _count(file: str, frames: int) -> None:
    if not 1 <= frames <= MOST["frames"]:
        raise CameraFileError(f"{file} has {frames} frames: 1 to {MOST['frames']} are possible.")


def _number(file: str, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int)) or not abs(value) <= FARTHEST:
        raise CameraFileError(f"{file} has {_short(value)} for {what}, not a number within {FARTHEST:g}: make it again.")
    return float(value)


def _word(file: str, what: str, word: str) -> float:
    try:
        return _number(file, what, float(word))
    except ValueError:
        raise CameraFileError(f"{file} has {_short(word)} for {what}, not a number within {FARTHEST:g}: make it again.") from None


def _rotation(file: str, name: str, found: Tensor) -> Tensor:
    """The rotation nearest to a matrix (3, 3) that must nearly be one."""
    if (found @ found.mT - torch.eye(3, dtype=found.dtype)).abs().max() > SKEWED or torch.linalg.det(found) < 0:
        raise CameraFileError(f"{file} has a pose for frame {_short(name)} that scales, skews or mirrors: it must only turn and move.")
    u, _, vh = torch.linalg.svd(found)
    return u @ vh


def _exact(poses: Tensor) -> Tensor:
    if not torch.isfinite(poses).all():
        raise ValueError("The camera path has poses that are not numbers (NaN or infinity), so it cannot be written.")
    return poses.detach().cpu().double()


def _flipped(seen_from: Tensor) -> Tensor:
    """Poses camera to world (..., 4, 4) with OpenGL's camera axes to the same with OpenCV's, and back."""
    return seen_from * seen_from.new_tensor([1.0, -1.0, -1.0, 1.0])


def _by_number(name: str) -> list[str | int]:
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]


def _short(value: object) -> str:
    """What came, no longer than an error may be."""
    if isinstance(value, str):
        return repr(value[:60])
    return repr(value) if isinstance(value, float) else type(value).__name__


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """With their numbers; never all at once."""
    start = number = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        yield number, text[start:end]
        start = end + 1


def _read(file: Path, largest: int) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(largest + 1)
    except OSError as error:
        raise CameraFileError(f"{file.name} cannot be read ({error.strerror}): choose another file.") from None
    if len(content) > largest:
        raise CameraFileError(f"{file.name} is larger than any camera file ({largest // 2**20} MB): it is something else.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CameraFileError(f"{file.name} is no text file: make or copy it again.") from None
