"""Trains the playground's UNet and text encoder together, on latents encoded beforehand."""

import random
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ...host.gradients.copying import copied_on_change
from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from .. import text
from ..attention_loss import Looks
from ..latents import Latents, encode
from ..noise_loss import Noising, NoisyBatch, noise_loss
from ..text import tokens_and_groups
from ..world import world
from ..world.captions import caption
from . import models

SCENES = 24_000  # different ones
BATCH = 64


class Diffusion(nn.Module):
    """UNet and text encoder, with a record of where the cross-attention looks."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = models.build_model().model.diffusion_model
        self.words = text.build_words(models.LANGUAGE)
        queries = [name for name, _ in self.unet.named_modules() if name.endswith("attn2.to_q")]
        self.looks = Looks(self.unet, [(name, name.removesuffix("q") + "k") for name in queries])

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        context = self.words(tokens)[0]
        return self.unet(noisy, t, context=context)


class Batches:
    """The batch of each step, from encoded scenes."""

    def __init__(self, data: Latents) -> None:
        self.data = data
        self.noising = Noising()

    def __call__(self, step: int, generator: torch.Generator) -> NoisyBatch:
        rng = random.Random(generator.initial_seed())
        chosen = rng.sample(range(len(self.data.scenes)), BATCH)
        said = (tokens_and_groups(caption(self.data.scenes, i, rng), models.LANGUAGE, rng) for i in chosen)
        tokens, groups = (torch.stack(column) for column in zip(*said, strict=True))
        return self.noising(self.data.latent[chosen].float(), tokens, groups, self.data.masks[chosen].float(), generator)


def loss(network: Diffusion, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
    return noise_loss(network(batch.noisy, batch.t, batch.tokens).float(), batch, network.looks)


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
    return run.go(Batches(data), partial(loss, network), watch, copied_on_change)
