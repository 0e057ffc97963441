"""Files of embeddings: what an encoder saw at each place of a picture, as research code leaves it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

ENDINGS = (".h5", ".hdf5", ".npy", ".safetensors")


class EmbeddingsError(Exception):
    """Why a file cannot be read, in words for whoever chose it."""


def read(path: Path, name: str = "") -> Tensor:
    """The numbers (..., D) under a name; without one, those of the only entry. Nothing in a file is run."""
    kind = path.suffix.lower()
    try:
        found = {".npy": _numpy, ".safetensors": load_file}.get(kind, _hdf5)(path)
    except (OSError, EOFError, ValueError, SafetensorError) as error:
        raise EmbeddingsError(f"{path.name} is damaged, or no {kind[1:]} file ({type(error).__name__}): save it again.") from error
    if not found:
        raise EmbeddingsError(f"{path.name} holds no numbers.")
    if name not in found and (name or len(found) > 1):
        raise EmbeddingsError(f"{path.name} has no entry {name!r}: choose one of {', '.join(sorted(found))[:200]}.")
    values = (found[name] if name in found else next(iter(found.values()))).float()
    if values.ndim < 2 or 0 in values.shape or not torch.isfinite(values).all():
        raise EmbeddingsError(f"{path.name} has the shape {tuple(values.shape)}, or holds NaN: give a row of numbers for each place.")
    return values


def _numpy(path: Path) -> dict[str, Tensor]:
    return {"": torch.from_numpy(np.asarray(np.load(path, allow_pickle=False), dtype=np.float32))}


def _hdf5(path: Path) -> dict[str, Tensor]:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise EmbeddingsError(
            f"{path.name} needs the package h5py: install it in ComfyUI's environment, or save the numbers as .npy or safetensors."
        ) from error
    found: dict[str, Tensor] = {}

    def keep(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset) and entry.dtype.kind in "fiu" and entry.ndim >= 2:
            found[name] = torch.from_numpy(np.asarray(entry[()], dtype=np.float32))

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return found
