"""Where a diffusion model attends, and what its tokens are there: for methods that change attention itself.

The host's override of attention is called with queries, keys and values, and is not told of which layer. A site is the module that is
running then; `watching` tells which.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .families import Family
from .layouts import UNet
from .taps import Grid

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
        """Tokens along each axis that the patch has."""
        return tuple(-(-size // cells) for size, cells in zip(latent_shape[-len(self.patch) :], self.patch, strict=True))


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


@contextmanager
def watching(diffusion_model: nn.Module, where: Sequence[Site]) -> Iterator[Callable[[], Site | None]]:
    """A function that tells which site is running, while the context lasts. Hooks are torch's; the host is left as it is."""
    running: list[Site] = []
    handles = []

    def enter(site: Site) -> Callable[..., None]:
        return lambda *_: running.append(site)

    def leave(*_: Any) -> None:
        running.pop()

    try:
        for site in where:
            module = diffusion_model.get_submodule(site.module)
            handles += [module.register_forward_pre_hook(enter(site)), module.register_forward_hook(leave)]
        yield lambda: running[-1] if running else None
    finally:
        for handle in handles:
            handle.remove()
