"""Models of the host's own classes with random weights, of any size: they take the time and the memory of trained ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...host.models.taps import Point
from ...host.sampling import reading
from ...host.sampling.reading import Features, Order, Readout, Request

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Recipe:
    """config: the host's class for the family. unet: its configuration. extra: what replaces its unet_extra_config.
    latent: shape of one sample. text: (tokens, width) of the conditioning. options: the rest of the conditioning.
    """

    config: type
    unet: dict[str, Any]
    latent: tuple[int, ...]
    text: tuple[int, int]
    extra: dict[str, Any] = field(default_factory=dict)
    options: Callable[[], dict[str, Any]] = dict

    @property
    def conditioning(self) -> Conditioning:
        return conditioning(self, 1)


def conditioning(recipe: Recipe, seed: int) -> Conditioning:
    text = torch.randn(1, *recipe.text, generator=torch.Generator().manual_seed(seed))
    return [[text, recipe.options()]]


def assemble(
    recipe: Recipe, dtype: torch.dtype, cast: torch.dtype | None = None, device: str = "cpu", operations: Any = None,
    load: Callable[[nn.Module], Any] | None = None,
) -> ModelPatcher:  # fmt: skip
    """operations: in place of the host's choice. load: fills the diffusion model; without it, weights are as the memory was."""
    config = type(recipe.config.__name__, (recipe.config,), {"unet_extra_config": recipe.extra})(dict(recipe.unet))
    config.set_inference_dtype(dtype, cast)
    config.custom_operations = operations
    model = config.get_model({}, device=device)
    if load is not None:
        load(model.diffusion_model)
    return ModelPatcher(model, load_device=torch.device(device), offload_device=torch.device(device))


def randomise(module: nn.Module) -> None:
    """Weights that keep activations near 1; seeded. In place, a tensor at a time, on the module's own device."""
    for number, (name, weight) in enumerate(module.named_parameters()):
        generator = torch.Generator(weight.device).manual_seed(number)
        values = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=torch.float32)
        scaled = values / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.1 * values + name.endswith("weight")
        weight.data.copy_(scaled)


def evaluate(model: ModelPatcher, x: Tensor, positive: Conditioning, request: Request | None = None) -> tuple[Tensor, Readout]:
    """One evaluation of a MODEL as the host makes it for its conditional rows, in the middle of its schedule."""
    base: Any = model.model
    m = reading.readable(model)
    options, readout = dict(m.model_options["transformer_options"]), Readout()
    options |= {"wrappers": {**options.get("wrappers", {})}, "cond_or_uncond": [0]}
    for kind, wrappers in m.wrappers.items():
        options["wrappers"][kind] = wrappers
    if request is not None:
        options[reading.READING] = Order(request, readout, started=True)
    sigma = float(base.model_sampling.percent_to_sigma(0.5))
    ((text, extras),) = positive
    found = base.extra_conds(
        device=x.device, noise=x, latent_image=x, cross_attn=text.to(x.device), width=x.shape[-1] * 8, height=x.shape[-2] * 8, **extras
    )
    conditions = {name: condition.process_cond(batch_size=len(x), area=None).cond for name, condition in found.items()}
    return base.apply_model(x, torch.full((len(x),), sigma, device=x.device), transformer_options=options, **conditions), readout


def squared_keys(features: Features) -> Tensor:
    """An energy of every key: as long to differentiate as FreeControl's, which is on fewer coordinates."""
    return torch.stack([keys.square().mean((1, 2)) for keys in features.values()]).sum(0)


def guided_step(model: ModelPatcher, points: Sequence[Point], x: Tensor, positive: Conditioning, recompute: bool = False) -> Tensor:
    """As host.sampling takes it: the unconditional row, then the conditional one with a graph, and back through that."""
    with torch.no_grad():
        unconditional, _ = evaluate(model, x, positive)
    request = Request(x.shape, points, squared_keys, recompute=recompute)
    conditional, readout = evaluate(model, x, positive, request)
    return unconditional + conditional - readout.gradients[0].to(x)


def unet(context: int, **changes: Any) -> dict[str, Any]:
    """The configuration of SD 1.5's U-Net for text of another width, and what else is changed."""
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1, "context_dim": context,
        "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None,
        "use_temporal_attention": False, **changes,
    }  # fmt: skip


SDXL = {
    "adm_in_channels": 2816, "num_classes": "sequential", "use_linear_in_transformer": True, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10, "num_heads": -1, "num_head_channels": 64,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 512, "in_dim": 16, "freq_dim": 256,
    "text_dim": 4096, "out_dim": 16,
}  # fmt: skip

# True sizes, and the pictures and clips that are usual: 512 and 1024 pixels; Wan's 480p, 81 frames; and so on.
# fmt: off
FULL_SIZE = {
    "SD 1.5": Recipe(supported.SD15, unet(768, num_heads=8, num_head_channels=-1), (4, 64, 64), (77, 768)),
    "SDXL": Recipe(
        supported.SDXL, unet(2048, **SDXL), (4, 128, 128), (77, 2048), options=lambda: {"pooled_output": torch.zeros(1, 1280)}
    ),
    "SD 3": Recipe(
        supported.SD3,
        {
            "in_channels": 16, "patch_size": 2, "depth": 24, "adm_in_channels": 2048, "num_patches": 36864, "pos_embed_max_size": 192,
            "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}},
            "pos_embed_scaling_factor": None, "qk_norm": None,
        },
        (16, 128, 128), (154, 4096), options=lambda: {"pooled_output": torch.zeros(1, 2048)},
    ),
    "Flux": Recipe(
        supported.Flux,
        {
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
            "mlp_ratio": 4.0, "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000,
            "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
        },
        (16, 128, 128), (512, 4096), options=lambda: {"pooled_output": torch.zeros(1, 768)},
    ),
    "Wan 1.3B": Recipe(
        supported.WAN21_T2V, {**WAN, "dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}, (16, 21, 60, 104), (512, 4096)
    ),
    "Wan 14B": Recipe(
        supported.WAN21_T2V, {**WAN, "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}, (16, 21, 60, 104), (512, 4096)
    ),
    "Wan 14B, short": Recipe(
        supported.WAN21_T2V, {**WAN, "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}, (16, 6, 60, 104), (512, 4096)
    ),
    "LTX Video": Recipe(
        supported.LTXV,
        {
            "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 2048, "attention_head_dim": 64, "num_attention_heads": 32,
            "caption_channels": 4096, "num_layers": 28,
        },
        (128, 13, 16, 24), (128, 4096), options=lambda: {"attention_mask": torch.ones(1, 128, dtype=torch.long)},
    ),
}
# fmt: on
