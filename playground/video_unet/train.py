"""Trains the temporal layers of the playground's video U-Net on clips, and its first convolution. The image playground's layers stay.

New layers begin by adding nothing, so training starts from frames that are right one by one (AnimateDiff,
https://arxiv.org/abs/2307.04725). How things move is decided where there is most noise, so there training counts most, and there the
video transformer teaches. It begins with every third frame of clips, in which all of a motion is seen, and ends with whole clips.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import comfy.sd
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import VideoResBlock
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from ...training.compiled import compile_each
from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..attention_loss import Looks
from ..clip_latents import CLIPS, ClipLatents, encode_clips
from ..image import models as image_models
from ..noise_loss import OF_CLIPS, Noising, NoisyBatch, noise_loss
from ..places import CHANNELS
from ..training_attention import OPTIONS
from ..video_words.models import load_words
from ..weights import load_compact
from ..world.motion import FRAMES
from . import models
from .teacher import ClipTeacher


class Stage(NamedTuple):
    """until: this share of the steps; frames of a clip, every `stride`th of them; clips of a step; how much it counts where the attention
    looks."""

    until: float
    frames: int
    stride: int
    clips: int
    look: float


LARGER = 4  # times as many clips a step on a GPU
STAGES = (Stage(0.6, 5, 3, 8, 2.0), Stage(1.0, FRAMES, 1, 3, 0.05))


class VideoDiffusion(nn.Module):
    """U-Net and text encoder; only temporal layers are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = models.build_model().model.diffusion_model
        self.words = load_words()
        queries = [n for n, _ in self.unet.named_modules() if n.endswith("attn2.to_q") and models.is_temporal(n)]
        self.looks = Looks(self.unet, [(name, name.removesuffix("q") + "k") for name in queries], temporal=True)
        self.stride = 1
        for name, module in self.unet.named_modules():
            if name.endswith("time_pos_embed"):
                module.register_forward_pre_hook(self._at_their_times)
            if name.endswith("attn2") and models.is_temporal(name):
                module.register_forward_pre_hook(self._all_places_at_once, with_kwargs=True)
                module.register_forward_hook(self._place_by_place)

    def _at_their_times(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        """The host numbers frames from 0 on, whatever has been left out between them."""
        (numbers,) = inputs
        frames = torch.arange(self.frames, device=numbers.device) * self.stride
        return timestep_embedding(frames.repeat(len(numbers) // self.frames), numbers.shape[-1]).to(numbers)

    def _all_places_at_once(self, module: nn.Module, inputs: tuple[Tensor], options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The host gives each place of a clip the prompt anew. What a place reads there has nothing to do with other places, so one prompt
        will do."""
        (x,), context = inputs, options["context"]
        x = x.unflatten(0, (self.clips, -1)).flatten(1, 2)
        return (x,), {**options, "context": context[:: len(context) // self.clips]}

    def _place_by_place(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output.unflatten(1, (-1, self.frames)).flatten(0, 1)

    def begin(self) -> None:
        """Starts from the image playground."""
        temporal_out = ("out_layers.3.weight", "to_out.0.weight", "ff.net.2.weight", "ff_in.net.2.weight", "time_pos_embed.2.weight")
        initialise(self.unet, zero=temporal_out)
        image = load_compact(image_models.WEIGHTS)
        begun = {k.removeprefix("unet."): w for k, w in image.items() if k.startswith("unet.")}
        begun[models.FIRST] = F.pad(begun[models.FIRST], (0, 0, 0, 0, 0, CHANNELS))
        self.unet.load_state_dict(begun, strict=False)
        for name, weight in self.unet.named_parameters():
            weight.requires_grad_(models.is_own(name))

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor, stride: int = 1) -> Tensor:
        """The noise (B, F, 4, H, W) in noisy latents of that form at times t (B), of every `stride`th frame of clips."""
        self.clips, self.frames, self.stride = *noisy.shape[:2], stride
        with torch.no_grad():
            context = self.words(tokens)[0].repeat_interleave(self.frames, 0)
        options = {"transformer_options": dict(OPTIONS), "num_video_frames": self.frames}
        in_batch = noisy.flatten(0, 1)
        placed = torch.cat([in_batch, models.told(self.frames, in_batch)], 1)
        return self.unet(placed, t.repeat_interleave(self.frames), context=context, **options).unflatten(0, (-1, self.frames))


@dataclass
class Batch:
    clips: NoisyBatch
    stage: Stage


class Batches:
    """The batch of each step, from encoded clips."""

    def __init__(self, data: ClipLatents, steps: int) -> None:
        self.data, self.steps, self.larger = data, steps, LARGER if data.latent.is_cuda else 1
        self.noising = Noising(draws=2, blind=0.3)

    def __call__(self, step: int, generator: torch.Generator) -> Batch:
        stage = next(stage for stage in STAGES if step < stage.until * self.steps)
        part = self.data.excerpts(self.larger * stage.clips, stage.frames, generator, stage.stride)
        return Batch(self.noising(part.latent, part.tokens, part.groups, part.masks, generator), stage)


def loss(network: VideoDiffusion, teacher: ClipTeacher, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    stage = batch.stage
    clips = teacher.taught(batch.clips, stage.stride)
    predicted = network(clips.noisy, clips.t, clips.tokens, stage.stride).float()
    return noise_loss(predicted, clips, network.looks, OF_CLIPS._replace(attention=stage.look))


def train(vae: comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch, device: torch.device, compiled: bool) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of what is new."""
    torch.manual_seed(seed)
    data = encode_clips(vae, min(CLIPS, 13 * steps), seed + 2, folder.parent / "clips.pt", device)
    network = VideoDiffusion()
    network.begin()
    run = Run(network.to(device), Settings(steps, learning_rate=2e-3, decay=0.6, seed=seed, muon=True, bfloat16=True), folder)
    if compiled:
        compile_each(m for m in network.unet.modules() if isinstance(m, (VideoResBlock, BasicTransformerBlock)))
    average = run.go(Batches(data, steps), partial(loss, network, ClipTeacher.load(device)), watch)
    own = {name.removeprefix("unet."): weight for name, weight in average.items() if name.startswith("unet.")}
    return {name: weight for name, weight in own.items() if models.is_own(name)}
