"""Separate-and-Enhance (arXiv 2312.06712) trained into a LoRA: no data, prompts alone.

    L  =  w_sep L_separate + w_en L_enhance          on prompts of several objects (with w_ga L_gather, where losses are not as published)
       +  w_keep | eps - eps_frozen |^2             on prompts of one object, so that the model stays what it is

The attention of noisy latents is looked at, which the paper makes of plain noise. Here the steps may be those of the model's own way down
from noise, as it is when it draws: `own` says with which share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...host.adapters import walks
from ...host.adapters.lora import Lora, louder
from ...host.adapters.practice import Practice, practise
from ...host.gradients import passes
from ...host.models import families
from ...host.models.attention_sites import TextLayer, text_layers
from ...host.models.layouts import Transformer
from ...host.models.taps import Taps
from ...training.settings import Settings
from ..training import NOBODY, Audience, Result, begun, finished
from .guide import METHODS, Method, maps_of_prompt, objects_losses, points_of, told_apart, weighed
from .lessons import Lesson

TARGETS = ("keys", "keys, queries and values")
WAY = 6  # steps of the model's own way down, over the levels that are trained
SHOWN_STEPS = 8
LORA_FILE = "lora.safetensors"


@dataclass(frozen=True)
class LoraSettings:
    """rank: of the LoRA. pictures: noises of a step, for each of its `prompts`. first, last: of sampling, between which noise levels lie.
    separate, enhance, gather, keep: weights. own: the share of steps whose latents are the model's own and not noise."""

    steps: int = 300
    rank: int = 8
    learning_rate: float = 1e-3
    pictures: int = 4
    prompts: int = 2
    first: float = 0.0
    last: float = 0.5
    separate: float = 1.0
    enhance: float = 1.0
    gather: float = 0.3
    enough: float = 0.2
    method: Method = METHODS[0]
    keep: float = 1.0
    own: float = 0.5
    targets: str = TARGETS[0]
    layers: families.Choice = "default"
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """percent: of sampling; own: whether latents are what the model itself comes to; asked, kept: prompts, each with a noise and a latent
    that is noise as well."""

    percent: float
    own: bool
    asked: tuple[tuple[int, Tensor], ...]
    kept: tuple[tuple[int, Tensor], ...]


