"""Where a diffusion model's attention layers are: a U-Net's at several resolutions, a transformer's in one stack.

Modules are found by name and by the names of their classes, so that no version of the host needs to be imported here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from .taps import Grid, Point


@dataclass(frozen=True)
class Layer:
    """One attention layer. `level` halves the resolution each time, from 0; a transformer has only level 0.

    `query`, `key` and `value` are what the layer multiplies, except that a joint layer normalises and rotates them first.
    """

    name: str
    part: Literal["input", "middle", "output"]
    level: int
    heads: int
    query: Point
    key: Point
    value: Point


@dataclass(frozen=True)
class Block:
    """What can be computed a second time during backward instead of being remembered.

    path: of the module, below the diffusion model. grid: see Point. kept, given: numbers of a token or cell that autograd keeps of what
    the block computes, and that the block is given. joint: tokens that share its sequence besides those of the image.
    """

    path: str
    grid: Point
    kept: int
    given: int
    joint: int = 0

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Of one row of the diffusion model's input."""
        return math.prod(self.grid.grid(latent_shape) or ()) + self.joint


# Numbers that autograd keeps for each token and channel, counted with fake tensors (tests/host/gradients/test_memory.py).
KEPT_BY_RESIDUAL, KEPT_BY_TRANSFORMER, KEPT_BY_JOINT = 4, 23, 12  # the last: blocks of Flux, whose gates and shifts have no graph
KEPT_BY_GATED = 36  # blocks of Lumina 2, with a gated feed-forward layer and norms before and after each part
JOINT_TOKENS = 512  # of text, at most, that are counted where it shares the sequence of the image


@dataclass(frozen=True)
class UNet:
    """The host's UNetModel: transformers at several resolutions, each with self-attention (attn1) and text (attn2)."""

    def blocks(self, diffusion_model: nn.Module) -> list[Block]:
        """In the order they run."""
        return [
            Block(path, Point(path, path, (2**level, 2**level)), *_kept(module))
            for _, _, below, level in _unet_blocks(diffusion_model)
            for path, module in _outermost(diffusion_model.get_submodule(below), below)
        ]

    def attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, "attn1"))

    def cross_attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, "attn2"))

    def text_linears(self, diffusion_model: nn.Module) -> list[tuple[str, ...]]:
        return [(layer.key.module, layer.query.module, layer.value.module) for layer in self._layers(diffusion_model, "attn2")]

    def _layers(self, diffusion_model: nn.Module, attention: str) -> Iterator[Layer]:
        for part, number, path, level in _unet_blocks(diffusion_model):
            block = diffusion_model.get_submodule(path)
            for index, transformer in block.named_children():
                if "SpatialTransformer" not in (kind.__name__ for kind in type(transformer).__mro__):
                    continue
                depth = _count(transformer.get_submodule("transformer_blocks"))
                for i in range(depth):
                    module = f"{path}.{index}.transformer_blocks.{i}.{attention}"
                    name = f"{part}.{number}.{attention}" if depth == 1 else f"{part}.{number}.{i}.{attention}"
                    patch = (2**level, 2**level)
                    key_patch = patch if attention == "attn1" else None
                    query = Point(f"{name}.q", f"{module}.to_q", patch)
                    key = Point(name, f"{module}.to_k", key_patch)
                    value = Point(f"{name}.v", f"{module}.to_v", key_patch)
                    yield Layer(name, part, level, _heads(diffusion_model.get_submodule(module)), query, key, value)


def _unet_blocks(diffusion_model: nn.Module) -> Iterator[tuple[Literal["input", "middle", "output"], int, str, int]]:
    """Every block as (part, number, path, level): a block ends with its Downsample or Upsample, if it has one."""
    level = 0
    for number, block in enumerate(diffusion_model.get_submodule("input_blocks").children()):
        level += _contains(block, "Downsample")
        yield "input", number, f"input_blocks.{number}", level
    yield "middle", 0, "middle_block", level
    for number, block in enumerate(diffusion_model.get_submodule("output_blocks").children()):
        yield "output", number, f"output_blocks.{number}", level
        level -= _contains(block, "Upsample")


