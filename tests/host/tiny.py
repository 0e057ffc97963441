"""A tiny member of every model family, from the host's own classes with random weights: built in a second, sampled in less.

Each has the real topology with few channels, the real width of its text, and the host's BaseModel, latent format and model
type, so `comfy.sample.sample` runs on it end to end.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from comfy.ops import mixed_precision_ops
from comfy.patcher_extension import WrappersMP
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from freesteer.benchmarks.host import random_models
from freesteer.benchmarks.host.random_models import Conditioning, Recipe, conditioning
from freesteer.host.gradients import passes
from freesteer.host.gradients.attention import with_derivative
from freesteer.host.models import taps
from torch import Tensor


def _unet(context: int, **changes: Any) -> dict[str, Any]:
    return random_models.unet(context, **{"model_channels": 32, **changes})


HEADS = {"num_heads": 2, "num_head_channels": -1}
SDXL = {
    "adm_in_channels": 2816, "num_classes": "sequential", "use_linear_in_transformer": True, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "transformer_depth_middle": 2,
}  # fmt: skip
SVD = {
    "in_channels": 8, "adm_in_channels": 768, "num_classes": "sequential", "use_linear_in_transformer": True,
    "use_temporal_attention": True, "use_temporal_resblock": True, "video_kernel_size": [3, 1, 1], "extra_ff_mix_layer": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "disable_temporal_crossattention": False,
    "use_spatial_context": True,
    }  # fmt: skip
PLAYGROUND = {
    "num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 2], "transformer_depth": [0, 1, 1], "transformer_depth_output": [0, 0, 1, 1, 1, 1],
}  # fmt: skip


class Playground(supported.SD15):
    """As the real one names itself."""

    freesteer_playground = True


# fmt: off
RECIPES = {
    "SD 1.5": Recipe(supported.SD15, _unet(768), (4, 24, 16), (77, 768), HEADS),
    "SD 2": Recipe(supported.SD20, _unet(1024, use_linear_in_transformer=True), (4, 24, 16), (77, 1024), HEADS),
    "SDXL": Recipe(supported.SDXL, _unet(2048, **SDXL), (4, 24, 16), (77, 2048), HEADS, lambda: {"pooled_output": torch.zeros(1, 1280)}),
    "SVD": Recipe(supported.SVD_img2vid, _unet(1024, **SVD), (4, 24, 16), (1, 1024), HEADS),
    "SD 3": Recipe(
        supported.SD3,
        {
            "in_channels": 16, "patch_size": 2, "depth": 4, "adm_in_channels": 24, "num_patches": 1024, "pos_embed_max_size": 32,
            "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 256}},
            "pos_embed_scaling_factor": None, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1],
        },
        (16, 12, 8), (9, 48), options=lambda: {"pooled_output": torch.zeros(1, 24)},
    ),
    "Flux": Recipe(
        supported.Flux,
        {
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 12, "hidden_size": 64,
            "mlp_ratio": 2.0, "num_heads": 2, "depth": 4, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
            "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
        },
        (16, 12, 8), (9, 12), options=lambda: {"pooled_output": torch.zeros(1, 8)},
    ),
    "Qwen-Image": Recipe(
        supported.QwenImage,
        {
            "image_model": "qwen_image", "in_channels": 64, "num_layers": 4, "attention_head_dim": 32, "num_attention_heads": 2,
            "joint_attention_dim": 24, "axes_dims_rope": (8, 12, 12),
        },
        (16, 1, 12, 8), (9, 24),
    ),
    "Lumina 2 and Z-Image": Recipe(
        supported.ZImage,
        {
            "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 24, "n_layers": 4, "n_heads": 4,
            "n_kv_heads": 2, "axes_dims": [16, 24, 24], "axes_lens": [512, 512, 512], "rope_theta": 256.0, "qk_norm": True,
            "ffn_dim_multiplier": 2.0, "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
        },
        (16, 12, 8), (9, 24),
    ),
    "Hunyuan Video": Recipe(
        supported.HunyuanVideo,
        {
            "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": 8,
            "context_in_dim": 24, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 2, "depth": 4, "depth_single_blocks": 2,
            "axes_dim": [8, 12, 12], "theta": 256, "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
            "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
        },
        (16, 2, 12, 8), (9, 24), options=lambda: {"pooled_output": torch.zeros(1, 8)},
    ),
    "Wan": Recipe(
        supported.WAN21_T2V,
        {
            "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 12, "in_dim": 16, "dim": 48, "ffn_dim": 64,
            "freq_dim": 32, "text_dim": 24, "out_dim": 16, "num_heads": 2, "num_layers": 4,
        },
        (16, 2, 12, 8), (12, 24),
    ),
    "LTX Video": Recipe(
        supported.LTXV,
        {
            "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
            "caption_channels": 24, "num_layers": 4,
        },
        (128, 2, 6, 4), (9, 24), options=lambda: {"attention_mask": torch.ones(1, 9, dtype=torch.long)},
    ),
    "FreeSteer playground": Recipe(Playground, _unet(128, **PLAYGROUND), (4, 24, 16), (16, 128), HEADS),
}
# fmt: on


@dataclass(frozen=True)
class Tiny:
    """A model to sample from. latent: (rows, ...), zeros, which the host takes as empty."""

    model: ModelPatcher
    latent: Tensor
    positive: Conditioning
    negative: Conditioning

    def sample(self, model: ModelPatcher | None = None, steps: int = 2, cfg: float = 4.0, sampler: str = "euler") -> Tensor:
        """As the executor runs it: in inference mode."""
        with torch.inference_mode():
            latent = comfy.sample.fix_empty_latent_channels(model or self.model, self.latent)
            noise = comfy.sample.prepare_noise(latent, 1)
            return comfy.sample.sample(
                model or self.model, noise, steps, cfg, sampler, "normal", self.positive, self.negative, latent, disable_pbar=True, seed=1
            )


@functools.lru_cache(maxsize=64)
def build(family: str, inference: bool = False, dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, rows: int = 1) -> Tiny:
    """A tiny model. inference: its weights are inference tensors, as the host's loader leaves them."""
    return from_recipe(RECIPES[family], inference, dtype, cast, rows)