class Trainer:
    """lessons: all prompts; by their numbers they are known to the practice."""

    def __init__(self, practice: Practice, lessons: Sequence[Lesson], layers: Sequence[TextLayer], lora: Lora, settings: LoraSettings,
                 shape: torch.Size) -> None:  # fmt: skip
        self.practice, self.lessons, self.layers, self.lora, self.settings = practice, lessons, layers, lora, settings
        self.shape = torch.Size((settings.pictures, *shape[1:]))
        self.asked = [i for i, lesson in enumerate(lessons) if lesson.named is not None]
        self.kept = [i for i, lesson in enumerate(lessons) if lesson.named is None]
        self.dm = practice.base.diffusion_model

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        def some(numbers: list[int], count: int) -> list[int]:
            chosen = torch.randint(max(len(numbers), 1), (count,), generator=generator, device=generator.device)
            return [numbers[int(i)] for i in chosen] if numbers else []

        def share() -> float:
            return float(torch.rand((), generator=generator, device=generator.device))

        def noises(prompts: list[int]) -> tuple[tuple[int, Tensor], ...]:
            return tuple((i, torch.randn(2, *self.shape, generator=generator, device=generator.device)) for i in prompts)

        settings = self.settings
        percent = settings.first + (settings.last - settings.first) * share()
        own = share() < settings.own
        asked = noises(some(self.asked, settings.prompts))
        return Batch(percent, own, asked, noises(some(self.kept, 1 if settings.keep > 0 else 0)))

    def _sigma(self, percent: float) -> float:
        sampling = self.practice.sampling
        return min(float(sampling.percent_to_sigma(percent)), float(sampling.sigma_max))

    @torch.no_grad()
    def _noisy(self, prompt: int, noises: Tensor, percent: float, own: bool) -> Tensor:
        """Latents at that level: noise on noise, as published, or what the model comes to in a few steps with this prompt."""
        sampling, (noise, latent) = self.practice.sampling, noises
        if not own:
            return sampling.noise_scaling(torch.tensor(self._sigma(percent)), noise, latent, False)
        first = self.settings.first
        count = max(1, round(WAY * (percent - first) / max(self.settings.last - first, 1e-6)))
        path = [self._sigma(first + (percent - first) * i / count) for i in range(count + 1)]
        return self._walked(prompt, sampling.noise_scaling(torch.tensor(path[0]), noise, torch.zeros_like(latent), first <= 0), path)

    def _walked(self, prompt: int, x: Tensor, path: Sequence[float]) -> Tensor:
        with self.lora.attached(self.dm):
            return walks.euler(self.practice, str(prompt), x, path)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        settings, sigma = self.settings, self._sigma(batch.percent)
        asked, kept = ([(i, self._noisy(i, noises, batch.percent, batch.own)) for i, noises in some] for some in (batch.asked, batch.kept))
        each = [self._objects(i, x, sigma) for i, x in asked]
        figures = {name: torch.stack([found[name] for found in each]).mean() for name in each[0]}
        total = weighed(figures, settings)
        if kept:
            figures["kept"] = torch.stack([self._departure(i, x, sigma) for i, x in kept]).mean()
            total = total + settings.keep * figures["kept"]
        return total, figures

    def _objects(self, prompt: int, x: Tensor, sigma: float) -> dict[str, Tensor]:
        named = self.lessons[prompt].named
        assert named is not None
        taps = Taps(self.dm, points_of(self.layers), x.shape, stop_gradient=True)
        with self.lora.attached(self.dm), taps, torch.enable_grad():  # taps read after the LoRA has acted
            self.practice.predict(str(prompt), x, sigma, taps)
        features = {name: louder(feature.float()) if feature.requires_grad else feature for name, feature in taps.features.items()}
        maps, telling = maps_of_prompt(features, named, told_apart(self.layers, x.shape), x.shape)
        present = torch.ones(maps.shape[:2], dtype=torch.bool, device=x.device)
        single = present & named.single.to(x.device)
        return objects_losses(maps, telling, present, single, self.settings.method, self.settings.enough)

    def _departure(self, prompt: int, x: Tensor, sigma: float) -> Tensor:
        """|eps - eps_frozen|^2"""
        with torch.no_grad():
            frozen = self.practice.predict(str(prompt), x, sigma)
        with self.lora.attached(self.dm):
            own = louder(self.practice.predict(str(prompt), x, sigma))
        return ((own - frozen) / sigma).square().mean()

    def picture(self) -> Tensor:
        """Clean latents (1, C, ...) of the first prompt, in a few steps and always from the same noise: for people to look at."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        device = next(self.dm.parameters()).device
        noise = torch.randn(self.shape[1:], generator=generator)[None].to(device)
        path = [*(self._sigma(i / SHOWN_STEPS) for i in range(SHOWN_STEPS)), 0.0]
        x = self.practice.sampling.noise_scaling(torch.tensor(path[0]), noise, torch.zeros_like(noise), True)
        return self._walked(self.asked[0], x, path)


def targets_of(model: ModelPatcher, targets: str) -> list[str]:
    linears = families.family_of(model).text_linears(model.model.diffusion_model)
    return list(dict.fromkeys(path for each in linears for path in (each[:1] if targets == TARGETS[0] else each)))


def train(
    model: ModelPatcher, lessons: Sequence[Lesson], latent: Tensor, settings: LoraSettings, folder: Path | None,
    audience: Audience = NOBODY,
) -> Result:  # fmt: skip
    """A LoRA as the host's nodes have it. latent: of the form to train on (B, C, [T,] h, w). folder: where the run is kept, and goes on
    from, with the LoRA so far as LORA_FILE. Shown is what a prompt comes to."""
    family, targets = families.family_of(model), targets_of(model, settings.targets)
    layers = text_layers(family, model.model.diffusion_model, settings.layers)
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        lora = Lora(dm, targets, settings.rank, settings.seed).to(next(dm.parameters()).device)
        trainer = Trainer(practice, lessons, layers, lora, settings, latent.shape)
        around = partial(passes.differentiable, dm, passes.Settings(copying=isinstance(family.layout, Transformer)))
        return finished(begun(lora, work, folder), trainer, around, lora.for_the_host, folder and folder / LORA_FILE, audience)

    return practise(model, {str(i): lesson.positive for i, lesson in enumerate(lessons)}, latent, settings.pictures, body)
