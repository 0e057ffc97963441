"""What passes between the splat nodes, and the host's SPLAT as Gaussians."""
from dataclasses import fields, replace
from typing import TypeVar

import torch
from comfy_api.latest import io
from torch import Tensor

from ..core.cameras import CameraPath
from ..core.splat.gaussians import Gaussians
from .checks import InputError

CATEGORY = "FreeSteer/Splats"
CAMERA_PATH = io.Custom("FREESTEER_CAMERA_PATH")
SPLAT = getattr(io, "Splat", None) or io.Custom("SPLAT")  # the host's own from ComfyUI 0.23 on
MOST_SPLATS = 20_000_000


Value = TypeVar("Value")


def moved(value: Value, device: torch.device | str) -> Value:
    """A dataclass of tensors (Gaussians, Camera, CameraPath) with copies of them on a device: no inference tensors, no gradients."""
    tensors = {f.name: getattr(value, f.name) for f in fields(value)}  # pyright: ignore[reportArgumentType]
    with torch.inference_mode(False):
        copies = {name: tensor.detach().clone().to(device) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    return replace(value, **copies)  # pyright: ignore[reportArgumentType]


def to_splat(gaussians: Gaussians):
    """One scene as the host's SPLAT. Raises InputError where the host has none."""
    try:
        from comfy_api.latest import Types

        kind = Types.SPLAT
    except (ImportError, AttributeError):
        raise InputError("This ComfyUI has no splats yet: the splat nodes need ComfyUI 0.23 or newer.") from None
    g = gaussians.to(torch.float32).to("cpu")
    return kind(g.positions[None], g.scales[None], g.rotations[None], g.opacities[None, :, None], g.sh[None])


def to_gaussians(name: str, splat: object) -> Gaussians:
    """The first scene of a SPLAT; what is not finite or not visible at all is an error that names the input."""
    try:
        parts = [getattr(splat, part)[0].float() for part in ("positions", "scales", "rotations", "opacities", "sh")]
        counts = getattr(splat, "counts", None)
    except (AttributeError, IndexError, TypeError):
        raise InputError(f"{name} has to be a SPLAT, as from Load 3D or Reconstruct Splats From Video.") from None
    if counts is not None:
        parts = [part[: int(counts[0])] for part in parts]
    positions, scales, rotations, opacities, sh = parts
    count = len(positions)
    if count == 0:
        raise InputError(f"{name} has no splats in it: connect a scene.")
    if count > MOST_SPLATS:
        raise InputError(f"{name} has {count} splats; {MOST_SPLATS} are the most.")
    shapes = ((count, 3), (count, 3), (count, 4), (count,))
    opacities = opacities.reshape(count, -1)[:, 0] if opacities.numel() == count else opacities
    if tuple(p.shape for p in (positions, scales, rotations, opacities)) != shapes or sh.ndim != 3 or sh.shape[1] not in (1, 4, 9, 16):
        raise InputError(f"{name} has tensors whose shapes do not fit each other: load or make it again.")
    if not all(torch.isfinite(part).all() for part in (positions, scales, rotations, opacities, sh)):
        raise InputError(f"{name} has values that are not numbers (NaN or infinity): load or make it again.")
    if (scales < 0).any() or (opacities < 0).any() or (opacities > 1).any():
        raise InputError(f"{name} has negative sizes, or opacities beyond 0 to 1: it is not in the host's activated form.")
    return Gaussians(positions, scales.clamp(min=1e-8), rotations, opacities, sh[..., :3])


def camera_path(name: str, value: object) -> CameraPath:
    if not isinstance(value, CameraPath) or len(value) == 0:
        raise InputError(f"{name} has to be a camera path with at least one frame, as from Camera Orbit or Load Camera Path.")
    if not all(torch.isfinite(part).all() for part in (value.poses, value.focal, value.centre)):
        raise InputError(f"{name} has cameras with values that are not numbers: make or load it again.")
    return value


def one_size(name: str, value: Tensor, other: str, wanted: Tensor) -> None:
    if len(value) != len(wanted):
        raise InputError(f"{name} has {len(value)} pictures, {other} {len(wanted)}: connect as many of both.")
