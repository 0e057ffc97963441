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
FARTHEST = 1e9  # in units of the world: its square is still finite in float32
NARROWEST = 1e-6  # focal length, in pixels
SKEWED = 1e-2  # by which a rotation may miss being one


Value = TypeVar("Value")


def moved(value: Value, device: torch.device | str) -> Value:
    """A dataclass of tensors (Gaussians, Camera, CameraPath) with copies of them on a device: no inference tensors, no gradients."""
    tensors = {f.name: getattr(value, f.name) for f in fields(value)}  # pyright: ignore[reportArgumentType]
    with torch.inference_mode(False):
        copies = {name: tensor.detach().clone().to(device) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    return replace(value, **copies)  # pyright: ignore[reportArgumentType]


def splat_kind() -> type:
    """The host's class of SPLAT. Raises InputError where it has none."""
    try:
        from comfy_api.latest import Types

        return Types.SPLAT
    except (ImportError, AttributeError):
        raise InputError("This ComfyUI has no splats yet: the splat nodes need ComfyUI 0.23 or newer.") from None


def to_splat(gaussians: Gaussians):
    """One scene as the host's SPLAT. Raises InputError where the host has none."""
    g = gaussians.to(torch.float32).to("cpu")
    return splat_kind()(g.positions[None], g.scales[None], g.rotations[None], g.opacities[None, :, None], g.sh[None])


def to_gaussians(name: str, splat: object) -> Gaussians:
    """The first scene of a SPLAT; what is not finite or not visible at all is an error that names the input."""
    named = [getattr(splat, part, None) for part in ("positions", "scales", "rotations", "opacities", "sh")]
    parts = [part for part in named if isinstance(part, Tensor)]
    if len(parts) < len(named):
        raise InputError(f"{name} has to be a SPLAT, as from Get Splat or Reconstruct Splats From Video; what came is {_kind(splat)}.")
    if not all(part.ndim > 1 and len(part) for part in parts):
        raise InputError(f"{name} has tensors whose shapes do not fit each other: load or make it again.")
    positions, scales, rotations, opacities, sh = (part[0].float() for part in parts)
    count = len(positions)
    counts = getattr(splat, "counts", None)
    if counts is not None:
        count = _first_count(name, counts, count)
        positions, scales, rotations, opacities, sh = (part[:count] for part in (positions, scales, rotations, opacities, sh))
    if count == 0:
        raise InputError(f"{name} has no splats in it: connect a scene.")
    if count > MOST_SPLATS:
        raise InputError(f"{name} has {count} splats; {MOST_SPLATS} are the most.")
    shapes = ((count, 3), (count, 3), (count, 4), (count,))
    opacities = opacities.reshape(count) if opacities.numel() == count else opacities
    parts = (positions, scales, rotations, opacities, sh)
    if tuple(p.shape for p in parts[:4]) != shapes or sh.shape not in [(count, k, 3) for k in (1, 4, 9, 16)]:
        raise InputError(f"{name} has tensors whose shapes do not fit each other: load or make it again.")
    if not all(torch.isfinite(part).all() for part in parts):
        raise InputError(f"{name} has values that are not numbers (NaN or infinity): load or make it again.")
    if not all((part.abs() <= FARTHEST).all() for part in parts):
        raise InputError(f"{name} has values beyond {FARTHEST:g}: load or make it again, or scale it down with Transform Splat.")
    if (scales < 0).any() or (opacities < 0).any() or (opacities > 1).any():
        raise InputError(f"{name} has negative sizes, or opacities beyond 0 to 1: it is not in the host's activated form.")
    return Gaussians(positions, scales.clamp(min=1e-8), rotations, opacities, sh)


def _first_count(name: str, counts: object, rows: int) -> int:
    """Of the first scene, in a SPLAT whose scenes have different lengths."""
    first = counts.flatten()[:1].tolist() if isinstance(counts, Tensor) else None
    if not first or not 0 <= first[0] <= rows or first[0] != int(first[0]):
        raise InputError(f"{name} says that it has {first[0] if first else counts} of its {rows} splats: load or make it again.")
    return int(first[0])


def camera_path(name: str, value: object) -> CameraPath:
    if not isinstance(value, CameraPath):
        raise InputError(f"{name} has to be a camera path, as from Camera Orbit or Load Camera Path; what came is {_kind(value)}.")
    tensors = (value.poses, value.focal, value.centre)
    shapes = [tuple(part.shape[-2:]) if isinstance(part, Tensor) and part.is_floating_point() else None for part in tensors]
    sizes = isinstance(value.size, tuple) and len(value.size) == 2 and all(isinstance(side, int) and side > 0 for side in value.size)
    if shapes != [(4, 4), (2,), (2,)] or value.poses.ndim != 3 or len(value.poses) == 0 or not sizes:
        raise InputError(f"{name} has no frames, or tensors of other shapes than a camera path has: make or load it again.")
    if not all(torch.isfinite(part).all() for part in tensors):
        raise InputError(f"{name} has cameras with values that are not numbers (NaN or infinity): make or load it again.")
    turns = value.poses[:, :3, :3].double()
    skew = (turns @ turns.mT - torch.eye(3).to(turns)).abs().amax()
    if skew > SKEWED or value.focal.amin() < NARROWEST or max(float(part.abs().amax()) for part in tensors) > FARTHEST:
        raise InputError(f"{name} has poses that scale or skew, numbers beyond {FARTHEST:g}, or no focal length: make or load it again.")
    return value


def one_size(name: str, value: Tensor, other: str, wanted: Tensor) -> None:
    if len(value) != len(wanted):
        raise InputError(f"{name} has {len(value)} pictures, {other} {len(wanted)}: connect as many of both.")


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
