"""The host's SPLAT as Gaussians, and back."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ...core.geometry.cameras import FARTHEST
from ...core.splats.gaussians import Gaussians
from .checks import InputError, kind_of

SPLAT = getattr(io, "Splat", None) or io.Custom("SPLAT")  # the host's own from ComfyUI 0.23 on
MOST_SPLATS = 20_000_000


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
        raise InputError(f"{name} has to be a SPLAT, as from Get Splat or Reconstruct Splats From Video; what came is {kind_of(splat)}.")
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
