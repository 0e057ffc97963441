"""The model families we know, as one table: where their attention layers are, and what a token covers.

Nothing is guessed: a model that is not in the table gets an error that names it.

"Structure" layers are those whose keys carry the layout of a picture. For U-Nets they are FreeControl's (arXiv 2312.07536):
the self-attention of the coarsest decoder level that has any, which is ("output", 3..5) in SD 1.5, 2 and SVD, and
("output", 0..2), 30 layers, in SDXL. For transformers the paper says nothing; the layers between 1/4 and 1/2 of the depth
are our choice: deep enough to know parts of objects, and the graph for a gradient stays short.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from .taps import Grid, Point

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Choice = Literal["default", "all decoder", "coarse", "fine"]
CHOICES: tuple[Choice, ...] = ("default", "all decoder", "coarse", "fine")
Config = dict[str, Any]


class UnknownModelError(ValueError):
    """Written for the user: which model this is, and which ones are known."""


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
class UNet:
    """The host's UNetModel: transformers at several resolutions, each with self-attention (attn1) and text (attn2)."""

    blocks: tuple[str, ...] = ("ResBlock", "VideoResBlock", "SpatialTransformer", "SpatialVideoTransformer")

    def attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, "attn1"))

    def cross_attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, "attn2"))

    def _layers(self, diffusion_model: nn.Module, attention: str) -> Iterator[Layer]:
        for part, number, path, level in _unet_blocks(diffusion_model):
            block = diffusion_model.get_submodule(path)
            for index, transformer in block.named_children():
                if "SpatialTransformer" not in (kind.__name__ for kind in type(transformer).__mro__):
                    continue
                depth = len(transformer.get_submodule("transformer_blocks"))
                for i in range(depth):
                    module = f"{path}.{index}.transformer_blocks.{i}.{attention}"
                    name = f"{part}.{number}.{attention}" if depth == 1 else f"{part}.{number}.{i}.{attention}"
                    patch = (2**level, 2**level)
                    points = [
                        Point(name if role == "k" else f"{name}.{role}", f"{module}.to_{role}", patch if attention == "attn1" or role == "q" else None)
                        for role in "qkv"
                    ]
                    yield Layer(name, part, level, diffusion_model.get_submodule(module).heads, *points)


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


def _contains(block: nn.Module, class_name: str) -> bool:
    return any(type(module).__name__ == class_name for module in block.modules())


@dataclass(frozen=True)
class Transformer:
    """A stack of equal blocks at one resolution.

    stack: path of the stack. attention: path inside a block, and its q, k and v projections, thrice the same if fused.
    patch: latent cells a token covers. tokens, pad_to: see Point. cross: path inside a block of its attention to text,
    and its normalised q and k and its v, if text is not in the joint sequence.
    """

    stack: str
    attention_path: str
    projections: tuple[str, str, str]
    patch: Callable[[Any], Grid]
    blocks: tuple[str, ...]
    tokens: Callable[[Any], Literal["first", "last"]] = lambda _: "first"
    pad_to: Callable[[Any], int] = lambda _: 1
    cross: tuple[str, tuple[str, str, str]] | None = None

    def attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, self.attention_path, self.projections, self.patch(diffusion_model)))

    def cross_attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return list(self._layers(diffusion_model, *self.cross, None)) if self.cross else []

    def _layers(
        self, diffusion_model: nn.Module, attention: str, projections: tuple[str, str, str], key_patch: Grid | None
    ) -> Iterator[Layer]:
        tokens, pad_to = self.tokens(diffusion_model), self.pad_to(diffusion_model)
        for number in range(len(diffusion_model.get_submodule(self.stack))):
            module = f"{self.stack}.{number}.{attention}"
            layer = diffusion_model.get_submodule(module)
            name = f"block.{number}" if key_patch else f"block.{number}.cross"
            points = [
                Point(name if role == "k" else f"{name}.{role}", f"{module}.{projection}", patch, channels, tokens if patch else "first", pad_to)
                for role, projection, patch, channels in zip(
                    "qkv", projections, (self.patch(diffusion_model), key_patch, key_patch), _channels(layer, projections), strict=True
                )
            ]
            yield Layer(name, "output", 0, _heads(layer), *points)


