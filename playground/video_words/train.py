"""Trains the text encoder of the video models: its words for how a thing moves have to tell what moves and how; the words of a picture
have to say what they say to the image playground, as if nothing moved.

Trained along with a video model instead, the words for the ways become nearly the same ones before the model has found out what they are
for, and then it never does.
"""

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...host.gradients.copying import copied_on_change
from ...training.loop import Run, Watch
from ...training.settings import Settings
from .. import text
from ..image import models as image_models
from ..world import captions, motion, motion_captions, world
from . import models

CLIPS_A_STEP, PICTURES_A_STEP = 96, 32
NOTHING = -100  # no label
TELLS = {"colour": len(world.COLOURS), "shape": len(world.SHAPES), "motion": len(motion.MOTIONS), "drift": len(motion.DRIFTS)}


@dataclass
class Batch:
    """Word ids (B, tokens); of each, what it should tell (a class, or NOTHING); word ids of the same captions without motion
    (B, image tokens), and where their words stand in the first."""

    tokens: Tensor
    labels: dict[str, Tensor]
    plain: Tensor
    places: Tensor


class VideoWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        image = models.image_words()
        self.words = text.build_words(models.LANGUAGE, models.begun_from(image))
        self.image = text.build_words(image_models.LANGUAGE, image).requires_grad_(False)
        self.tells = nn.ModuleDict({name: nn.Linear(text.WIDTH, count) for name, count in TELLS.items()})


def batch(step: int, generator: torch.Generator) -> Batch:
    """Fresh captions, of clips and of pictures."""
    rng = random.Random(generator.initial_seed())
    clips = motion.sample_clips(CLIPS_A_STEP, generator)
    scenes = world.sample_scenes(PICTURES_A_STEP, generator)
    said = [motion_captions.caption(clips, i, rng) for i in range(CLIPS_A_STEP)]
    said += [captions.caption(scenes, i, rng) for i in range(PICTURES_A_STEP)]
    rows = [text.tokens_and_groups(each, models.LANGUAGE, rng) for each in said]
    tokens, groups = (torch.stack(column) for column in zip(*rows, strict=True))
    plain, places = zip(*(_without_motion(each, row) for each, row in zip(said, tokens, strict=True)), strict=True)
    return Batch(tokens, _labels(clips, groups), torch.stack(plain), torch.stack(places))


def _without_motion(said: captions.Caption, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Word ids of the image playground, and their places in `tokens`. A video is a picture there."""
    moving = [group is not None and group >= captions.MOTION for group in said.groups]
    if tokens[1] == text.END:
        moving = []
    moving = [False, *moving, *[False] * len(tokens)][: len(tokens)]
    places = torch.tensor([place for place, moves in enumerate(moving) if not moves][: image_models.LANGUAGE.max_tokens])
    plain = tokens[places]
    return torch.where(plain < len(image_models.LANGUAGE.words), plain, models.PICTURE), places


def _labels(clips: motion.Clips, groups: Tensor) -> dict[str, Tensor]:
    """Of the tokens that tell a motion: (B, tokens) classes."""
    labels = {name: torch.full_like(groups, NOTHING) for name in TELLS}
    first = slice(None, None, clips.frames)
    facts = {"colour": clips.scenes.colour[first], "shape": clips.scenes.shape[first], "motion": clips.motion}
    for row, place in (groups >= captions.MOTION).nonzero().tolist():
        slot = int(groups[row, place]) - captions.MOTION - 1
        if slot >= 0:
            for name, fact in facts.items():
                labels[name][row, place] = fact[row, slot]
        else:
            labels["drift"][row, place] = clips.drift[row]
    return labels


def loss(network: VideoWords, given: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """How badly the words tell what they should, and how far those of a picture are from the image playground's."""
    found = network.words(given.tokens)[0]
    parts = {
        name: F.cross_entropy(network.tells[name](found).flatten(0, 1), given.labels[name].flatten(), ignore_index=NOTHING)
        for name in TELLS
    }
    with torch.no_grad():
        wanted = network.image(given.plain)[0]
    kept = found.gather(1, given.places[..., None].expand(-1, -1, text.WIDTH))
    parts["pictures"] = (kept - wanted).square().mean() / wanted.var()
    return torch.stack([*parts.values()]).sum(), {name: part.detach() for name, part in parts.items()}


def train(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights of the text encoder."""
    torch.manual_seed(seed)
    network = VideoWords()
    run = Run(network, Settings(steps, learning_rate=1e-3, seed=seed), folder)
    average = run.go(batch, partial(loss, network), watch, copied_on_change)
    return {name.removeprefix("words."): weight for name, weight in average.items() if name.startswith("words.")}
