"""Trains the playground's consistency LoRA, ControlNets and adapter with the recipes that users have, on drawn scenes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...core.consistency import adapter_file
from ...core.consistency.adapter_file import Adapter
from ...host.adapters.practice import Conditioning
from ...recipes.consistency import adapter, control, distil
from ...recipes.consistency.controlled import MARK, Pairs
from ...recipes.consistency.examples import Examples
from ...recipes.training import Audience
from ...training.loop import Watch
from ..image import models as pictures
from ..latents import encode
from ..weights import save_compact
from ..world import conditions, world
from ..world.captions import caption
from . import models

SCENES = 6000
LATENTS = "consistency_latents.pt"  # of all stages, which learn from the same scenes
RANK = 48  # of the LoRA
TOGETHER = 100  # scenes are drawn at once
CONTROL = "control "
STEPS = {"consistency_lora": 3000, **{CONTROL + name: 800 for name in models.CONTROLS}, "consistency_adapter": 400}


@dataclass(frozen=True)
class Lessons:
    """Encoded scenes, and a caption of each, encoded: one prompt a scene."""

    latents: Tensor
    scenes: world.Scenes
    positive: Sequence[Conditioning]
    negative: Conditioning

    def examples(self) -> Examples:
        return Examples(self.latents, range(len(self.latents)), self.positive, self.negative)

    def pairs(self, kind: str, seed: int) -> Pairs:
        hints = []
        for start in range(0, len(self.scenes), TOGETHER):
            masks = world.render(self.scenes[start : start + TOGETHER])[1].amax(1)
            hints.append(conditions.condition(kind, masks, torch.Generator().manual_seed(seed + start)).half())
        return Pairs(self.latents, torch.cat(hints), range(len(self.latents)), self.positive)


def lessons(clip, vae, cache: Path, seed: int, count: int = SCENES) -> Lessons:
    scenes = world.sample_scenes(count, torch.Generator().manual_seed(seed + 1))
    rng = random.Random(seed)
    texts = [caption(scenes, i, rng).text for i in range(count)]
    with torch.no_grad():
        latents = encode(vae, scenes, cache).latent.float()
        positive = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
        return Lessons(latents, scenes, positive, clip.encode_from_tokens_scheduled(clip.tokenize("")))


def train_lora(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    model, clip, vae = pictures.load()
    settings = distil.DistillationSettings(steps, RANK, pictures=16, seed=seed)
    return distil.distil(model, lessons(clip, vae, folder.parent / LATENTS, seed).examples(), settings, folder, Audience(watch))[0]


def train_control(name: str, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """One of models.CONTROLS."""
    kind, _, few = name.partition(", ")
    model, clip, vae = models.load() if few else pictures.load()
    settings = control.ControlSettings(control.STRATEGIES[bool(few)], steps, seed=seed)
    pairs = lessons(clip, vae, folder.parent / LATENTS, seed).pairs(kind, seed)
    weights = control.train(model, pairs, settings, folder, Audience(watch))[0]
    return {name: weight for name, weight in weights.items() if name != MARK}


def train_adapter(folder: Path, steps: int, seed: int, watch: Watch) -> Adapter:
    """For the ControlNets of an ordinary model."""
    model, clip, vae = models.load()
    learnt = lessons(clip, vae, folder.parent / LATENTS, seed)
    controls, pairs = [models.load_control(kind) for kind in models.TRAINED], [learnt.pairs(kind, seed) for kind in models.TRAINED]
    settings = adapter.AdapterSettings(steps, seed=seed)
    return adapter.train(model, controls, pairs, ", ".join(models.TRAINED), settings, folder, Audience(watch))[0]


def run(stage: str, steps: int, folder: Path, out: Path, seed: int, watch: Watch) -> None:
    """Trains one of STEPS, and writes its file."""
    if stage == "consistency_lora":
        save_compact(train_lora(folder, steps, seed, watch), out / models.LORA.name)
    elif stage == "consistency_adapter":
        adapter_file.save(out / models.ADAPTER.name, train_adapter(folder, steps, seed, watch))
    else:
        name = stage.removeprefix(CONTROL)
        save_compact(train_control(name, folder, steps, seed, watch), out / models.CONTROLS[name].name)
