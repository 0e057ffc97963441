"""Trains the temporal layers of the playground's video U-Net on clips. The image playground's layers stay.

New layers begin by adding nothing, so training starts from frames that are right one by one (AnimateDiff,
https://arxiv.org/abs/2307.04725). How things move is decided where there is most noise, so there training counts most.
"""

import random
from functools import partial
from pathlib import Path

import comfy.sd
import torch
from torch import Tensor, nn

from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..attention_loss import Looks
from ..clip_latents import CLIPS, ClipLatents, encode_clips
from ..image import models as image_models
from ..noise_loss import OF_CLIPS, Noising, NoisyBatch, noise_loss
from ..training_attention import OPTIONS
from ..video_words.models import LANGUAGE, load_words
from ..weights import load_compact
from ..world.motion import FRAMES
from . import models

CLIPS_A_STEP = 5


class VideoDiffusion(nn.Module):
    """U-Net and text encoder; only temporal layers are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = models.build_model().model.diffusion_model
        self.words = load_words()
        queries = [n for n, _ in self.unet.named_modules() if n.endswith("attn2.to_q") and models.is_temporal(n)]
        self.looks = Looks(self.unet, [(name, name.removesuffix("q") + "k") for name in queries], temporal=True)

    def begin(self) -> None:
        """Starts from the image playground."""
        temporal_out = ("out_layers.3.weight", "to_out.0.weight", "ff.net.2.weight", "ff_in.net.2.weight", "time_pos_embed.2.weight")
        initialise(self.unet, zero=temporal_out)
        image = load_compact(image_models.WEIGHTS)
        self.unet.load_state_dict({k.removeprefix("unet."): w for k, w in image.items() if k.startswith("unet.")}, strict=False)
        for name, weight in self.unet.named_parameters():
            weight.requires_grad_(models.is_temporal(name))

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The noise (B, F, 4, H, W) in noisy latents of that form at times t (B)."""
        frames = noisy.shape[1]
        with torch.no_grad():
            context = self.words(tokens)[0].repeat_interleave(frames, 0)
        options = {"transformer_options": dict(OPTIONS), "num_video_frames": frames}
        predicted = self.unet(noisy.flatten(0, 1), t.repeat_interleave(frames), context=context, **options)
        return predicted.unflatten(0, (-1, frames))


class Batches:
    """The batch of each step, from encoded clips."""

    def __init__(self, data: ClipLatents) -> None:
        self.data = data
        self.noising = Noising(draws=2)

    def __call__(self, step: int, generator: torch.Generator) -> NoisyBatch:
        part = self.data.excerpts(CLIPS_A_STEP, FRAMES, LANGUAGE, random.Random(generator.initial_seed()))
        return self.noising(part.latent, part.tokens, part.groups, part.masks, generator)


def loss(network: VideoDiffusion, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
    return noise_loss(network(batch.noisy, batch.t, batch.tokens).float(), batch, network.looks, OF_CLIPS)


def train(vae: comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of what is new."""
    torch.manual_seed(seed)
    data = encode_clips(vae, min(CLIPS, CLIPS_A_STEP * steps), seed + 2, folder.parent / "clips.pt")
    network = VideoDiffusion()
    network.begin()
    run = Run(network, Settings(steps, learning_rate=1e-3, decay=0.8, seed=seed, bfloat16=True), folder)
    average = run.go(Batches(data), partial(loss, network), watch, torch.autograd.graph.allow_mutation_on_saved_tensors)
    return {name.removeprefix("unet."): weight for name, weight in average.items() if models.is_temporal(name)}
