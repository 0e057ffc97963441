"""Trains the playground's UNet and text encoder together, on latents encoded beforehand.

Beside the usual noise loss (min-SNR weighted, https://arxiv.org/abs/2303.09556), a small term asks the cross-attention to
look at the words of the thing that a pixel shows. Without it a model of this size takes days to learn which colour goes
with which shape.
"""

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comfy.ops
import torch
from comfy.model_sampling import ModelSamplingDiscrete
from torch import Tensor, nn

from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from .. import text
from ..attention_loss import Looks
from ..latents import Latents, encode
from ..text import tokens_and_groups
from ..world import world
from ..world.captions import caption
from . import models

SCENES = 24_000  # different ones
BATCH = 64
ATTENTION_WEIGHT = 0.02
MIN_SNR = 5.0
OBJECT_WEIGHT = 2.0  # pixels of objects count so much more than the ground, which most of a picture is


class Diffusion(nn.Module):
    """UNet and text encoder, with a record of where the cross-attention looks."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = models.build_model().model.diffusion_model
        self.words = text.TextModel(models.LANGUAGE.config, torch.float32, "cpu", comfy.ops.disable_weight_init)
        queries = [name for name, _ in self.unet.named_modules() if name.endswith("attn2.to_q")]
        self.looks = Looks(self.unet, [(name, name.removesuffix("q") + "k") for name in queries])

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        context = self.words(tokens)[0]
        return self.unet(noisy, t, context=context)


@dataclass
class Batch:
    """Noisy latents (B, 4, 16, 16) at times t (B), with the noise in them, the words (B, tokens) and what the words speak of."""

    noisy: Tensor
    noise: Tensor
    t: Tensor
    sigma: Tensor
    tokens: Tensor
    groups: Tensor
    masks: Tensor


class Batches:
    """The batch of each step, from encoded scenes."""

    def __init__(self, data: Latents) -> None:
        self.data = data
        self.sigmas: Any = ModelSamplingDiscrete().sigmas

    def __call__(self, step: int, generator: torch.Generator) -> Batch:
        rng = random.Random(generator.initial_seed())
        chosen = rng.sample(range(len(self.data.scenes)), BATCH)
        said = (tokens_and_groups(caption(self.data.scenes, i, rng), models.LANGUAGE, rng) for i in chosen)
        tokens, groups = (torch.stack(column) for column in zip(*said, strict=True))
        latent, masks = self.data.latent[chosen].float(), self.data.masks[chosen].float()
        t = torch.randint(1000, (BATCH,), generator=generator)
        noise = torch.randn(latent.shape, generator=generator)
        sigma = self.sigmas[t]
        at = sigma[:, None, None, None]
        return Batch((latent + at * noise) / (1 + at**2).sqrt(), noise, t.float(), sigma, tokens, groups, masks)


def denoising_loss(network: Diffusion, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The noise loss, weighted by time and place, and the loss of where the attention looks."""
    predicted = network(batch.noisy, batch.t, batch.tokens).float()
    snr = 1 / batch.sigma**2
    importance = 1 + (OBJECT_WEIGHT - 1) * (1 - batch.masks[:, :1])
    error = (importance * (predicted - batch.noise).square()).mean((1, 2, 3)) / importance.mean((1, 2, 3))
    denoising = (error * (MIN_SNR / snr).clamp(max=1)).mean()
    said = batch.tokens[:, 1] != text.END
    attention = network.looks.loss(batch.groups, batch.masks[:, None], (snr / (1 + snr)) * said)
    return denoising + ATTENTION_WEIGHT * attention, {"noise": error.mean(), "attention": attention}


def train(vae: models.comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of both networks (prefixes `unet.` and `words.`)."""
    torch.manual_seed(seed)
    scenes = world.sample_scenes(min(SCENES, steps * BATCH), torch.Generator().manual_seed(seed + 1))
    data = encode(vae, scenes, folder / "latents.pt")
    network = Diffusion()
    initialise(network, zero=("out_layers.3.weight", "proj_out.weight", "unet.out.2.weight"))
    nn.init.normal_(network.words.text_model.embeddings.token_embedding.weight, std=0.5)
    nn.init.normal_(network.words.text_model.embeddings.position_embedding.weight, std=0.1)
    run = Run(network, Settings(steps, learning_rate=1.5e-3, seed=seed, bfloat16=True), folder)
    # the host's text layers add in place to what the backward pass needs
    return run.go(Batches(data), partial(denoising_loss, network), watch, torch.autograd.graph.allow_mutation_on_saved_tensors)
