"""ControlNets for a MODEL, by the noise loss or, on a consistency model, by consistency training (CCM, https://arxiv.org/abs/2312.06971)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.consistency import consistency_training
from ...host.adapters.practice import Practice, practise
from ...host.gradients import passes
from ...training.settings import Settings, seed_of
from ..training import NOBODY, Audience, Result, begun, finished
from .controlled import Batch, Controlled, Pairs, for_the_host, initial

STRATEGIES = ("noise", "consistency")
CONTROL_FILE = "controlnet.safetensors"
SHOWN_STEPS = {"noise": 8, "consistency": 4}


@dataclass(frozen=True)
class ControlSettings:
    """strategy: one of STRATEGIES; pictures: of a step."""

    strategy: str = STRATEGIES[0]
    steps: int = 400
    learning_rate: float = 5e-4
    pictures: int = 16
    seed: int = 0


class NoiseTrainer:
    """An ordinary ControlNet: |eps - eps_psi|^2 at levels evenly spread over sampling."""

    def __init__(self, controlled: Controlled, settings: ControlSettings) -> None:
        self.controlled, self.settings = controlled, settings

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        sampling, highest = self.controlled.practice.sampling, float(self.controlled.sigmas[-1])
        percents = torch.rand(self.settings.pictures, generator=generator, device=generator.device).tolist()
        sigma = torch.tensor([min(float(sampling.percent_to_sigma(p)), highest) for p in percents]).to(generator.device)
        return drawn(self.controlled.latents, sigma, sigma, generator)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.controlled.predict(batch, batch.higher)
        sigma = batch.higher.view(-1, *[1] * (found.ndim - 1))
        return ((found - self.controlled.clean(batch)) / sigma).square().mean(), {}

    def picture(self) -> Tensor:
        return self.controlled.picture(SHOWN_STEPS["noise"], self.settings.seed, False)


class ConsistencyTrainer:
    def __init__(self, controlled: Controlled, settings: ControlSettings) -> None:
        self.controlled, self.settings = controlled, settings

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        return neighbours(self.controlled, step, self.settings.steps, self.settings.pictures, generator)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.controlled.predict(batch, batch.higher)  # first, or autocast would keep weights without a gradient
        target = self.controlled.consistent(batch)
        return consistency_training.consistency_loss(found, target, batch.lower, batch.higher), {}

    def picture(self) -> Tensor:
        return self.controlled.picture(SHOWN_STEPS["consistency"], self.settings.seed, True)


def neighbours(controlled: Controlled, step: int, steps: int, pictures: int, generator: torch.Generator) -> Batch:
    """A batch at neighbouring noise levels, of as many as there are at that step of a run."""
    count = consistency_training.discretisation(step, steps, most=len(controlled.sigmas) - 1)
    levels = controlled.sigmas[consistency_training.spread(len(controlled.sigmas), count)]
    return drawn(controlled.latents, *consistency_training.pairs_of_levels(levels, pictures, generator), generator)


def drawn(latents: Tensor, lower: Tensor, higher: Tensor, generator: torch.Generator) -> Batch:
    device = generator.device
    chosen = torch.randint(len(latents), (len(lower),), generator=generator, device=device)
    return Batch(chosen, lower, higher, torch.randn(len(lower), *latents.shape[1:], generator=generator, device=device))


def train(model: ModelPatcher, pairs: Pairs, settings: ControlSettings, folder: Path | None, audience: Audience = NOBODY) -> Result:
    """A ControlNet as the host's loader reads it. folder: where the run is kept, and goes on from, with the ControlNet so far as
    CONTROL_FILE. Shown is what the first pairs come to in a few steps."""
    consistent = settings.strategy == "consistency"
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False, bfloat16=True)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        torch.manual_seed(seed_of(settings.seed, 0))
        network = initial(practice.base, next(dm.parameters()).device)
        trainer = (ConsistencyTrainer if consistent else NoiseTrainer)(Controlled(practice, pairs, network), settings)
        around = partial(passes.differentiable, dm, passes.Settings(copying=True))
        made = partial(for_the_host, practice.base)
        return finished(begun(network, work, folder), trainer, around, made, folder and folder / CONTROL_FILE, audience)

    return practise(model, {str(i): positive for i, positive in enumerate(pairs.positive)}, pairs.latents[:1], settings.pictures, body)
