"""The land as the host's own objects: MODEL, VAE, CLIP_VISION and the STYLE_MODEL that hands on what it sees.

The model reads one token for what a window shows, after one of noughts, which alone is the empty prompt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ..image import models as image
from ..weights import load_compact
from .encoder import WIDTH, Encoder

HERE = Path(__file__).parent
VAE, ENCODER, UNET_FILE = (HERE / f"{name}.safetensors" for name in ("vae", "encoder", "unet"))
UNET = {**image.UNET, "context_dim": WIDTH}


class Vision:
    """The encoder behind the host's CLIP_VISION: it sees windows of any size, as they are."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.model = Encoder()
        self.model.load_state_dict(weights)
        self.model.eval()

    @torch.inference_mode()
    def encode_image(self, image: Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        """image: (B, H, W, 3) in 0..1. crop: there is none."""
        seen = self.model(image.movedim(-1, 1).float().cpu())
        output = comfy.clip_vision.Output()
        for name, value in (("image_embeds", seen), ("last_hidden_state", seen[:, None]), ("penultimate_hidden_states", seen[:, None])):
            output[name] = value
        return output


def build_model(weights: dict[str, Tensor] | None = None) -> comfy.model_patcher.ModelPatcher:
    return image.build_model(weights, UNET)


def empty() -> list[list[Any]]:
    """The empty prompt, as CONDITIONING."""
    return [[torch.zeros(1, 1, WIDTH), {}]]


def context(meaning: Tensor) -> Tensor:
    """What the model reads (B, 2, WIDTH) of vectors (B, WIDTH)."""
    return torch.stack([torch.zeros_like(meaning), meaning], 1)


def load() -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.VAE, Vision, comfy.sd.StyleModel]:
    model, vae = build_model(load_compact(UNET_FILE)), image.build_vae(load_compact(VAE))
    return model, vae, Vision(load_compact(ENCODER)), comfy.sd.StyleModel(nn.Identity())
