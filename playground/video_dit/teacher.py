"""The image playground as a teacher of single frames.

What it expects of a noisy frame is the mean of all frames that it may be; a frame that was drawn is one of them. So the transformer
learns from the mean as from very many drawn frames (knowledge distillation, https://arxiv.org/abs/1503.02531).
"""

import torch
from comfy.model_sampling import ModelSamplingDiscrete
from torch import Tensor, nn

from .. import text
from ..image import models as image_models
from ..weights import load_compact

HIGHEST = 0.93  # of noise in noise and signal: above, the schedule of the image playground has nothing


class Teacher(nn.Module):
    """Knows the words of the image playground, which are the first of the video models' as well."""

    def __init__(self) -> None:
        super().__init__()
        weights = load_compact(image_models.WEIGHTS)
        unet, words = ({k[len(p) :]: w for k, w in weights.items() if k.startswith(p)} for p in ("unet.", "words."))
        self.unet = image_models.build_model(unet).model.diffusion_model
        self.words = text.build_words(image_models.LANGUAGE, words)
        self.sampling = ModelSamplingDiscrete()  # its tables are buffers, and go along to a GPU

    @torch.no_grad()
    def clean(self, noisy: Tensor, ratio: Tensor, tokens: Tensor) -> Tensor:
        """What is clean in frames (B, 4, h, w), clean + ratio * noise, as it expects it; ratio (B) up to HIGHEST / (1 - HIGHEST)."""
        own = tokens[:, : image_models.LANGUAGE.max_tokens]
        at = ratio[:, None, None, None]
        noise = self.unet(noisy / (1 + at**2).sqrt(), self.sampling.timestep(ratio).float(), context=self.words(own)[0]).float()
        return noisy - at * noise
