"""The playground as the host's own MODEL, CLIP and VAE objects."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch
from torch import Tensor

from .. import text
from ..weights import load_compact
from ..world.captions import VOCABULARY
from . import autoencoder

LANGUAGE = text.Language(VOCABULARY, max_tokens=24)
WEIGHTS = Path(__file__).parent / "image.safetensors"
UNET = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2],
    "transformer_depth": [1, 1, 1],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": text.WIDTH,
    "num_heads": -1,
    "num_head_channels": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}


class PlaygroundLatent(comfy.latent_formats.LatentFormat):
    """Four standardised channels, so a scale of 1.

    The factors make the host's fast previews: a least-squares fit of renders, shrunk by 8, to their latents (R2 = .85).
    """

    scale_factor = 1.0
    latent_rgb_factors: ClassVar[list] = [
        [-0.102, -0.312, -0.379],
        [0.033, -0.145, 0.06],
        [0.219, -0.084, -0.038],
        [-0.388, -0.128, -0.004],
    ]
    latent_rgb_factors_bias: ClassVar[list] = [-0.079, -0.053, -0.126]


class Playground(comfy.supported_models_base.BASE):
    """A Stable-Diffusion-like model: noise prediction on the SD schedule, cross-attention to the words."""

    freesteer_playground = True
    unet_config: ClassVar[dict] = {}
    unet_extra_config: ClassVar[dict] = {}
    latent_format = PlaygroundLatent
    sampling_settings: ClassVar[dict] = {}
    memory_usage_factor = 1.0
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.float32]


def build_model(weights: dict[str, Tensor] | None = None, unet: Mapping[str, Any] = UNET) -> comfy.model_patcher.ModelPatcher:
    """A MODEL; `weights` are those of the diffusion model alone."""
    eps = partial(comfy.model_base.BaseModel, model_type=comfy.model_base.ModelType.EPS)
    return build_patcher(Playground(dict(unet)), eps, weights)


def build_patcher(
    config: comfy.supported_models_base.BASE, build: Callable[..., comfy.model_base.BaseModel], weights: dict[str, Tensor] | None
) -> comfy.model_patcher.ModelPatcher:
    """A MODEL in float32, on the host's device."""
    config.set_inference_dtype(torch.float32, None)
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    model = build(config, device=offload)
    if weights is not None:
        model.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)


def build_clip(weights: dict[str, Tensor]) -> comfy.sd.CLIP:
    """A CLIP; `weights` are those of the text transformer alone."""
    return text.build_clip(LANGUAGE, weights)


def build_vae(weights: dict[str, Tensor]) -> comfy.sd.VAE:
    """A VAE; `weights` are those of the autoencoder."""
    return comfy.sd.VAE(sd=weights, config={"params": autoencoder.CONFIG}, dtype=torch.float32)


def load(path: Path = WEIGHTS) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, CLIP and VAE from one file, in which each network has its own prefix."""
    weights = load_compact(path)
    unet, words, vae = ({k[len(p) :]: w for k, w in weights.items() if k.startswith(p)} for p in ("unet.", "words.", "vae."))
    return build_model(unet), build_clip(words), build_vae(vae)
