"""What the formats of camera files share: limits, checks, and errors that say what is wrong with a file.

A file may come from a stranger, so every length, type and value is checked before it is believed.
"""

import re

import torch
from torch import Tensor

from ..geometry.cameras import FARTHEST, CameraPath

LARGEST = {".json": 2**24, ".txt": 2**28}  # bytes; COLMAP's text also lists every feature that it found
MOST = {"frames": 10_000, "cameras": 10_000, "pixels": 65_536, "letters": 1000}
SKEWED = 1e-3  # by which a rotation may miss being one


class CameraFileError(ValueError):
    """Written for the user: which file, and what is wrong with it."""


def picture_names(count: int) -> list[str]:
    """What the files that are written call the pictures of a path, from 1."""
    return [f"frame_{number:05d}.png" for number in range(1, count + 1)]


def path(file: str, poses: dict[str, Tensor], *intrinsics: float) -> CameraPath:
    fx, fy, cx, cy, width, height = intrinsics
    for side in (width, height):
        if side != int(side) or not 1 <= side <= MOST["pixels"]:
            raise CameraFileError(f"{file} has pictures of {width:g} x {height:g}: 1 to {MOST['pixels']} whole pixels are possible.")
    if not min(fx, fy) >= 1 / FARTHEST:
        raise CameraFileError(f"{file} has a focal length of {min(fx, fy):g}: it must be positive, in pixels.")
    ordered = torch.stack([poses[name] for name in sorted(poses, key=_by_number)]).float()
    return CameraPath(ordered, ordered.new_tensor([fx, fy]), ordered.new_tensor([cx, cy]), (int(height), int(width)))


def add(file: str, poses: dict[str, Tensor], name: str, pose: Tensor) -> None:
    if name in poses:
        raise CameraFileError(f"{file} has two frames called {short(name)}: make it again.")
    poses[name] = pose


def count(file: str, frames: int) -> None:
    if not 1 <= frames <= MOST["frames"]:
        raise CameraFileError(f"{file} has {frames} frames: 1 to {MOST['frames']} are possible.")


def number(file: str, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int)) or not abs(value) <= FARTHEST:
        raise CameraFileError(f"{file} has {short(value)} for {what}, not a number within {FARTHEST:g}: make it again.")
    return float(value)


def word(file: str, what: str, text: str) -> float:
    try:
        return number(file, what, float(text))
    except ValueError:
        raise CameraFileError(f"{file} has {short(text)} for {what}, not a number within {FARTHEST:g}: make it again.") from None


def rotation(file: str, name: str, found: Tensor) -> Tensor:
    """The rotation nearest to a matrix (3, 3) that must nearly be one."""
    if (found @ found.mT - torch.eye(3, dtype=found.dtype)).abs().max() > SKEWED or torch.linalg.det(found) < 0:
        raise CameraFileError(f"{file} has a pose for frame {short(name)} that scales, skews or mirrors: it must only turn and move.")
    u, _, vh = torch.linalg.svd(found)
    return u @ vh


def exact(poses: Tensor) -> Tensor:
    if not torch.isfinite(poses).all():
        raise ValueError("The camera path has poses that are not numbers (NaN or infinity), so it cannot be written.")
    return poses.detach().cpu().double()


def _by_number(name: str) -> list[str | int]:
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]


def short(value: object) -> str:
    """What came, no longer than an error may be."""
    if isinstance(value, str):
        return repr(value[:60])
    return repr(value) if isinstance(value, float) else type(value).__name__
