"""Trains the playground's video transformer with flow matching (https://arxiv.org/abs/2210.02747).

First on single frames, which the image playground teaches; then on every third frame of clips, in which all of a motion is seen, at half
their size; then at their size; then on whole clips: what can be learnt from few tokens is learnt from few. Single frames go on beside
them, and clips that stand still, which the image playground teaches as well, or shapes stay ragged. Tokens keep their places in the clip,
whatever is left out between them, and noise is made smaller along with what it lies on.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import comfy.sd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...host.gradients.passes import differentiable
from ...training.compiled import compile_each
from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from .. import text
from ..attention_loss import Looks
from ..clip_latents import CLIPS, ClipLatents, encode_clips
from ..noise_loss import OBJECT_WEIGHT
from ..places import places
from ..training_attention import OPTIONS
from ..video_words.models import load_words
from . import models
from .teacher import HIGHEST, Teacher


class Stage(NamedTuple):
    """until: this share of the steps; frames of a clip, every `stride`th of them; so many latent pixels on a side are made one; clips of a
    step; every `singles` steps is one of single frames, or of clips that are `still`; `look` is how much it counts where the attention
    looks; `shift` is that of the noise levels."""

    until: float
    frames: int
    stride: int
    pool: int
    clips: int
    singles: int
    look: float
    still: bool = False
    shift: float = models.SHIFT


CLEAR = 0.6  # of noise: below, a frame of a clip shows by itself what there is in it
LARGER = 4  # times as many clips a step on a GPU
SHAPES = 2.0  # shift of the noise levels where what things look like is to be learnt, and not how they move
# Attention that is told where to look learns how things move, but leaves shapes ragged as long as it counts much.
STAGES = (
    Stage(2 / 15, 1, 1, 1, 48, 1, 2.0), Stage(0.4, 5, 3, 2, 40, 8, 2.0), Stage(0.8, 5, 3, 1, 12, 2, 0.05), Stage(1.0, 13, 1, 1, 5, 2, 0.05),
)  # fmt: skip


class VideoTransformer(nn.Module):
    """Transformer and text encoder, of which the transformer is trained, with a record of where the cross-attention looks."""

    def __init__(self) -> None:
        super().__init__()
        self.dit = models.build_model().model.diffusion_model
        self.words = load_words()
        layers = [f"blocks.{i}.cross_attn" for i in range(models.WAN["num_layers"])]
        self.looks = Looks(self.dit, [(f"{layer}.norm_q", f"{layer}.norm_k") for layer in layers])

    def forward(self, noisy: Tensor, sigma: Tensor, tokens: Tensor, stride: int = 1, pool: int = 1) -> Tensor:
        """The velocity (B, 4, F, H, W) at noisy latents of that form, of every `stride`th frame of a clip, made smaller `pool` times."""
        with torch.no_grad():
            context = self.words(tokens)[0]
        middle = (pool - 1) / 2
        apart = {"scale_t": float(stride), "scale_y": float(pool), "scale_x": float(pool), "shift_y": middle, "shift_x": middle}
        options = {**OPTIONS, "rope_options": apart}
        placed = torch.cat([noisy, places(*noisy.shape[2:], device=noisy.device).expand(len(noisy), -1, -1, -1, -1)], 1)
        return self.dit(placed, 1000 * sigma, context, transformer_options=options)


@dataclass
class Batch:
    """Noisy latents (B, 4, F, 16, 16) at noise levels sigma (B), rising, the velocity there, the words (B, tokens), what they speak of,
    and masks (B, F, 4, 16, 16) of that, all made smaller as the stage says; the words of each frame as a picture (B, F, tokens)."""

    noisy: Tensor
    velocity: Tensor
    sigma: Tensor
    tokens: Tensor
    groups: Tensor
    masks: Tensor
    of_frames: Tensor
    stage: Stage


def stage_of(step: int, steps: int) -> Stage:
    stage = next(stage for stage in STAGES if step < stage.until * steps)
    if step % stage.singles:
        return stage
    frames_stand = stage.pool == 1 and stage.frames > 1 and step // stage.singles % 2
    return stage._replace(still=True, shift=SHAPES) if frames_stand else STAGES[0]._replace(look=stage.look, shift=SHAPES)


class Batches:
    """The batch of each step, from encoded clips."""

    def __init__(self, data: ClipLatents, steps: int) -> None:
        self.data, self.steps, self.larger = data, steps, LARGER if data.latent.is_cuda else 1

    def __call__(self, step: int, generator: torch.Generator) -> Batch:
        stage = stage_of(step, self.steps)
        clips = self.larger * stage.clips
        part = self.data.excerpts(clips, stage.frames, generator, stage.stride, stage.still)
        device = part.latent.device
        noise = torch.randn(part.latent.shape, generator=generator, device=device)
        latent, noise, masks = (_smaller(values, stage.pool) for values in (part.latent, noise, part.masks))
        latent, noise = latent.movedim(2, 1), noise.movedim(2, 1)
        even = (torch.arange(clips, device=device) + torch.rand(clips, generator=generator, device=device)) / clips
        sigma = stage.shift * even / (1 + (stage.shift - 1) * even)
        at = sigma.view(-1, 1, 1, 1, 1)
        return Batch((1 - at) * latent + at * noise, noise - latent, sigma, part.tokens, part.groups, masks, part.of_frames, stage)


def _smaller(values: Tensor, pool: int) -> Tensor:
    """(B, F, C, H, W), by means."""
    return F.avg_pool2d(values.flatten(0, 1), pool).unflatten(0, values.shape[:2])


def taught(teacher: Teacher, batch: Batch) -> Tensor:
    """The velocities with those that the image playground expects in place of the true ones, in the rows of little noise. Single frames,
    and the mean of a clip that stands still, which has the less noise the more frames there are, as far as it knows noise; frames of other
    clips as long as each shows by itself what there is in it."""
    frames = batch.noisy.shape[2]
    alike = frames if batch.stage.still else 1
    known = batch.stage.still or frames == 1
    most = HIGHEST / (1 - HIGHEST) * alike**0.5 if known else CLEAR / (1 - CLEAR)  # noise by signal
    highest = most / (1 + most)
    shift = batch.stage.shift
    rows = int(len(batch.sigma) * highest / (shift - (shift - 1) * highest))  # so many are surely below it
    sigma = batch.sigma[:rows, None]
    at = sigma[..., None, None, None]
    noisy = batch.noisy[:rows].transpose(1, 2)
    seen = (noisy.mean(1, keepdim=True) if alike > 1 else noisy) / (1 - at)
    ratio = (sigma / (1 - sigma) / alike**0.5).expand(seen.shape[:2])
    clean = teacher.clean(seen.flatten(0, 1), ratio.flatten(), batch.of_frames[:rows, : seen.shape[1]].flatten(0, 1))
    expected = (noisy - clean.unflatten(0, seen.shape[:2])) / at
    return torch.cat([expected.transpose(1, 2), batch.velocity[rows:]])


def velocity_loss(network: VideoTransformer, teacher: Teacher, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The error of the velocity, weighted by place, and the loss of where the attention looks."""
    velocity = taught(teacher, batch) if batch.stage.pool == 1 else batch.velocity
    predicted = network(batch.noisy, batch.sigma, batch.tokens, batch.stage.stride, batch.stage.pool).float()
    importance = 1 + (OBJECT_WEIGHT - 1) * (1 - batch.masks[:, None, :, 0])
    error = (importance * (predicted - velocity).square()).mean() / importance.mean()
    said = batch.tokens[:, 1] != text.END
    attention = network.looks.loss(batch.groups, batch.masks, said.float())
    return error + batch.stage.look * attention, {"velocity": error, "attention": attention}


def train(vae: comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch, device: torch.device, compiled: bool) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of the transformer."""
    torch.manual_seed(seed)
    data = encode_clips(vae, min(CLIPS, 96 * steps), seed + 2, folder.parent / "clips.pt", device)
    network = VideoTransformer()
    initialise(network.dit, zero=("cross_attn.o.weight", "time_projection.1.weight", "head.head.weight"))
    run = Run(network.to(device), Settings(steps, learning_rate=3e-3, decay=0.4, seed=seed, muon=True, bfloat16=True), folder)
    if compiled:
        compile_each(network.dit.blocks)
    with differentiable(network.dit):
        average = run.go(Batches(data, steps), partial(velocity_loss, network, Teacher().to(device)), watch)
    return {name.removeprefix("dit."): weight for name, weight in average.items() if name.startswith("dit.")}
