"""Batches of encoded clips, for the trainers of both video models."""

import random
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
import torch
from torch import Tensor

from .latents import Latents, encode
from .text import Language, tokens_and_groups
from .world import captions, motion, motion_captions

CLIPS = 4000  # different ones, and as many again played backwards


@dataclass
class Excerpts:
    """Latents (B, F, 4, 16, 16) of clips or parts of clips, masks (B, F, 4, 16, 16) of ground and objects, tokens (B, tokens), and
    what each of them speaks of (B, tokens), as in `text.tokens_and_groups`."""

    latent: Tensor
    masks: Tensor
    tokens: Tensor
    groups: Tensor


class ClipLatents:
    """Encoded clips."""

    def __init__(self, clips: motion.Clips, encoded: Latents) -> None:
        self.clips, self.backwards = clips, motion.reversed_names(clips)
        self.latent, self.masks = (values.unflatten(0, (len(clips), clips.frames)) for values in (encoded.latent, encoded.masks))

    def excerpts(self, count: int, frames: int, language: Language, rng: random.Random, stride: int = 1) -> Excerpts:
        """So many different clips, or of each so many frames, every `stride`th; a single frame is said as a picture."""
        parts = [
            Part(clip, rng.randrange(self.clips.frames - (frames - 1) * stride), stride, rng.random() < 0.5)
            for clip in rng.sample(range(len(self.clips)), count)
        ]
        said = [tokens_and_groups(self._caption(part, frames, rng), language, rng) for part in parts]
        latent, masks = (
            torch.stack([self._frames(values, part, frames) for part in parts]).float() for values in (self.latent, self.masks)
        )
        tokens, groups = (torch.stack(column) for column in zip(*said, strict=True))
        return Excerpts(latent, masks, tokens, groups)

    def _caption(self, part: "Part", frames: int, rng: random.Random) -> captions.Caption:
        if frames > 1:
            return motion_captions.caption(self.backwards if part.backwards else self.clips, part.clip, rng)
        return captions.caption(self.clips.scenes, part.clip * self.clips.frames + part.start, rng)

    @staticmethod
    def _frames(values: Tensor, part: "Part", frames: int) -> Tensor:
        taken = values[part.clip, part.start :: part.stride][:frames]
        return taken.flip(0) if part.backwards else taken


@dataclass(frozen=True)
class Part:
    """Where an excerpt begins, how far its frames are apart, and whether it is played backwards."""

    clip: int
    start: int
    stride: int
    backwards: bool


def encode_clips(vae: comfy.sd.VAE, count: int, seed: int, cache: Path) -> ClipLatents:
    """Draws and encodes clips; kept in `cache` as in `latents.encode`."""
    clips = motion.sample_clips(count, torch.Generator().manual_seed(seed))
    return ClipLatents(clips, encode(vae, clips.scenes, cache))
