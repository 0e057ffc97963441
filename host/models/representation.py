"""The published models of Learned representation-guided diffusion models for large-image generation (https://arxiv.org/abs/2312.07330)
as the host's objects.

They are latent diffusion models at a fourth of the picture's side, whose one or two words are what a self-supervised encoder sees in a
window: its vector, of length one, through a linear layer. Their autoencoder (VQ-f4) gives latents as they are, and takes the nearest of
its words for each pixel before it decodes. No code or weights of others are here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNET, AUTOENCODER, EMBEDDER = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
NEEDED = (UNET + "input_blocks.0.0.weight", AUTOENCODER + "quantize.embedding.weight", EMBEDDER + "patch_fc.weight")
UNUSED = ("first_stage_model.loss.", "model_ema.")
CERTAIN = -30.0  # logarithm of a variance that is none
TOGETHER = 1 << 14  # latent pixels for which the nearest word is sought at once

State = dict[str, Tensor]


class RepresentationError(Exception):
    """Why a file cannot be loaded, in words for whoever chose it."""


class Latent(comfy.latent_formats.LatentFormat):
    latent_channels = 3
    scale_factor = 1.0
    spacial_downscale_ratio = 4


class Representation(comfy.supported_models_base.BASE):
    unet_config: ClassVar[dict] = {}
    unet_extra_config: ClassVar[dict] = {"num_heads": 1, "num_head_channels": -1}
    sampling_settings: ClassVar[dict] = {"linear_start": 0.0015, "linear_end": 0.0195}
    latent_format = Latent
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]


class Embedder(nn.Module):
    """What the model reads (B, words, width) of vectors (B, 1, `seen`). With `region_fc` there is a second word, of a wider region, which
    the authors leave empty when they draw. The vector of noughts gives the empty prompt."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, self.seen = weights["patch_fc.weight"].shape
        self.patch_fc = nn.Linear(self.seen, width)
        self.region_fc = nn.Linear(weights["region_fc.weight"].shape[1], width) if "region_fc.weight" in weights else None
        self.load_state_dict({name: weight.float() for name, weight in weights.items()})
        self.requires_grad_(False)

    def forward(self, seen: Tensor) -> Tensor:
        """On the vectors' device."""
        words = [F.linear(F.normalize(seen.float(), dim=-1), self.patch_fc.weight.to(seen.device), self.patch_fc.bias.to(seen.device))]
        if self.region_fc is not None:
            words.append(self.region_fc.bias.to(words[0]).expand_as(words[0]))
        return torch.cat(words, 1)


class Quantise(nn.Module):
    """Of each latent pixel (B, C, H, W), the nearest of the autoencoder's words (N, C)."""

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(words, requires_grad=False)

    def forward(self, latent: Tensor) -> Tensor:
        pixels = latent.movedim(1, -1).flatten(0, -2).float()
        words = self.words.to(pixels)
        half = words.square().sum(1) / 2
        found = torch.cat([words[(half - some @ words.T).argmin(1)] for some in pixels.split(TOGETHER)])
        return found.view(*latent.movedim(1, -1).shape).movedim(-1, 1).to(latent)


def load(path: Path) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.VAE, Embedder]:
    """MODEL, VAE and embedder of a checkpoint in the published layout; RepresentationError if it is none."""
    return build(_read(path), path.name)


def build(state: State, name: str) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.VAE, Embedder]:
    lacking = [key for key in NEEDED if key not in state]
    if lacking:
        raise RepresentationError(
            f"{name} is no checkpoint of Large-Image-Diffusion: it has no {lacking[0]}. Take last.ckpt of one of the authors' four "
            "folders; other checkpoints go into Load Checkpoint."
        )
    try:
        return _model(_under(state, UNET)), _autoencoder(_under(state, AUTOENCODER)), Embedder(_under(state, EMBEDDER))
    except (RuntimeError, KeyError, IndexError) as error:
        raise RepresentationError(
            f"{name} is not whole, or of another layout ({str(error).splitlines()[0][:150]}): fetch it again."
        ) from error


def _read(path: Path) -> State:
    try:
        found: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
        return found
    except Exception as error:
        raise RepresentationError(
            f"{path.name} cannot be read as tensors alone ({type(error).__name__}): it is damaged, or holds code, which is not run. "
            "Have someone whom you trust save its state_dict as safetensors."
        ) from error


def _under(state: State, prefix: str) -> State:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix) and not key.startswith(UNUSED)}


def _model(weights: State) -> comfy.model_patcher.ModelPatcher:
    config = Representation(comfy.model_detection.detect_unet_config(weights, ""))
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(device=device, supported_dtypes=config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, offload)
    model.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)


def _autoencoder(weights: State) -> comfy.sd.VAE:
    """As one of the host's, whose encoder also gives a variance: none, here."""
    words, first = weights.pop("quantize.embedding.weight"), weights["encoder.conv_in.weight"]
    channels, width = words.shape[1], weights["decoder.conv_in.weight"].shape[1]
    stages = sorted({int(key.split(".")[2]) for key in weights if key.startswith("encoder.down.")})
    sizes = [weights[f"encoder.down.{stage}.block.0.conv2.weight"].shape[0] // len(first) for stage in stages]
    blocks = len({key.split(".")[4] for key in weights if key.startswith("encoder.down.0.block.")})
    shape = {
        "double_z": True, "z_channels": width, "resolution": 256, "in_channels": first.shape[1], "ch": len(first), "ch_mult": sizes,
        "out_ch": weights["decoder.conv_out.weight"].shape[0], "num_res_blocks": blocks, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name])])
    weights["quant_conv.weight"] = torch.block_diag(weights["quant_conv.weight"][..., 0, 0], torch.zeros(channels, width))[..., None, None]
    weights["quant_conv.bias"] = torch.cat([weights["quant_conv.bias"], torch.full((channels,), CERTAIN)])
    vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": shape, "embed_dim": channels}})
    network: Any = vae.first_stage_model
    missing = set(network.state_dict()) ^ set(weights)
    if missing:
        raise KeyError(f"autoencoder: {min(missing)}")
    network.post_quant_conv = nn.Sequential(Quantise(words), network.post_quant_conv)
    vae.latent_channels = channels
    vae.downscale_ratio = vae.upscale_ratio = 2 ** (len(stages) - 1)
    return vae


def style_model(embedder: Embedder) -> comfy.sd.StyleModel:
    return comfy.sd.StyleModel(embedder)
