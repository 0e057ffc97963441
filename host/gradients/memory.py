"""How much memory the graph of a guided step takes, counted before there is one, and whether it has to be made smaller."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..models import families
from ..models.layouts import Block
from ..models.taps import Readable

log = logging.getLogger(__name__)
TWICE = 2  # a block that is evaluated again has its own graph, and copies of what that keeps
SPARE = 1.2  # of what is counted: a graph is not made where it would just fit


@dataclass(frozen=True)
class Footprint:
    """Bytes of a graph: as it is, and with its blocks evaluated again during backward."""

    whole: int
    recomputed: int

    def recompute(self, free: float) -> bool:
        """Whether `free` bytes are too few for the whole graph."""
        return SPARE * self.whole > free


def footprint(model: ModelPatcher, points: Sequence[Readable], latent_shape: Sequence[int]) -> Footprint:
    """Of a pass over latents (rows, ...) up to the last of `points`, in the model's own precision."""
    diffusion_model = model.model.diffusion_model
    blocks = _until_the_last(families.family_of(model).layout.blocks(diffusion_model), points)
    dtype = model.model.get_dtype_inference()
    rows = latent_shape[0] * dtype.itemsize
    kept = [
        rows * block.kept * block.tokens(latent_shape) + _cast_weights(diffusion_model.get_submodule(block.path), dtype)
        for block in blocks
    ]  # fmt: skip
    given = [rows * block.given * block.tokens(latent_shape) for block in blocks]
    return Footprint(sum(kept), sum(given) + TWICE * max(kept, default=0))


def _until_the_last(blocks: list[Block], points: Sequence[Readable]) -> list[Block]:
    """Those that run before all points have been read; what comes after has no graph."""
    last = max(
        (i for i, block in enumerate(blocks) for point in points if f"{point.module}.".startswith(f"{block.path}.")),
        default=len(blocks) - 1,
    )
    return blocks[: last + 1]


def _cast_weights(block: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of the copies that are made of weights that are stored in another precision: autograd keeps them."""
    return sum(math.prod(weight.shape) * dtype.itemsize for weight in block.parameters() if weight.dtype != dtype)


def must_recompute(model: ModelPatcher, points: Sequence[Readable], latent_shape: Sequence[int]) -> bool:
    """Whether a guided step fits into what the device has free only if blocks are evaluated again; says so in the log."""
    needed = footprint(model, points, latent_shape)
    free: Any = comfy.model_management.get_free_memory(model.load_device)  # a number, where only one is asked for
    if not needed.recompute(free):
        return False
    log.info(
        "FreeSteer: a guided step needs %.1f GB and %.1f GB are free, so parts of the model are computed twice: %.1f GB, and slower.",
        needed.whole / 1e9, free / 1e9, needed.recomputed / 1e9,
    )  # fmt: skip
    return True
