"""A single prediction of a MODEL, as a sampler asks for it."""

from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor


def prediction(patcher: Any, positive: list, negative: list, x: Tensor, sigma: float) -> Tensor:
    """What guidance by 1 makes of latents x."""
    found = []

    class Once(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *_mask_and_bar):
            found.append(model_wrap(x, x.new_full((len(x),), sigma), **extra_args))
            return x

    with torch.inference_mode():
        empty = comfy.sample.fix_empty_latent_channels(patcher, torch.zeros_like(x))
        sigmas = torch.tensor([sigma, 0.0])
        comfy.sample.sample_custom(patcher, torch.zeros_like(x), 1.0, Once(), sigmas, positive, negative, empty, disable_pbar=True)
    return found[0]