def _outermost(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The residual blocks and transformer blocks below a module that are not inside of one another."""
    if type(module).__name__ in ("ResBlock", "VideoResBlock", "BasicTransformerBlock"):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _outermost(child, f"{path}.{name}")


def _kept(module: Any) -> tuple[int, int]:
    """Numbers of a cell that autograd keeps of a U-Net's block, and that the block is given."""
    if type(module).__name__ == "BasicTransformerBlock":
        width = module.attn1.to_q.in_features
        return KEPT_BY_TRANSFORMER * width, width
    parts = 2 if type(module).__name__ == "VideoResBlock" else 1  # over space, and over time
    return parts * KEPT_BY_RESIDUAL * (module.channels + module.out_channels), module.channels


def _contains(block: nn.Module, class_name: str) -> bool:
    return any(type(module).__name__ == class_name for module in block.modules())


def _count(modules: nn.Module) -> int:
    return sum(1 for _ in modules.children())


@dataclass(frozen=True)
class Transformer:
    """A stack of equal blocks at one resolution.

    stack: path of the stack. attention_path: from a block to its attention over image tokens, whose q, k and v are the
    modules in `projections`, thrice the same if they are fused. cross_path, cross_projections: the same for text, with the
    modules after which q and k are not changed any more. patch, tokens, pad_to: see Point; read from the model. kept: see above.
    text: linear layers of a block that make keys of text, and what else its attention to text is made of.
    """

    stack: str
    attention_path: str
    projections: tuple[str, str, str]
    patch: Callable[[Any], Grid]
    tokens: Callable[[Any], Literal["all", "first", "last"]] = lambda _: "all"
    pad_to: Callable[[Any], int] = lambda _: 1
    cross_path: str | None = None
    cross_projections: tuple[str, str, str] = ("", "", "")
    kept: int = KEPT_BY_JOINT
    text: tuple[str, ...] = ()

    def text_linears(self, diffusion_model: nn.Module) -> list[tuple[str, ...]]:
        count = _count(diffusion_model.get_submodule(self.stack))
        return [tuple(f"{self.stack}.{number}.{path}" for path in self.text) for number in range(count)]

    def blocks(self, diffusion_model: nn.Module) -> list[Block]:
        """In the order they run."""
        patch, joint = self.patch(diffusion_model), 0 if self.cross_path else JOINT_TOKENS
        found = []
        for number in range(_count(diffusion_model.get_submodule(self.stack))):
            path = f"{self.stack}.{number}"
            projection: Any = diffusion_model.get_submodule(f"{path}.{self.attention_path}.{self.projections[0]}")
            width: int = projection.in_features
            found.append(Block(path, Point(path, path, patch), self.kept * width, width, joint))
        return found

    def attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, self.attention_path, self.projections, "block.{}", self.patch(diffusion_model)))

    def cross_attention(self, diffusion_model: nn.Module) -> list[Layer]:
        if self.cross_path is None:
            return []
        return list(self._layers(diffusion_model, self.cross_path, self.cross_projections, "block.{}.cross", None))

    def _layers(
        self, diffusion_model: nn.Module, path: str, projections: tuple[str, str, str], naming: str, key_patch: Grid | None
    ) -> Iterator[Layer]:
        patch, tokens, pad_to = self.patch(diffusion_model), self.tokens(diffusion_model), self.pad_to(diffusion_model)
        for number in range(_count(diffusion_model.get_submodule(self.stack))):
            name, module = naming.format(number), f"{self.stack}.{number}.{path}"
            attention = diffusion_model.get_submodule(module)
            of_q, of_k, of_v = _channels(attention, projections)
            q, k, v = (f"{module}.{projection}" for projection in projections)
            query = Point(f"{name}.q", q, patch, of_q, tokens, pad_to)
            key = Point(name, k, key_patch, of_k, tokens, pad_to)
            value = Point(f"{name}.v", v, key_patch, of_v, tokens, pad_to)
            yield Layer(name, "output", 0, _heads(attention), query, key, value)


def _heads(attention: Any) -> int:
    """The host has a different name for it in each model."""
    return next(getattr(attention, name) for name in ("heads", "num_heads", "n_local_heads") if hasattr(attention, name))


def _channels(attention: Any, projections: tuple[str, str, str]) -> Sequence[tuple[int, int] | None]:
    """The q, k and v parts of a fused projection; k and v are narrower where several heads share them."""
    if len(set(projections)) > 1:
        return None, None, None
    width = attention.get_submodule(projections[0]).out_features
    kv = attention.n_local_kv_heads * attention.head_dim if hasattr(attention, "n_local_kv_heads") else width // 3
    return (0, width - 2 * kv), (width - 2 * kv, width - kv), (width - kv, width)
