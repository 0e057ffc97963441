"""Batches of encoded clips, for the trainers of both video models."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfy.sd
import torch
from torch import Tensor

from .latents import Latents, encode
from .text import tokens_and_groups
from .video_words.models import LANGUAGE
from .world import captions, motion, motion_captions

CLIPS = 4000  # different ones, and as many again played backwards
SAYINGS = 8  # captions of each
OF_A_FRAME = 2  # of each frame as a picture


@dataclass
class Excerpts:
    """Latents (B, F, 4, 16, 16) of clips or parts of clips, masks (B, F, 4, 16, 16) of ground and objects, tokens (B, tokens), and
    what each of them speaks of (B, tokens), as in `text.tokens_and_groups`; tokens (B, F, tokens) of each frame as a picture."""

    latent: Tensor
    masks: Tensor
    tokens: Tensor
    groups: Tensor
    of_frames: Tensor


class ClipLatents:
    """Encoded clips and what is said of them, on a device."""

    def __init__(self, clips: motion.Clips, encoded: Latents, device: torch.device) -> None:
        self.count, self.frames = len(clips), clips.frames
        self.latent, self.masks = (v.to(device).unflatten(0, (self.count, self.frames)) for v in (encoded.latent, encoded.masks))
        ways = (clips, motion.reversed_names(clips))
        self.of_clips = torch.stack([said(partial(motion_captions.caption, way), self.count, SAYINGS) for way in ways], 1).to(device)
        self.of_frames = said(partial(captions.caption, clips.scenes), len(clips.scenes), OF_A_FRAME).to(device)
        self.of_stills = said(partial(motion_captions.caption, motion.standing_still(clips)), self.count, SAYINGS).to(device)

    def excerpts(self, count: int, frames: int, generator: torch.Generator, stride: int = 1, still: bool = False) -> Excerpts:
        """So many different clips, or of each so many frames, every `stride`th, half of them backwards; a single frame is said as a
        picture. In `still` ones the first frame stands, and they are said so. The generator is one of the device."""
        device = self.latent.device

        def drawn(options: int) -> Tensor:
            return torch.randint(options, (count,), generator=generator, device=device)

        clip = torch.randperm(self.count, generator=generator, device=device)[:count]
        start, backwards = drawn(self.frames - (frames - 1) * stride), drawn(2)
        steps = stride * torch.arange(frames, device=device)
        times = start[:, None] + torch.where(backwards[:, None] == 1, steps.flip(0), steps)
        times = torch.zeros_like(times) if still else times
        of_frames = self.of_frames[clip[:, None] * self.frames + times, drawn(OF_A_FRAME)[:, None]].long()
        of_clips = self.of_stills[clip, drawn(SAYINGS)] if still else self.of_clips[clip, backwards, drawn(SAYINGS)]
        words = of_clips.long() if frames > 1 else of_frames[:, 0]
        clip = clip[:, None]
        latent, masks = (values[clip, times].float() for values in (self.latent, self.masks))
        return Excerpts(latent, masks, words[:, 0], words[:, 1], of_frames[:, :, 0])


def said(caption: Callable[[int, random.Random], captions.Caption], count: int, sayings: int) -> Tensor:
    """Word ids, and what they speak of, (count, sayings, 2, tokens): captions of so many things, each with random numbers of its own."""
    draws = (random.Random(i) for i in range(count))
    rows = [tokens_and_groups(caption(i, rng), LANGUAGE, rng) for i, rng in enumerate(draws) for _ in range(sayings)]
    return torch.stack([torch.stack(row) for row in rows]).short().unflatten(0, (count, sayings))


def encode_clips(vae: comfy.sd.VAE, count: int, seed: int, cache: Path, device: torch.device) -> ClipLatents:
    """Draws and encodes clips; kept in `cache` as in `latents.encode`. What is taken of them lies on `device`."""
    clips = motion.sample_clips(count, torch.Generator().manual_seed(seed))
    return ClipLatents(clips, encode(vae, clips.scenes, cache), device)
