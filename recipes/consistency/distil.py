"""A diffusion model distilled into a LoRA that draws in 1 to 4 steps without guidance: latent consistency distillation (Luo et al. 2023,
https://arxiv.org/abs/2310.04378; as a LoRA, https://arxiv.org/abs/2311.05556).

    L  =  d( f_lora(x_{n+1}),  f_ema(x_n) ),     x_n = one step of DDIM from x_{n+1}, by the model itself with guidance

Teacher, student and target are the one MODEL, without the LoRA, with it, and with its average over the steps so far.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.consistency import distillation
from ...host.adapters import walks
from ...host.adapters.lora import Lora, layers_of, louder
from ...host.adapters.practice import Practice, practise
from ...host.gradients import passes
from ...host.models import families
from ...host.models.layouts import Transformer
from ...training.settings import Settings
from ..training import NOBODY, Audience, Result, begun, finished
from .examples import Examples
from .levels import levels_of, path_of

LORA_FILE = "lora.safetensors"
NEGATIVE = "negative"
SHOWN_STEPS, SHOWN = 4, 4


@dataclass(frozen=True)
class DistillationSettings:
    """pictures: of a step. guidance: that is built in. ema: decay of the averaged weights, which are the target and the result."""

    steps: int = 400
    rank: int = 32
    learning_rate: float = 1e-3
    pictures: int = 32
    guidance: float = 4.0
    ema: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """chosen: numbers of examples; level: n + 1 of each (B,); noise (B, C, h, w)."""

    chosen: Tensor
    level: Tensor
    noise: Tensor


class Distiller:
    """average: of the weights of the LoRA, over the steps so far."""

    def __init__(
        self, practice: Practice, examples: Examples, lora: Lora, average: dict[str, Tensor], settings: DistillationSettings
    ) -> None:
        self.practice, self.examples, self.lora, self.average, self.settings = practice, examples, lora, average, settings
        self.dm = practice.base.diffusion_model
        self.device = next(self.dm.parameters()).device
        self.latents = practice.base.process_latent_in(examples.latents.float())
        self.sigmas = levels_of(practice).to(self.device)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        count, device = self.settings.pictures, generator.device
        chosen = torch.randint(len(self.latents), (count,), generator=generator, device=device)
        level = distillation.times(len(self.sigmas) - 1, count, generator)
        return Batch(chosen, level, torch.randn(count, *self.latents.shape[1:], generator=generator, device=device))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.latents[batch.chosen.cpu()].to(self.device)
        names = [str(self.examples.prompt[int(i)]) for i in batch.chosen]
        high, low = self.sigmas[batch.level], self.sigmas[batch.level - 1]
        x = self._noised(latents, batch.noise, high)
        with torch.no_grad():
            target = self._target(names, x, high, low)
        with self.lora.attached(self.dm):
            student = louder(self.practice.predict(names, x, high))
        return distillation.distillation_loss(student, target), {}

    def _noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self.practice.sampling.noise_scaling(sigma.view(-1, *[1] * (latents.ndim - 1)), noise, latents, False)

    def _target(self, names: list[str], x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        clean = self.practice.predict(names, x, high)
        if self.settings.guidance != 1:
            clean = distillation.guided(clean, self.practice.predict(NEGATIVE, x, high), self.settings.guidance)
        stepped = distillation.ddim_step(x, clean, high, low)
        with self.lora.attached(self.dm, self.average):
            predicted = self.practice.predict(names, stepped, low.clamp(min=float(self.sigmas[1])))
        return torch.where((low == 0).view(-1, *[1] * (x.ndim - 1)), stepped, predicted)

    def picture(self) -> Tensor:
        """Of the first prompts in a few steps, as sampler lcm makes them, always from the same noise."""
        names = [str(i) for i in range(min(SHOWN, len(self.examples.positive)))]
        generator = torch.Generator().manual_seed(self.settings.seed)
        noises = torch.randn(SHOWN_STEPS, len(names), *self.latents.shape[1:], generator=generator).to(self.device)
        with self.lora.attached(self.dm):
            return walks.lcm(self.practice, names, noises, path_of(self.sigmas, SHOWN_STEPS))


def distil(
    model: ModelPatcher, examples: Examples, settings: DistillationSettings, folder: Path | None, audience: Audience = NOBODY
) -> Result:
    """A LoRA as the host's nodes have it. folder: where the run is kept, and goes on from, with the LoRA so far as LORA_FILE. Shown is
    what the first prompts come to in four steps."""
    copying = isinstance(families.family_of(model).layout, Transformer)
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=settings.ema, record=False, bfloat16=True)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        lora = Lora(dm, layers_of(dm, settings.rank), settings.rank, settings.seed).to(next(dm.parameters()).device)
        run = begun(lora, work, folder)
        distiller = Distiller(practice, examples, lora, run.average, settings)
        around = partial(passes.differentiable, dm, passes.Settings(copying=copying))
        return finished(run, distiller, around, lora.for_the_host, folder and folder / LORA_FILE, audience)

    prompts = {str(i): positive for i, positive in enumerate(examples.positive)}
    return practise(model, {**prompts, NEGATIVE: examples.negative}, examples.latents[:1], settings.pictures, body)