def _heads(attention: Any) -> int:
    """The host names this number differently in each model."""
    return next(getattr(attention, name) for name in ("heads", "num_heads", "n_local_heads") if hasattr(attention, name))


def _channels(attention: Any, projections: tuple[str, str, str]) -> Sequence[tuple[int, int] | None]:
    """The q, k and v parts of a fused projection; k and v are narrower where several heads share them."""
    if len(set(projections)) > 1:
        return None, None, None
    width = attention.get_submodule(projections[0]).out_features
    kv = attention.n_local_kv_heads * attention.head_dim if hasattr(attention, "n_local_kv_heads") else width // 3
    return (0, width - 2 * kv), (width - 2 * kv, width - kv), (width - kv, width)


@dataclass(frozen=True)
class Family:
    """A row of the table.

    classes: names of the diffusion model's class in the host; config: what else must hold of the model's configuration.
    text: whether text has its own cross-attention or sits in the same sequence as the image.
    in_place: the host changes hidden states in place, so a gradient must save copies.
    """

    name: str
    classes: tuple[str, ...]
    layout: UNet | Transformer
    text: Literal["cross", "joint"] = "cross"
    in_place: bool = False
    config: Callable[[Config], bool] = lambda _: True
    default: Choice = "coarse"

    def layers(self, diffusion_model: nn.Module, choice: Choice = "default") -> list[Layer]:
        """Self-attention layers over image tokens, in the order they run.

        Choose by resolution in a U-Net's decoder; by depth in a transformer, which is all decoder in this sense.
        """
        choice = self.default if choice == "default" else choice
        layers = [layer for layer in self.layout.attention(diffusion_model) if layer.part == "output"]
        if choice == "all decoder":
            return layers
        if isinstance(self.layout, UNet):
            level = (max if choice == "coarse" else min)(layer.level for layer in layers)
            return [layer for layer in layers if layer.level == level]
        quarter, half = len(layers) // 4, (len(layers) + 1) // 2
        return layers[quarter:half] if choice == "coarse" else layers[half:] or layers

    def cross_layers(self, diffusion_model: nn.Module) -> list[Layer]:
        """Attention of image tokens to text, in the order it runs; empty where text is in the joint sequence."""
        return self.layout.cross_attention(diffusion_model)


def _context(width: int, video: bool = False) -> Callable[[Config], bool]:
    return lambda config: config.get("context_dim") == width and bool(config.get("use_temporal_attention")) == video


FUSED = ("qkv", "qkv", "qkv")
SPLIT = ("to_q", "to_k", "to_v")

FAMILIES = (
    Family("FreeSteer playground", ("UNetModel",), UNet(), config=lambda c: bool(c.get("freesteer_playground")), default="all decoder"),
    Family("SD 1.5", ("UNetModel",), UNet(), config=_context(768)),
    Family("SD 2", ("UNetModel",), UNet(), config=_context(1024)),
    Family("SVD", ("UNetModel",), UNet(), config=_context(1024, video=True)),
    Family("SDXL", ("UNetModel",), UNet(), config=_context(2048)),
)


def of_diffusion_model(diffusion_model: nn.Module) -> Family:
    """A row with this class. Rows that share a class differ only in `config` and `default`."""
    for family in FAMILIES:
        if type(diffusion_model).__name__ in family.classes:
            return family
    raise _unknown(type(diffusion_model).__name__)


def family_of(model: "ModelPatcher") -> Family:
    """The row of a MODEL."""
    config = model.model.model_config
    flag = "freesteer_playground"  # a plain getattr on a host config logs a warning when there is none
    values = {**config.unet_config, flag: vars(config).get(flag, getattr(type(config), flag, False))}
    name = type(model.model.diffusion_model).__name__
    for family in FAMILIES:
        if name in family.classes and family.config(values):
            return family
    raise _unknown(f"{name} with text of width {values['context_dim']}" if "context_dim" in values else name)


def structure_points(model: "ModelPatcher", choice: Choice = "default") -> list[Point]:
    """The keys that carry the layout of what `model` draws."""
    return [layer.key for layer in family_of(model).layers(model.model.diffusion_model, choice)]


def _unknown(name: str) -> UnknownModelError:
    return UnknownModelError(f"FreeSteer does not know this model ({name}). It can steer: {', '.join(family.name for family in FAMILIES)}.")
