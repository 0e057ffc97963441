"""Consistency adapters as safetensors files: a LoRA on the layers of ControlNets, and what it was trained on.

For each layer `control_model.<path>.lora_down.weight` (rank, ...) and `.lora_up.weight` (channels, rank[, 1, 1]) in half precision. A file
may come from a stranger, so every name, type and value is checked before it is believed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT, VERSION = "freesteer_consistency_adapter", "1"
LARGEST = 2**31  # bytes
PREFIX, PARTS = "control_model.", (".lora_down.weight", ".lora_up.weight")
LETTERS = 1000  # of what a file says of itself


class AdapterFileError(ValueError):
    """Written for the user: which file, and what is wrong with it."""


@dataclass(frozen=True)
class Adapter:
    """weights: by layer and part, as in a file; kinds: the conditions it was trained with, in words; family: of the MODEL."""

    weights: Mapping[str, Tensor]
    kinds: str
    family: str


def save(path: Path, adapter: Adapter) -> None:
    """Writes a whole file or none."""
    about = {"format": FORMAT, "version": VERSION, "kinds": adapter.kinds, "family": adapter.family}
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({name: weight.half().cpu().contiguous() for name, weight in adapter.weights.items()}, unfinished, about)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> Adapter:
    """Reads an adapter, on the CPU."""
    if path.stat().st_size > LARGEST:
        raise AdapterFileError(f"{path.name} is larger than any adapter (2 GB): it is something else.")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            _check_kind(path.name, about)
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(f"{path.name} is damaged or is no safetensors file ({error}): copy it again.") from None
    _check(path.name, weights)
    return Adapter(weights, about.get("kinds", "")[:LETTERS], about.get("family", "")[:LETTERS])


def _check_kind(name: str, about: Mapping[str, str]) -> None:
    if about.get("format") != FORMAT:
        raise AdapterFileError(f"{name} is not a consistency adapter: choose a file that Train Consistency Adapter wrote.")
    if about.get("version") != VERSION:
        raise AdapterFileError(f"{name} is of version {about.get('version', '?')[:20]}; this FreeSteer reads {VERSION}: update it.")


def _check(name: str, weights: Mapping[str, Tensor]) -> None:
    for key, weight in weights.items():
        part = next((part for part in PARTS if key.endswith(part)), None)
        path = key.removesuffix(part or "")
        if part is None or not key.startswith(PREFIX) or any(path + other not in weights for other in PARTS):
            raise AdapterFileError(f"{name} holds {key[:60]!r}, which is not of an adapter: copy it again.")
        if not torch.isfinite(weight).all():
            raise AdapterFileError(f"{name} has numbers in {key[:60]!r} that are not finite: copy it again.")
        down, up = (weights[path + part] for part in PARTS)
        if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1:] != (len(down), *[1] * (up.ndim - 2)):
            raise AdapterFileError(f"{name} has parts of {path[:60]!r} that do not fit each other: copy it again.")
    if not weights:
        raise AdapterFileError(f"{name} is empty: copy it again.")
