"""Reading keys, queries and values inside a diffusion model, without owning any of the host's single patch slots.

A tap is a torch forward hook on a projection (to_k and its like), or stands before the host's attention function, around what other
packs have put there. It lives as long as one `with`: the user's MODEL is the same before and after, and patches of other packs stay where
they are.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .running import watching

CONDITIONAL, UNCONDITIONAL = 0, 1  # the host's numbers, in `cond_or_uncond`
OVERRIDE = "optimized_attention_override"  # in transformer_options: the host's single place for other attention
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
        return None if self.patch is None else grid_of(self.patch, latent_shape)

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


@dataclass(frozen=True)
class Attended:
    """An attention over text and image tokens together, as it is computed: with norms and rotations, which differ between the two. What is
    read are the keys of the text, and after them the queries of the image: (rows, text + image tokens, heads * channels).

    `module` is what the attention runs in; `patch` and `pad_to` are as those of a Point.
    """

    name: str
    module: str
    patch: Grid
    pad_to: int = 1

    def grid(self, latent_shape: Sequence[int]) -> Grid:
        return grid_of(self.patch, latent_shape)

    def keys_and_queries(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor | None:
        """Of an attention in this module, unless it is over the image alone. q, k: (rows, tokens, heads * channels), or (rows, heads,
        tokens, channels)."""
        q, k = (x.transpose(1, 2).flatten(2) if x.ndim == 4 else x for x in (q, k))
        count = math.prod(grid)
        text = k.shape[1] - math.ceil(count / self.pad_to) * self.pad_to
        if text < 0 or q.shape[1] != k.shape[1] or q.shape[2] != k.shape[2]:
            raise TapError(
                f"The attention in {self.module} has {q.shape[1]} queries and {k.shape[1]} keys where the latent has "
                f"{' x '.join(map(str, grid))} tokens. If Peekaboo is on this model, connect it before this node; a patch that merges or "
                "tiles tokens has to be taken off."
            )
        return torch.cat([k[:, :text], q[:, text : text + count]], 1) if text else None


@dataclass(frozen=True)
class Prompt:
    """The encoded prompt as the diffusion model is given it: (rows, tokens, channels + 1). The last channel is 1 for tokens that it sees,
    and 0 for those that are masked out."""

    name: str = "prompt"
    module: str = ""

    def grid(self, latent_shape: Sequence[int]) -> None:
        return None


def grid_of(patch: Grid, latent_shape: Sequence[int]) -> Grid:
    """Tokens along each axis that the patch has; models pad odd sizes up."""
    return tuple(math.ceil(size / cells) for size, cells in zip(latent_shape[-len(patch) :], patch, strict=True))


Readable = Point | Attended | Prompt


class Taps:
    """Records the given points during one forward pass: `features[name]` is (rows, tokens, channels), `grids[name]` its grid.

    stop_gradient: whether the rest of the pass records no graph once every point has been read.
    """

    def __init__(self, diffusion_model: nn.Module, points: Sequence[Readable], latent_shape: Sequence[int], stop_gradient: bool = False):
        self.diffusion_model, self.points, self.stop_gradient = diffusion_model, tuple(points), stop_gradient
        self.grids: dict[str, Grid | None] = {point.name: point.grid(latent_shape) for point in points}
        self.features: dict[str, Tensor] = {}
        self._modules = [diffusion_model.get_submodule(point.module) for point in points]
        self._open = ExitStack()
        self._last: Readable | None = None
        self._attended: Callable[[], Attended | None] = lambda: None

    def __enter__(self) -> "Taps":
        self.features.clear()
        self._last = None
        with ExitStack() as stack:
            self._attended = stack.enter_context(watching(self.diffusion_model, [p for p in self.points if isinstance(p, Attended)]))
            for point, module in zip(self.points, self._modules, strict=True):
                if isinstance(point, Point):
                    stack.callback(module.register_forward_hook(self._hook(point)).remove)
                elif isinstance(point, Prompt):
                    stack.callback(module.register_forward_pre_hook(self._given(point), with_kwargs=True).remove)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._open.close()
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

    def through_attention(self, transformer_options: dict[str, Any]) -> dict[str, Any]:
        """The same options, with which points of the kind Attended can be read."""
        if not any(isinstance(point, Attended) for point in self.points):
            return transformer_options
        before = transformer_options.get(OVERRIDE)

        def attention(function: Callable[..., Tensor], q: Tensor, k: Tensor, *rest: Any, **named: Any) -> Tensor:
            point = self._attended()
            found = point.keys_and_queries(q, k, self.grids[point.name] or ()) if point is not None else None
            if point is not None and found is not None:
                self._record(point, found)
            return function(q, k, *rest, **named) if before is None else before(function, q, k, *rest, **named)

        return {**transformer_options, OVERRIDE: attention}

    def _hook(self, point: Point) -> Callable[[nn.Module, tuple[object, ...], Tensor], None]:
        return lambda module, inputs, output: self._record(point, point.image_tokens(output, self.grids[point.name]))

    def _given(self, point: Prompt) -> Callable[[nn.Module, tuple[object, ...], dict[str, Any]], None]:
        def record(module: nn.Module, inputs: tuple[object, ...], named: dict[str, Any]) -> None:
            context, mask = named.get("context"), named.get("attention_mask")
            if context is None:
                return
            seen = torch.ones_like(context[..., :1])
            if isinstance(mask, Tensor) and mask.shape == context.shape[:2]:
                seen = ((mask > -1) if mask.is_floating_point() and not (mask > 0).any() else (mask > 0)).to(context)[..., None]
            self._record(point, torch.cat([context, seen], -1))

        return record

    def _record(self, point: Readable, feature: Tensor) -> None:
        """Runs a second time during backward where blocks are recomputed, and must then do the same again."""
        self.features[point.name] = feature
        if self._last is None and len(self.features) == len(self.points):
            self._last = point
        if point is self._last and self.stop_gradient:
            torch.set_grad_enabled(False)


def branch_rows(transformer_options: Mapping[str, Any], rows: int, branch: int = CONDITIONAL) -> list[int]:
    """The rows of a batch that belong to one branch.

    The host evaluates several conditions in one batch or in several, in either order, and one prompt for each region of a
    regional prompt. `cond_or_uncond` names the branch of each; every one of them has as many rows as there are latents.
    """
    branches = transformer_options["cond_or_uncond"]
    latents = rows // len(branches)
    return [i * latents + row for i, each in enumerate(branches) if each == branch for row in range(latents)]
