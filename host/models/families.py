"""The model families we know, as one table: where their attention layers are, and what a token covers.

Nothing is guessed: a model that is not in the table gets an error that names it.

"Structure" layers are those whose keys carry the layout of a picture. For U-Nets they are FreeControl's (arXiv 2312.07536):
the self-attention of the coarsest decoder level that has any, which is ("output", 3..5) in SD 1.5, 2 and SVD, and
("output", 0..2), 30 layers, in SDXL. For transformers the paper says nothing. Of the playground's six layers, the last three are followed
best, two in the middle nearly as well, the second and third badly (overlaps of .59, .54, .25, when it had been trained for 18000
steps). The graph for a gradient ends at the last one, so a quarter of the layers, around the middle, is what is read in large ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from .layouts import KEPT_BY_GATED, KEPT_BY_TRANSFORMER, Layer, Transformer, UNet
from .taps import Grid, Point

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Choice = Literal["default", "all decoder", "coarse", "fine"]
CHOICES: tuple[Choice, ...] = ("default", "all decoder", "coarse", "fine")
Config = dict[str, Any]


class UnknownModelError(ValueError):
    """Written for the user: which model this is, and which ones are known."""


@dataclass(frozen=True)
class Family:
    """A row of the table.

    classes: names of the diffusion model's class in the host; config: what else must hold of the model's configuration.
    text: whether text has its own cross-attention or sits in the same sequence as the image.
    default: the structure layers, unless told; "default": the coarse ones of a U-Net, those in the middle of a transformer.
    side: of the square pictures, in pixels, that it usually draws.
    """

    name: str
    classes: tuple[str, ...]
    layout: UNet | Transformer
    text: Literal["cross", "joint"] = "cross"
    config: Callable[[Config], bool] = lambda _: True
    default: Choice = "default"
    side: int = 1024

    def layers(self, diffusion_model: nn.Module, choice: Choice = "default") -> list[Layer]:
        """Self-attention layers over image tokens, in the order they run.

        Choose by resolution in a U-Net's decoder; by depth in a transformer, which is all decoder in this sense.
        """
        choice = self.default if choice == "default" else choice
        layers = [layer for layer in self.layout.attention(diffusion_model) if layer.part == "output"]
        if choice == "all decoder":
            return layers
        if isinstance(self.layout, UNet):
            level = (min if choice == "fine" else max)(layer.level for layer in layers)
            return [layer for layer in layers if layer.level == level]
        count, half = len(layers), (len(layers) + 1) // 2
        if choice == "default":
            return layers[3 * count // 8 : -(-5 * count // 8)]
        return layers[count // 4 : half] if choice == "coarse" else layers[half:] or layers

    def cross_layers(self, diffusion_model: nn.Module) -> list[Layer]:
        """Attention of image tokens to text, in the order it runs; empty where text is in the joint sequence."""
        return self.layout.cross_attention(diffusion_model)

    def text_linears(self, diffusion_model: nn.Module) -> list[tuple[str, ...]]:
        """Paths of the linear layers of each attention to text, those first that make its keys: what can be trained of it."""
        return self.layout.text_linears(diffusion_model)


def _context(width: int, video: bool = False) -> Callable[[Config], bool]:
    return lambda config: config.get("context_dim") == width and bool(config.get("use_temporal_attention")) == video


FUSED = ("qkv", "qkv", "qkv")
SPLIT = ("to_q", "to_k", "to_v")


def _square(model: Any) -> Grid:
    return (model.patch_size, model.patch_size)


WAN = Transformer(
    "blocks",
    "self_attn",
    ("q", "k", "v"),
    lambda m: tuple(m.patch_size),
    tokens=lambda m: "first" if m.ref_conv is None else "last",
    cross_path="cross_attn",
    cross_projections=("norm_q", "norm_k", "v"),
    kept=KEPT_BY_TRANSFORMER,
    text=("cross_attn.k", "cross_attn.q", "cross_attn.v"),
)

FAMILIES = (
    Family("FreeSteer playground", ("UNetModel",), UNet(), "cross", lambda c: bool(c.get("freesteer_playground")), "all decoder", 128),
    Family("SD 1.5", ("UNetModel",), UNet(), config=_context(768), side=512),
    Family("SD 2", ("UNetModel",), UNet(), config=_context(1024), side=768),
    Family("SVD", ("UNetModel",), UNet(), config=_context(1024, video=True), side=768),
    Family("SDXL", ("UNetModel",), UNet(), config=_context(2048)),
    Family(
        "SD 3",
        ("OpenAISignatureMMDITWrapper",),
        Transformer("joint_blocks", "x_block.attn", FUSED, _square, text=("context_block.attn.qkv",)),
        "joint",
    ),
    Family(
        "Flux",
        ("Flux",),
        Transformer("double_blocks", "img_attn", FUSED, _square, tokens=lambda _: "first", text=("txt_attn.qkv",)),  # before references
        "joint",
    ),
    Family(
        "Qwen-Image",
        ("QwenImageTransformer2DModel",),
        Transformer(
            "transformer_blocks",
            "attn",
            SPLIT,
            lambda m: (1, *_square(m)),
            tokens=lambda _: "first",
            text=("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj"),
        ),
        "joint",
    ),
    Family(
        "Lumina 2 and Z-Image",
        ("NextDiT",),
        Transformer(
            "layers",
            "attention",
            FUSED,
            _square,
            tokens=lambda _: "last",
            pad_to=lambda m: m.pad_tokens_multiple or 1,
            kept=KEPT_BY_GATED,
            text=("attention.qkv",),
        ),
        "joint",
    ),
    Family(
        "Hunyuan Video",
        ("HunyuanVideo",),
        Transformer(
            "double_blocks", "img_attn", FUSED, lambda m: tuple(m.patch_size), tokens=lambda _: "last", text=("txt_attn.qkv",)
        ),  # after a reference
        "joint",
        side=720,
    ),
    Family(
        "FreeSteer playground clips",
        ("WanModel",),
        WAN,
        config=lambda c: bool(c.get("freesteer_playground")),
        default="fine",
        side=128,
    ),
    Family("Wan", ("WanModel", "VaceWanModel", "CameraWanModel"), WAN, side=640),
    Family(
        "LTX Video",
        ("LTXVModel",),
        Transformer(
            "transformer_blocks",
            "attn1",
            SPLIT,
            lambda _: (1, 1, 1),
            cross_path="attn2",
            cross_projections=("q_norm", "k_norm", "to_v"),
            kept=KEPT_BY_TRANSFORMER,
            text=("attn2.to_k", "attn2.to_q", "attn2.to_v"),
        ),
        side=640,
    ),
)


def of_diffusion_model(diffusion_model: nn.Module) -> Family:
    """A row with this class. Rows that share a class have the same layout."""
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
