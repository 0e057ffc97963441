"""Semantic bases as safetensors files: what is written can be read again bit by bit, and nothing else can be read.

One file holds, in float32: `sigmas` (L,), and for each layer `<layer>.mean` (L, C), `<layer>.deviation` (L, N) and
`<layer>.components` (L, N, C), or (1, N, C) where all noise levels share them. Its metadata says what the tensors cannot.

A file may come from a stranger, so every length, type and value is checked before it is believed.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .semantic_basis import Basis, LayerBasis

FORMAT, VERSION = "freesteer_basis", "1"
LARGEST = 2**31  # bytes; SDXL with 30 layers, 60 levels and 64 components of their own takes a third of it
MARGIN = 2**20  # for the header
MOST = {"levels": 1000, "layers": 1000, "channels": 65536, "prompts": 1000, "letters": 100_000}
PARTS = ("mean", "components", "deviation")


class BasisFileError(ValueError):
    """Written for the user: which file, and what is wrong with it."""


@dataclass(frozen=True)
class ModelBasis:
    """A basis and where it comes from. size: (h, w) of its seed pictures, in latent cells."""

    basis: Basis
    family: str
    prompts: tuple[str, ...]
    size: tuple[int, int]


def save(path: Path, made: ModelBasis) -> None:
    """Writes a whole file or none."""
    basis = made.basis
    tensors = {"sigmas": basis.sigmas}
    for name, layer in basis.layers.items():
        components = layer.components[:1] if basis.shared else layer.components
        tensors |= {f"{name}.mean": layer.mean, f"{name}.components": components, f"{name}.deviation": layer.deviation}
    about = {
        "format": FORMAT, "version": VERSION, "family": made.family, "layers": json.dumps(list(basis.layers)),
        "prompts": json.dumps(made.prompts), "size": json.dumps(made.size), "shared": json.dumps(basis.shared),
    }  # fmt: skip
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST - MARGIN:
        raise BasisFileError("This basis is larger than 2 GB: make it with fewer components or steps, or with shared on.")
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, unfinished, about)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path) -> ModelBasis:
    """Reads a basis, on the CPU."""
    if path.stat().st_size > LARGEST:
        raise BasisFileError(f"{path.name} is larger than any basis (2 GB): it is something else.")
    try:
        with safe_open(path, "pt") as file:
            about = _about(path, file.metadata())
            tensors = _tensors(path, file, about["layers"])
    except (SafetensorError, OSError) as error:
        raise BasisFileError(f"{path.name} is damaged or is no safetensors file ({error}): make or copy it again.") from None
    sigmas = tensors["sigmas"]
    if sigmas.ndim != 1 or not 1 <= len(sigmas) <= MOST["levels"] or not (sigmas > 0).all() or not (sigmas.diff() < 0).all():
        raise BasisFileError(f"{path.name} has noise levels that do not fall from one to the next: make it again.")
    layers = {name: _layer(path, name, tensors, len(sigmas), about["shared"]) for name in about["layers"]}
    return ModelBasis(Basis(sigmas, layers, about["shared"]), about["family"], tuple(about["prompts"]), tuple(about["size"]))


def _about(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    if metadata is None or metadata.get("format") != FORMAT:
        raise BasisFileError(f"{path.name} is not a FreeSteer basis: choose a file that Save Basis wrote.")
    if metadata.get("version") != VERSION:
        raise BasisFileError(f"{path.name} is of version {metadata.get('version', '?')[:20]}; this FreeSteer reads {VERSION}: update it.")
    try:
        about = {"family": metadata["family"], **{key: json.loads(metadata[key]) for key in ("layers", "prompts", "size", "shared")}}
    except (KeyError, ValueError, RecursionError):
        raise BasisFileError(f"{path.name} does not say what it holds: make it again.") from None
    right = (
        _texts(about["layers"], MOST["layers"])
        and len(about["layers"]) == len(set(about["layers"])) > 0
        and _texts(about["prompts"], MOST["prompts"])
        and _texts([about["family"]], 1)
        and isinstance(about["shared"], bool)
        and isinstance(about["size"], list)
        and [type(side) for side in about["size"]] == [int, int]
        and all(0 < side < MOST["channels"] for side in about["size"])
    )
    if not right:
        raise BasisFileError(f"{path.name} does not say what it holds: make it again.")
    return about


def _texts(values: object, most: int) -> bool:
    return isinstance(values, list) and len(values) <= most and all(isinstance(v, str) and len(v) <= MOST["letters"] for v in values)


def _tensors(path: Path, file: Any, layers: list[str]) -> dict[str, Tensor]:
    wanted = {"sigmas", *(f"{layer}.{part}" for layer in layers for part in PARTS)}
    found = set(file.keys())
    if found != wanted:
        what = f"lacks {min(wanted - found)!r}" if wanted - found else f"holds {min(found - wanted)[:60]!r}, which is not of a basis"
        raise BasisFileError(f"{path.name} {what}: make or copy it again.")
    for name in wanted:
        if file.get_slice(name).get_dtype() != "F32":
            raise BasisFileError(f"{path.name} has {name} in {file.get_slice(name).get_dtype()}, not in F32: make it again.")
    tensors = {name: file.get_tensor(name).clone() for name in wanted}  # or they would change with the file
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise BasisFileError(f"{path.name} has numbers in {name} that are not finite: make it again.")
    return tensors


def _layer(path: Path, name: str, tensors: dict[str, Tensor], levels: int, shared: bool) -> LayerBasis:
    mean, components, deviation = (tensors[f"{name}.{part}"] for part in PARTS)
    kinds = 1 if shared else levels
    count, channels = components.shape[-2:] if components.ndim == 3 else (0, 0)
    shapes = (tuple(mean.shape), tuple(components.shape), tuple(deviation.shape))
    if shapes != ((levels, channels), (kinds, count, channels), (levels, count)) or not 1 <= count <= channels <= MOST["channels"]:
        raise BasisFileError(f"{path.name} has tensors in layer {name[:60]} whose shapes do not fit each other: make or copy it again.")
    if not (deviation > 0).all():
        raise BasisFileError(f"{path.name} has deviations in layer {name[:60]} that are not positive: make it again.")
    return LayerBasis(mean, components.expand(levels, -1, -1), deviation)
