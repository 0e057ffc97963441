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

    def blocks(self, diffusion_model: nn.Module) -> list[nn.Module]:
        """What can be computed a second time during backward instead of being remembered."""
        kinds = ("ResBlock", "VideoResBlock", "SpatialTransformer", "SpatialVideoTransformer")
        found = [module for module in diffusion_model.modules() if type(module).__name__ in kinds]
        inner = {id(module) for outer in found for module in outer.modules() if module is not outer}
        return [module for module in found if id(module) not in inner]

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


def _contains(block: nn.Module, class_name: str) -> bool:
    return any(type(module).__name__ == class_name for module in block.modules())


def _count(modules: nn.Module) -> int:
    return sum(1 for _ in modules.children())


@dataclass(frozen=True)
class Transformer:
    """A stack of equal blocks at one resolution.

    stack: path of the stack. attention_path: from a block to its attention over image tokens, whose q, k and v are the
    modules in `projections`, thrice the same if they are fused. cross_path, cross_projections: the same for text, with the
    modules after which q and k are not changed any more. patch, tokens, pad_to: see Point; read from the model.
    """

    stack: str
    attention_path: str
    projections: tuple[str, str, str]
    patch: Callable[[Any], Grid]
    tokens: Callable[[Any], Literal["first", "last"]] = lambda _: "first"
    pad_to: Callable[[Any], int] = lambda _: 1
    cross_path: str | None = None
    cross_projections: tuple[str, str, str] = ("", "", "")

    def blocks(self, diffusion_model: nn.Module) -> list[nn.Module]:
        return list(diffusion_model.get_submodule(self.stack).children())

    def attention(self, diffusion_model: nn.Module) -> list[Layer]:
        return [
            self._layer(diffusion_model, number, f"block.{number}", self.attention_path, self.projections, text=False)
            for number in range(_count(diffusion_model.get_submodule(self.stack)))
        ]

    def cross_attention(self, diffusion_model: nn.Module) -> list[Layer]:
        if self.cross_path is None:
            return []
        return [
            self._layer(diffusion_model, number, f"block.{number}.cross", self.cross_path, self.cross_projections, text=True)
            for number in range(_count(diffusion_model.get_submodule(self.stack)))
        ]

    def _layer(self, diffusion_model: nn.Module, number: int, name: str, path: str, projections: tuple[str, str, str], text: bool) -> Layer:
        path = f"{self.stack}.{number}.{path}"
        attention = diffusion_model.get_submodule(path)
        image = (self.patch(diffusion_model), self.tokens(diffusion_model), self.pad_to(diffusion_model))
        of_key = (None, "first", 1) if text else image
        points = (
            Point(label, f"{path}.{projection}", patch, channels, tokens, pad_to)
            for label, projection, channels, (patch, tokens, pad_to) in zip(
                (f"{name}.q", name, f"{name}.v"), projections, _channels(attention, projections), (image, of_key, of_key), strict=True
            )
        )
        return Layer(name, "output", 0, _heads(attention), *points)


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

def _square(model: Any) -> Grid:
    return (model.patch_size, model.patch_size)


FAMILIES = (
    Family("FreeSteer playground", ("UNetModel",), UNet(), config=lambda c: bool(c.get("freesteer_playground")), default="all decoder"),
    Family("SD 1.5", ("UNetModel",), UNet(), config=_context(768)),
    Family("SD 2", ("UNetModel",), UNet(), config=_context(1024)),
    Family("SVD", ("UNetModel",), UNet(), config=_context(1024, video=True)),
    Family("SDXL", ("UNetModel",), UNet(), config=_context(2048)),
    Family("SD 3", ("OpenAISignatureMMDITWrapper",), Transformer("joint_blocks", "x_block.attn", FUSED, _square), "joint"),
    Family("Flux", ("Flux",), Transformer("double_blocks", "img_attn", FUSED, _square), "joint", in_place=True),
    Family(
        "Qwen-Image",
        ("QwenImageTransformer2DModel",),
        Transformer("transformer_blocks", "attn", SPLIT, lambda m: (1, *_square(m))),
        "joint",
    ),
    Family(
        "Lumina 2 and Z-Image",
        ("NextDiT",),
        Transformer("layers", "attention", FUSED, _square, tokens=lambda _: "last", pad_to=lambda m: m.pad_tokens_multiple or 1),
        "joint",
    ),
    Family(
        "Hunyuan Video",
        ("HunyuanVideo",),
        Transformer("double_blocks", "img_attn", FUSED, lambda m: tuple(m.patch_size), tokens=lambda _: "last"),  # after a reference
        "joint",
        in_place=True,
    ),
    Family(
        "Wan",
        ("WanModel", "VaceWanModel", "CameraWanModel"),
        Transformer(
            "blocks",
            "self_attn",
            ("q", "k", "v"),
            lambda m: tuple(m.patch_size),
            tokens=lambda m: "first" if m.ref_conv is None else "last",
            cross_path="cross_attn",
            cross_projections=("norm_q", "norm_k", "v"),
        ),
    ),
    Family(
        "LTX Video",
        ("LTXVModel",),
        Transformer(
            "transformer_blocks", "attn1", SPLIT, lambda _: (1, 1, 1), cross_path="attn2", cross_projections=("q_norm", "k_norm", "to_v")
        ),
        in_place=True,
    ),
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
