"""Blending by gsplat's CUDA kernels, where a ready-made build of it is installed: https://github.com/nerfstudio-project/gsplat.

Projection, tiles and colours stay ours, so that no Gaussian is cut at three deviations and the intrinsics have derivatives. Releases
differ: 1.5 takes tiles of any side, and its greatest alpha is .999, as ours is; 1.6 takes sides of 4 and 16 only, and its greatest
alpha is .99, as in the code of the paper. So a build is tried once, with one Gaussian for each of our sides. Both end a pixel at a
transmittance of 1e-4, where ours ends at 1e-5; else they are the same formula.
"""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .tiles import FAINTEST, SIDES, Tiles

Blend = Callable[..., tuple[Tensor, Tensor]]  # with the signature of gsplat's rasterize_to_pixels
CHANNELS = (4, 8)  # of features, which are filled up with zeros: colour and depth, and with a normal. All releases take so many
CLOSE = 1e-3  # by which the transmittance of the trial, and its derivatives, may differ from the formula, relative
BREAKS = (ImportError, AttributeError, OSError, RuntimeError, TypeError, ValueError)  # of a build for another torch, CUDA or GPU
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A build that works here. sides: of the tiles that it takes, in pixels."""

    blend: Blend
    sides: tuple[int, ...]

    def takes(self, tiles: Tiles) -> bool:
        return tiles.side in self.sides and 0 < len(tiles.gaussian) < 2**31


@functools.cache
def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """What to blend with, or None for our own blending. Memory that runs out is an error as anywhere else."""
    blend = ready_made() if device.type == "cuda" and dtype == torch.float32 else None
    if blend is None:
        return None
    sides, why = [], ""
    for side in SIDES:
        try:
            opaque = greatest_alpha(blend, side, device)
        except torch.OutOfMemoryError:
            raise
        except BREAKS as error:
            why = str(error)
        else:
            sides.append(side)
            log.info("FreeSteer: splats are blended by gsplat in tiles of %d, with an alpha of %.3f at most.", side, opaque)
    if not sides:
        _warn(why)
        return None
    return Kernel(blend, tuple(sides))


def greatest_alpha(blend: Blend, side: int, device: torch.device) -> float:
    """Draws one opaque Gaussian into one tile, with derivatives. Raises ValueError where it is not drawn as its formula says."""
    with torch.inference_mode(False), torch.enable_grad():
        mean = torch.full((1, 2), side / 2 + 0.5, device=device, requires_grad=True)  # the middle of a pixel
        conic = torch.tensor([[0.2, 0.05, 0.1]], device=device, requires_grad=True)
        one = torch.ones(1, device=device, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.long, device=device)
        tile = Tiles(zero, zero, zero + 1, side, (1, 1))
        _, transmittance = composite(blend, mean, conic, one, torch.ones(1, CHANNELS[0], device=device), tile)
        opaque = 1 - float(transmittance.detach().amin())
        y, x = torch.meshgrid(*(torch.arange(side, device=device) + 0.5 for _ in range(2)), indexing="ij")
        dx, dy = x.flatten() - mean[:, 0], y.flatten() - mean[:, 1]
        alpha = one * torch.exp(-0.5 * (conic[:, 0] * dx * dx + conic[:, 2] * dy * dy) - conic[:, 1] * dx * dy)
        formula = 1 - torch.where(alpha < FAINTEST, 0, alpha.clamp(max=opaque))
        weight = torch.arange(side**2, device=device) / side**2
        parts = [(each.detach(), *torch.autograd.grad((each * weight).sum(), (mean, conic, one))) for each in (transmittance[0], formula)]
        off = max(float((a - b).abs().amax() / b.abs().amax()) for a, b in zip(*parts, strict=True))
    if not (opaque > 0.9 and off < CLOSE):
        raise ValueError(f"in tiles of {side} it is off by {off:.1g}")
    return opaque


def composite(blend: Blend, means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """As `compositing.composite`."""
    (rows, columns), channels = tiles.grid, features.shape[1]
    features = F.pad(features, (0, min(n for n in CHANNELS if n >= channels) - channels))
    offsets, ids = tiles.start.view(1, rows, columns).int(), tiles.gaussian.int()
    batch = (t[None] for t in (means, conics, features, opacities))
    picture, alpha = blend(*batch, columns * tiles.side, rows * tiles.side, tiles.side, offsets, ids)
    both = torch.cat([picture[..., :channels], 1 - alpha], -1)[0]
    both = both.unflatten(0, (rows, tiles.side)).unflatten(2, (columns, tiles.side)).transpose(1, 2)
    both = both.reshape(rows * columns, tiles.side**2, -1)
    return both[..., :-1], both[..., -1]


@functools.cache
def ready_made() -> Blend | None:
    """gsplat's function, unless it is not installed or would call a compiler first."""
    try:
        if importlib.util.find_spec("gsplat.csrc") is None:
            return None
        return importlib.import_module("gsplat").rasterize_to_pixels
    except ModuleNotFoundError:
        return None
    except BREAKS as error:
        _warn(str(error))
        return None


def _warn(why: str) -> None:
    log.warning("FreeSteer: gsplat is installed, but its kernel cannot be used (%s): splats are drawn without it.", why)