def from_recipe(
    recipe: Recipe, inference: bool = False, dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, rows: int = 1
) -> Tiny:
    patcher = assemble(recipe, inference, dtype, cast)
    return Tiny(patcher, torch.zeros(rows, *recipe.latent), conditioning(recipe, 1), conditioning(recipe, 2))


def assemble(
    recipe: Recipe, inference: bool, dtype: torch.dtype, cast: torch.dtype | None, operations: Any = None, load: Any = None
) -> ModelPatcher:
    """operations: in place of the host's choice. load: fills the model in place of `fill`."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode(inference):
        torch.manual_seed(0)
        return random_models.assemble(recipe, dtype, cast, operations=operations, load=load or fill)


def quantised(family: str, form: str) -> Tiny:
    """As from a checkpoint with scaled weights, on hardware that multiplies them natively (on a CPU the host emulates it)."""
    plain = build(family)
    linear = {
        name
        for name, module in plain.model.model.diffusion_model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.in_features % 32 == 0 and module.out_features % 16 == 0
    }
    layout = QUANT_ALGOS[form]["comfy_tensor_layout"]
    state: dict[str, Tensor] = {}
    for key, value in plain.model.model.diffusion_model.state_dict().items():
        name, _, kind = key.rpartition(".")
        if kind == "weight" and name in linear:
            state.update(QuantizedTensor.from_float(value.clone(), layout).state_dict(key))
            state[f"{name}.comfy_quant"] = torch.tensor(list(json.dumps({"format": form}).encode()), dtype=torch.uint8)
        else:
            state[key] = value.clone()
    operations = mixed_precision_ops({}, torch.float32)
    patcher = assemble(
        RECIPES[family], True, torch.float32, torch.float32, operations, lambda module: module.load_state_dict(state, strict=False)
    )
    return replace(plain, model=patcher)


@dataclass(frozen=True)
class Call:
    """One evaluation of a model while it samples. rows: those of the conditional branch. run: of x, a ControlNet's output, and taps."""

    model: Any
    x: Tensor
    sigma: Tensor
    rows: list[int]
    run: Callable[..., Tensor]


def on_each_call(model: ModelPatcher, body: Callable[[Call], Tensor]) -> ModelPatcher:
    """A clone on which `body` stands for every evaluation, as a node would attach it, with plain inputs."""
    model = model.clone()

    def wrapper(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        t, concat, text, kwargs = passes.normal((t, c_concat, c_crossattn, kwargs))
        rows = taps.branch_rows(transformer_options, len(x), taps.CONDITIONAL)

        def run(x: Tensor, control: Any = control, taps: Any = None) -> Tensor:
            options = with_derivative(transformer_options) if torch.is_grad_enabled() else transformer_options
            options = options if taps is None else taps.through_attention(options)
            return executor(x, t, concat, text, passes.normal(control), options, **kwargs)

        return body(Call(executor.class_obj, x, t, rows, run))

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    return model


def fill(module: torch.nn.Module) -> None:
    """The host leaves weights uninitialised. Nothing stays zero, or what comes after it could not be told apart."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            values = torch.randn(parameter.shape) * 0.7 / parameter[0].numel() ** 0.5
        elif name.endswith("weight") or "norm" in name:
            values = 1 + 0.1 * torch.randn(parameter.shape)
        else:
            values = 0.1 * torch.randn(parameter.shape)
        parameter.data.copy_(values)
    for buffer in module.buffers():  # SD 3 has its positions in one
        buffer.copy_(torch.randn(buffer.shape))
