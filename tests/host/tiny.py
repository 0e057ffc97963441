"""A tiny member of every model family, from the host's own classes with random weights: built in a second, sampled in less.

Each has the real topology with few channels, the real width of its text, and the host's BaseModel, latent format and model
type, so `comfy.sample.sample` runs on it end to end.
"""
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.sample
import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Recipe:
    """config: the host's class for the family. unet: the tiny configuration. extra: what replaces its unet_extra_config.
    latent: shape of one sample, not square. text: (tokens, width) of the conditioning. options: the rest of the conditioning.
    """

    config: type
    unet: dict[str, Any]
    latent: tuple[int, ...]
    text: tuple[int, int]
    extra: dict[str, Any] = field(default_factory=dict)
    options: Callable[[], dict[str, Any]] = dict


def _unet(context: int, **changes: Any) -> dict[str, Any]:
    sd15: dict[str, Any] = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1, "context_dim": context,
        "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None,
        "use_temporal_attention": False,
    }  # fmt: skip
    return {**sd15, **changes}


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
    }  # fmt: skip
PLAYGROUND = {
    "num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 2], "transformer_depth": [0, 1, 1], "transformer_depth_output": [0, 0, 1, 1, 1, 1],
}  # fmt: skip


class Playground(supported.SD15):
    """As the real one names itself."""

    freesteer_playground = True


RECIPES = {
    "SD 1.5": Recipe(supported.SD15, _unet(768), (4, 24, 16), (77, 768), HEADS),
    "SD 2": Recipe(supported.SD20, _unet(1024, use_linear_in_transformer=True), (4, 24, 16), (77, 1024), HEADS),
    "SDXL": Recipe(supported.SDXL, _unet(2048, **SDXL), (4, 24, 16), (77, 2048), HEADS, lambda: {"pooled_output": torch.zeros(1, 1280)}),
    "SVD": Recipe(supported.SVD_img2vid, _unet(1024, **SVD), (4, 24, 16), (1, 1024), HEADS),
    "FreeSteer playground": Recipe(Playground, _unet(128, **PLAYGROUND), (4, 24, 16), (16, 128), HEADS),
}


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
def build(
    family: str, inference: bool = False, dtype: torch.dtype = torch.float32, cast: torch.dtype | None = None, rows: int = 1
) -> Tiny:
    """A tiny model. inference: its weights are inference tensors, as the host's loader leaves them."""
    recipe = RECIPES[family]
    config = type(recipe.config.__name__, (recipe.config,), {"unet_extra_config": recipe.extra})(dict(recipe.unet))
    config.set_inference_dtype(dtype, cast)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(inference):
        torch.manual_seed(0)
        model = config.get_model({})
        fill(model.diffusion_model)
    patcher = ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    return Tiny(patcher, torch.zeros(rows, *recipe.latent), conditioning(recipe, 1), conditioning(recipe, 2))


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


def conditioning(recipe: Recipe, seed: int) -> Conditioning:
    text = torch.randn(1, *recipe.text, generator=torch.Generator().manual_seed(seed))
    return [[text, recipe.options()]]
