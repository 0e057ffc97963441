"""Blending by gsplat's CUDA kernels, where a ready-made build of it is installed: https://github.com/nerfstudio-project/gsplat.

Projection, tiles and colours stay ours, so that no Gaussian is cut at three deviations and the intrinsics have derivatives. The
kernel stops a pixel at light of 1e-4 where ours stops at 1e-5; else they are the same formula.
"""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from .tiles import Tiles

Kernel = Callable[..., tuple[Tensor, Tensor]]
log = logging.getLogger(__name__)


def composite(means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor] | None:
    """As `compositing.composite`, or None where the kernel is missing or fails; that it failed is logged once."""
    if means.device.type != "cuda" or means.dtype != torch.float32 or len(tiles.gaussian) >= 2**31:
        return None
    kernel = ready_made()
    if kernel is None:
        return None
    try:
        return blend(kernel, means, conics, opacities, features, tiles)
    except RuntimeError as error:
        _warn_once(str(error))
        return None


def blend(kernel: Kernel, means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """One picture through a function with the signature of gsplat's rasterize_to_pixels."""
    rows, columns = tiles.grid
    offsets, ids = tiles.start.view(1, rows, columns).int(), tiles.gaussian.int()
    batch = (t[None] for t in (means, conics, features, opacities))
    picture, alpha = kernel(*batch, columns * tiles.side, rows * tiles.side, tiles.side, offsets, ids)
    both = torch.cat([picture, 1 - alpha], -1)[0]
    both = both.unflatten(0, (rows, tiles.side)).unflatten(2, (columns, tiles.side)).transpose(1, 2)
    both = both.reshape(rows * columns, tiles.side**2, -1)
    return both[..., :-1], both[..., -1]


@functools.cache
def ready_made() -> Kernel | None:
    """gsplat's function, unless it is not installed or would call a compiler first."""
    try:
        if importlib.util.find_spec("gsplat.csrc") is None:
            return None
        return importlib.import_module("gsplat").rasterize_to_pixels
    except (ImportError, AttributeError, OSError, RuntimeError) as error:  # built for another torch or another CUDA
        if not isinstance(error, ModuleNotFoundError):
            _warn_once(str(error))
        return None


@functools.cache
def _warn_once(why: str) -> None:
    log.warning("FreeSteer: gsplat is installed, but its kernel failed (%s): splats are drawn without it.", why)
