"""Where a diffusion model attends, and what its tokens are there: for methods that change attention itself.

The host's override of attention is called with queries, keys and values, and is not told of which layer. A site is the module that is
running then (running.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .families import Choice, Family
from .layouts import UNet
from .taps import Attended, Grid, Point, grid_of

Kind = Literal["space", "text", "time", "text in time", "joint"]


@dataclass(frozen=True)
class Site:
    """module: path below the diffusion model. kind: what attends to what. Space: image tokens to each other, over all frames where the
    model has an axis of time. Text: image tokens to the prompt. Time: the frames at one place to each other, and to the prompt in "text
    in time". Joint: prompt and image tokens, in this order, to each other. patch: cells of the latent that a token covers.
    pad_to: some models fill up prompt and image, each by itself, to a multiple of so many tokens."""

    module: str
    kind: Kind
    patch: Grid
    pad_to: int = 1

    def grid(self, latent_shape: Sequence[int]) -> tuple[int, ...]:
        return grid_of(self.patch, latent_shape)


def sites(family: Family, diffusion_model: nn.Module) -> list[Site]:
    """All of a model, whatever its family."""
    if family.text == "joint":
        query = family.layers(diffusion_model, "all decoder")[0].query
        own = [block.path for block in family.layout.blocks(diffusion_model)]
        single = getattr(diffusion_model, "single_blocks", ())
        return [
            Site(path, "joint", query.patch or (), query.pad_to) for path in (*own, *(f"single_blocks.{i}" for i in range(len(single))))
        ]
    found = []
    for layer, text in zip(family.layout.attention(diffusion_model), family.cross_layers(diffusion_model), strict=True):
        patch = layer.query.patch or ()
        found += [Site(_above(layer.query.module), "space", patch), Site(_above(text.query.module), "text", patch)]
        found += _over_time(diffusion_model, layer.query.module, patch) if isinstance(family.layout, UNet) else []
    return found


def _above(path: str) -> str:
    return path.rpartition(".")[0]


def _over_time(diffusion_model: nn.Module, query: str, patch: Grid) -> list[Site]:
    """The layers of the host's SpatialVideoTransformer that follow the one over space with this query."""
    stack, _, rest = query.partition(".transformer_blocks.")
    number = rest.split(".")[0]
    path = f"{stack}.time_stack.{number}"
    transformer: Any = diffusion_model.get_submodule(stack)
    if not hasattr(transformer, "time_stack"):
        return []
    second = "text in time" if transformer.use_spatial_context else "time"  # without a prompt it attends to the frames again
    return [Site(f"{path}.attn1", "time", patch), Site(f"{path}.attn2", second, patch)]


@dataclass(frozen=True)
class TextLayer:
    """One attention of image tokens to the prompt. points: what is read of it, text keys before image queries."""

    heads: int
    points: tuple[Point, Point] | tuple[Attended]

    @property
    def pad_to(self) -> int:
        """A multiple of which the tokens of text are filled up to."""
        return self.points[0].pad_to if isinstance(self.points[0], Attended) else 1

    def grid(self, latent_shape: Sequence[int]) -> Grid:
        """Of the image tokens."""
        return self.points[-1].grid(latent_shape) or ()

    def queries_and_keys(self, features: Mapping[str, Tensor], latent_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(rows, image tokens, channels) and (rows, text tokens, channels) of what was read."""
        read = [features[point.name] for point in self.points]
        if len(read) == 2:
            return read[1], read[0]
        text = read[0].shape[1] - math.prod(self.grid(latent_shape))
        return read[0][:, text:], read[0][:, :text]


def text_layers(family: Family, diffusion_model: nn.Module, choice: Choice = "default") -> list[TextLayer]:
    """Where image tokens look at the words of the prompt: beside, or in, the attention layers of that choice (see Family.layers)."""
    chosen = {layer.name for layer in family.layers(diffusion_model, choice)}
    own = family.layout.attention(diffusion_model)
    if family.text == "joint":
        blocks = family.layout.blocks(diffusion_model)
        return [
            TextLayer(layer.heads, (Attended(f"{layer.name}.joint", block.path, layer.query.patch or (), layer.query.pad_to),))
            for layer, block in zip(own, blocks, strict=True)
            if layer.name in chosen
        ]
    return [
        TextLayer(text.heads, (text.key, text.query))
        for layer, text in zip(own, family.cross_layers(diffusion_model), strict=True)
        if layer.name in chosen
    ]
