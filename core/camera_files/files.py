"""Camera paths as files that other programs read: nerfstudio's transforms.json, and COLMAP's text model.

Both have the middle of the first pixel at (.5, .5), as we do; the world's axes and unit stay as they are. Frames come in the order
of their names, with 2 before 10.
"""

import json
import os
from pathlib import Path

from ..geometry.cameras import CameraPath
from . import checks
from .checks import CameraFileError
from .colmap import CAMERAS, IMAGES, from_colmap, to_colmap
from .nerfstudio import from_nerfstudio, to_nerfstudio


def load(file: Path) -> CameraPath:
    """Reads transforms.json (any .json), or COLMAP's cameras.txt and images.txt: either of them, or their folder. On the CPU."""
    if file.suffix.lower() == ".json":
        text = _read(file, checks.LARGEST[".json"])
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
    return from_colmap(_read(folder / CAMERAS, checks.LARGEST[".txt"]), _read(folder / IMAGES, checks.LARGEST[".txt"]))


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
