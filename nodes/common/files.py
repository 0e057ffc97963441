"""Folders of models that are ours, and the files that nodes write there for a user."""

import os
from collections.abc import Callable
from pathlib import Path

import folder_paths
from safetensors import SafetensorError

from . import checks


def register_folder(kind: str) -> None:
    """models/`kind`, after those that the user's extra_model_paths.yaml names, which the host has read by now."""
    own = os.path.join(folder_paths.models_dir, kind)
    paths = folder_paths.get_folder_paths(kind) if kind in folder_paths.folder_names_and_paths else []
    folder_paths.folder_names_and_paths[kind] = ([*paths, *([own] if own not in paths else [])], {".safetensors"})


def _found(kind: str, file: str) -> Path | None:
    """Only what the host's list of that kind offers: a name from elsewhere could lead out of the folder."""
    if file not in folder_paths.get_filename_list(kind):
        return None
    path = folder_paths.get_full_path(kind, file)
    return Path(path) if path else None


def chosen_file(kind: str, file: str) -> Path:
    path = _found(kind, file)
    if path is None:
        raise checks.InputError(f"file is {file[:60]!r}, and there is no such file in models/{kind}: choose one of the list.")
    return path


def stamp(kind: str, file: str) -> str:
    """Another one once the file has changed; for fingerprint_inputs."""
    path = _found(kind, file)
    return f"{path} {path.stat().st_mtime_ns}" if path else ""


def save_new(kind: str, name: str, write: Callable[[Path], None]) -> str:
    """Has a safetensors file written in the host's folder of a kind, under a name that is not taken yet: it gets a number. Gives what the
    user finds it by, below models."""
    try:
        folder, stem, counter, below, _ = folder_paths.get_save_image_path(name, folder_paths.get_folder_paths(kind)[0])
        file = f"{stem}_{counter:05}_.safetensors"
        write(Path(folder) / file)
    except (OSError, SafetensorError) as error:
        raise checks.unwritable(name, error) from None
    return f"{kind}/{below + '/' if below else ''}{file}"
