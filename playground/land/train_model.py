"""Trains the land's autoencoder and model: latents of windows, each with what the encoder sees there."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...training.files import save_whole
from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.precision import mixed_precision
from ...training.settings import Settings
from ..image import models as image
from ..image import train_vae
from ..noise_loss import Noising, min_snr
from ..weights import load_compact
from . import models
from .train_encoder import lands, some, somewhere, windows

LANDS, WINDOWS = 160, 20_000  # to learn from
BATCH, TOGETHER = 64, 50
DROPPED = 0.1  # of the windows are learnt without what is seen there
LAND_SEED = 500_000  # of the first land; others follow


class Lesson(NamedTuple):
    latent: Tensor
    meaning: Tensor


def train_autoencoder(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """On from the playground's, which knows other pictures."""
    prefix = "vae."
    known = {name.removeprefix(prefix): w for name, w in load_compact(image.WEIGHTS).items() if name.startswith(prefix)}
    pictures, _ = lands(LANDS // 4, LAND_SEED + seed)

    def draw(count: int, side: int, generator: torch.Generator) -> Tensor:
        return windows(pictures, somewhere(count, pictures, generator), side).float() / 255

    return train_vae.train(folder, steps, seed, watch, draw, known)


@torch.no_grad()
def lessons(vae: Any, vision: models.Vision, cache: Path, seed: int, count: int = WINDOWS, among: int = LANDS) -> Lesson:
    """Of windows of so many lands; kept in a file."""
    if cache.exists():
        stored = torch.load(cache, weights_only=True)
        return Lesson(stored["latent"], stored["meaning"])
    pictures, _ = lands(among, LAND_SEED + seed)
    places = somewhere(count, pictures, torch.Generator().manual_seed(seed))
    latents, meanings = [], []
    for start in range(0, count, TOGETHER):
        shown = windows(pictures, some(places, start, TOGETHER)).float() / 255
        with mixed_precision("cpu"):
            latents.append(train_vae.moments(vae.first_stage_model, shown)[0].half())
        meanings.append(vision.model(shown))
    found = Lesson(torch.cat(latents), torch.cat(meanings))
    save_whole(found._asdict(), cache)
    return found


class Batch(NamedTuple):
    noisy: Tensor
    noise: Tensor
    t: Tensor
    sigma: Tensor
    meaning: Tensor


class Batches:
    """The batch of each step, some of it without what is seen."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson, self.noising = lesson, Noising(blind=0.03)

    def __call__(self, step: int, generator: torch.Generator) -> Batch:
        chosen = torch.randint(0, len(self.lesson.latent), (BATCH,), generator=generator)
        dropped = torch.rand(BATCH, 1, generator=generator) < DROPPED
        meaning = self.lesson.meaning[chosen].masked_fill(dropped, 0.0)
        made = self.noising(self.lesson.latent[chosen].float(), meaning, meaning, meaning, generator)
        return Batch(made.noisy, made.noise, made.t, made.sigma, meaning)


def loss(unet: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    error = (unet(batch.noisy, batch.t, context=models.context(batch.meaning)).float() - batch.noise).square().flatten(1).mean(1)
    return (error * min_snr(1 / batch.sigma**2)).mean(), {"noise": error.mean()}


def train(vae: Any, vision: models.Vision, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights."""
    torch.manual_seed(seed)
    lesson = lessons(vae, vision, folder / "lessons.pt", seed)
    unet = models.build_model().model.diffusion_model
    initialise(unet, zero=("out_layers.3.weight", "proj_out.weight", "out.2.weight"))
    run = Run(unet, Settings(steps, learning_rate=1.5e-3, seed=seed, bfloat16=True), folder)
    return run.go(Batches(lesson), partial(loss, unet), watch)
