"""Reading keys, queries and values inside a diffusion model, without owning any of the host's single patch slots.

A tap is a torch forward hook on a projection (to_k and its like). It lives as long as one `with`: the user's MODEL is
the same before and after, and patches of other packs stay where they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

CONDITIONAL, UNCONDITIONAL = 0, 1  # the host's numbers, in `cond_or_uncond`
Grid = tuple[int, ...]


class TapError(RuntimeError):
    """Written for the user: what in the workflow keeps us from reading the model."""


@dataclass(frozen=True)
class Point:
    """One projection of one attention layer.

    `module` is a path below the diffusion model. `channels` is (start, stop) in a fused projection's output. `patch` is how
    many latent cells a token covers along (h, w) or (t, h, w), or None for text tokens, which have no grid.
    The image's tokens are "all" of the sequence, or the "first" or the "last" ones where text or reference pictures share
    it; some models pad the image's part to a multiple of `pad_to` tokens.
    """

    name: str
    module: str
    patch: Grid | None
    channels: tuple[int, int] | None = None
    tokens: Literal["all", "first", "last"] = "all"
    pad_to: int = 1

    def grid(self, latent_shape: Sequence[int]) -> Grid | None:
        """Token grid (h, w) or (t, h, w) for the shape of the diffusion model's input; models pad odd sizes up."""
        if self.patch is None:
            return None
        return tuple(math.ceil(size / cells) for size, cells in zip(latent_shape[-len(self.patch) :], self.patch, strict=True))

    def image_tokens(self, projected: Tensor, grid: Grid | None) -> Tensor:
        """The part (rows, tokens, channels) of a projection's output that belongs to this point."""
        if self.channels is not None:
            projected = projected[..., slice(*self.channels)]
        if grid is None:
            return projected
        count = math.prod(grid)
        padded = math.ceil(count / self.pad_to) * self.pad_to
        start = projected.shape[1] - padded if self.tokens == "last" else 0
        if start < 0 or projected.shape[1] < count or (self.tokens == "all" and projected.shape[1] > count):
            raise TapError(
                f"Layer {self.name} has {projected.shape[1]} tokens where the latent has {' x '.join(map(str, grid))}. A patch that "
                "merges, tiles or shrinks (ToMe, HyperTile, Deep Shrink) is probably on this model: please take it off."
            )
        return projected[:, start : start + count]


class Taps:
    """Records the given points during one forward pass: `features[name]` is (rows, tokens, channels), `grids[name]` its grid.

    stop_gradient: whether the rest of the pass records no graph once every point has been read.
    """

    def __init__(self, diffusion_model: nn.Module, points: Sequence[Point], latent_shape: Sequence[int], stop_gradient: bool = False):
        self.points = tuple(points)
        self.stop_gradient = stop_gradient
        self.grids: dict[str, Grid | None] = {point.name: point.grid(latent_shape) for point in points}
        self.features: dict[str, Tensor] = {}
        self._modules = [diffusion_model.get_submodule(point.module) for point in points]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._last: Point | None = None

    def __enter__(self) -> "Taps":
        for point, module in zip(self.points, self._modules, strict=True):
            self._handles.append(module.register_forward_hook(self._hook(point)))
        self.features.clear()
        self._last = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if kind is None:
            self.require_all()

    def require_all(self) -> None:
        """A point that was never reached means that something else computes this layer."""
        missing = [point.name for point in self.points if point.name not in self.features]
        if missing:
            raise TapError(
                f"Could not read {', '.join(missing)}: the model did not run these layers in the usual way. "
                "A torch.compile node, a block cache or a layer-skipping patch on this model is the usual cause: please take it off."
            )

    def _hook(self, point: Point):
        def record(module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
            # Runs a second time during backward where blocks are recomputed, and must then do the same again.
            self.features[point.name] = point.image_tokens(output, self.grids[point.name])
            if self._last is None and len(self.features) == len(self.points):
                self._last = point
            if point is self._last and self.stop_gradient:
                torch.set_grad_enabled(False)

        return record


def branch_rows(transformer_options: Mapping[str, Any], rows: int, branch: int = CONDITIONAL) -> list[int]:
    """The rows of a batch that belong to one branch.

    The host evaluates several conditions in one batch or in several, in either order, and one prompt for each region of a
    regional prompt. `cond_or_uncond` names the branch of each; every one of them has as many rows as there are latents.
    """
    branches = transformer_options["cond_or_uncond"]
    latents = rows // len(branches)
    return [i * latents + row for i, each in enumerate(branches) if each == branch for row in range(latents)]
