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
import torch.nn.functional as F
from comfy.model_sampling import ModelSamplingDiscrete
from einops import rearrange
from torch import Tensor, nn

from ...training.files import save_whole
from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..world import world
from ..world.captions import GROUND, Caption, caption
from . import models, text
from .train_vae import moments

SCENES = 24_000  # different ones
BATCH = 64
DROP_CAPTION = 0.1
DROP_WORD = 0.01
ATTENTION_WEIGHT = 0.02
MIN_SNR = 5.0
OBJECT_WEIGHT = 2.0  # pixels of objects count so much more than the ground, which most of a picture is


@dataclass
class Latents:
    """Encoded scenes: latents (N, 4, 16, 16), masks of background and objects (N, 4, 16, 16), and how to say them."""

    latent: Tensor
    masks: Tensor
    scenes: world.Scenes


@torch.no_grad()
def encode(vae: models.comfy.sd.VAE, count: int, seed: int, cache: Path) -> Latents:
    """Renders and encodes `count` scenes; the latents are kept in `cache`, and encoded anew only when it holds no such number."""
    scenes = world.sample_scenes(count, torch.Generator().manual_seed(seed))
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        if len(stored["latent"]) == count:
            return Latents(stored["latent"], stored["masks"], scenes)
    stage: Any = vae.first_stage_model
    latents, masks = [], []
    for start in range(0, count, 32):
        image, mask = world.render(scenes[start : start + 32])
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(moments(stage, image)[0].half())
        pooled = F.avg_pool2d(mask, 8)
        masks.append(torch.cat([1 - pooled.sum(1, keepdim=True), pooled], 1).half())
    stored = {"latent": torch.cat(latents), "masks": torch.cat(masks)}
    save_whole(stored, cache)
    return Latents(stored["latent"], stored["masks"], scenes)


def tokens_and_groups(words: Caption, ids: dict[str, int], rng: random.Random) -> tuple[Tensor, Tensor]:
    """Word ids and, per token, what it speaks of: 0 the ground, 1-3 an object, -1 neither. Unknown words get a chance."""
    known = [ids[w] if rng.random() > DROP_WORD else text.UNKNOWN for w in words.words]
    groups = [-1 if g is None else g for g in words.groups]
    if GROUND not in groups:
        groups = [*groups, *[GROUND] * (text.MAX_TOKENS - 1 - len(groups))]  # then the padding stands for it
    groups = [-1, *groups][: text.MAX_TOKENS]
    return text.pad(known), torch.tensor(groups + [-1] * (text.MAX_TOKENS - len(groups)))


class Diffusion(nn.Module):
    """UNet and text encoder; the cross-attentions' queries and keys are collected on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = models.build_model().model.diffusion_model
        self.words = text.PlaygroundTextModel(dict(text.CONFIG), torch.float32, "cpu", comfy.ops.disable_weight_init)
        self.collected: dict[str, Tensor] = {}
        for name, module in self.unet.named_modules():
            if name.endswith(("attn2.to_q", "attn2.to_k")):
                module.register_forward_hook(lambda _m, _i, out, name=name: self.collected.__setitem__(name, out))

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        context = self.words(tokens)[0]
        return self.unet(noisy, t, context=context)

    @torch.autocast("cpu", enabled=False)
    def attention_loss(self, groups: Tensor, masks: Tensor, weight: Tensor) -> Tensor:
        """Cross-entropy between what a latent pixel shows and where the first half of the heads look."""
        member = F.one_hot(groups + 1, 5)[..., 1:].float()  # (B, tokens, 4)
        losses = []
        for name in [n for n in self.collected if n.endswith("to_q")]:
            q, k = (rearrange(self.collected[n], "b n (h d) -> b h n d", d=32).float() for n in (name, name[:-1] + "k"))
            heads = max(1, q.shape[1] // 2)
            p = torch.softmax(q[:, :heads] @ k[:, :heads].transpose(-1, -2) / 32**0.5, -1)
            seen = torch.einsum("bhnt,btg->bhng", p, member).clamp(min=1e-3)
            side = int(q.shape[2] ** 0.5)
            target = rearrange(F.adaptive_avg_pool2d(masks, side), "b g y x -> b 1 (y x) g")
            losses.append(-(target * seen.log()).sum(-1).mean((1, 2)))
        return (torch.stack(losses).mean(0) * weight).mean()


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
        self.ids = {word: i for i, word in enumerate(text.WORDS)}
        self.sigmas: Any = ModelSamplingDiscrete().sigmas

    def captioned(self, scene: int, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Tokens and groups of one phrasing of a scene; now and then of nothing, for guidance."""
        if rng.random() < DROP_CAPTION:
            return text.pad([]), torch.full((text.MAX_TOKENS,), -1)
        return tokens_and_groups(caption(self.data.scenes, scene, rng), self.ids, rng)

    def __call__(self, step: int, generator: torch.Generator) -> Batch:
        rng = random.Random(generator.initial_seed())
        chosen = rng.sample(range(len(self.data.scenes)), BATCH)
        tokens, groups = (torch.stack(column) for column in zip(*(self.captioned(i, rng) for i in chosen), strict=True))
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
    attention = network.attention_loss(batch.groups, batch.masks, (snr / (1 + snr)) * said)
    return denoising + ATTENTION_WEIGHT * attention, {"noise": error.mean(), "attention": attention}


def train(vae: models.comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of both networks (prefixes `unet.` and `words.`)."""
    torch.manual_seed(seed)
    data = encode(vae, min(SCENES, steps * BATCH), seed + 1, folder / "latents.pt")
    network = Diffusion()
    initialise(network, zero=("out_layers.3.weight", "proj_out.weight", "unet.out.2.weight"))
    nn.init.normal_(network.words.text_model.embeddings.token_embedding.weight, std=0.5)
    nn.init.normal_(network.words.text_model.embeddings.position_embedding.weight, std=0.1)
    run = Run(network, Settings(steps, learning_rate=1.5e-3, seed=seed, bfloat16=True), folder)
    # the host's text layers add in place to what the backward pass needs
    return run.go(Batches(data), partial(denoising_loss, network), watch, torch.autograd.graph.allow_mutation_on_saved_tensors)
