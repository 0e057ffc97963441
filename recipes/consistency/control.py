"""ControlNets for a MODEL, by the noise loss or, on a consistency model, by consistency training (CCM, https://arxiv.org/abs/2312.06971).

The ControlNet is the host's own, begun as a copy of the UNet's encoder (Zhang et al. 2023, https://arxiv.org/abs/2302.05543); the model
stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.consistency import consistency_training
from ...host.adapters import walks
from ...host.adapters.practice import Conditioning, Practice, practise
from ...host.gradients import passes
from ...training.settings import Settings, seed_of
from ..training import NOBODY, Audience, Result, begun, finished
from .levels import levels_of, path_of

STRATEGIES = ("noise", "consistency")
CONTROL_FILE = "controlnet.safetensors"
MARK = "lora_controlnet"  # by which the host takes the form of a control network from the MODEL that it is used with
HINT_CHANNELS = 3
SHOWN, SHOWN_STEPS = 4, (8, 4)  # pictures; steps, by each strategy


class ControlError(ValueError):
    """Written for the user: why no ControlNet can be trained here."""


@dataclass(frozen=True)
class ControlSettings:
    """strategy: one of STRATEGIES; pictures: of a step."""

    strategy: str = STRATEGIES[0]
    steps: int = 400
    learning_rate: float = 5e-4
    pictures: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """latents: clean (N, C, h, w), as the VAE gives them; hints: conditions (N, 3, H, W) in 0..1; prompt: of each pair, its number;
    positive: all prompts, encoded."""

    latents: Tensor
    hints: Tensor
    prompt: Sequence[int]
    positive: Sequence[Conditioning]


@dataclass(frozen=True)
class Batch:
    """chosen: numbers of pairs (B,); lower, higher: noise levels (B,), for the noise loss the same; noise (B, C, h, w)."""

    chosen: Tensor
    lower: Tensor
    higher: Tensor
    noise: Tensor


class ControlTrainer:
    def __init__(self, practice: Practice, pairs: Pairs, control: torch.nn.Module, settings: ControlSettings) -> None:
        self.practice, self.pairs, self.settings = practice, pairs, settings
        self.device = next(control.parameters()).device
        self.latents = practice.base.process_latent_in(pairs.latents.float())
        self.control: Any = comfy.controlnet.ControlNet(control, load_device=self.device)
        self.control.model_sampling_current = practice.sampling
        self.sigmas = levels_of(practice).to(self.device)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        count, device = self.settings.pictures, generator.device
        chosen = torch.randint(len(self.latents), (count,), generator=generator, device=device)
        noise = torch.randn(count, *self.latents.shape[1:], generator=generator, device=device)
        if self.settings.strategy == STRATEGIES[0]:
            percent = torch.rand(count, generator=generator, device=device).tolist()
            sigma = torch.tensor([min(float(self.practice.sampling.percent_to_sigma(p)), float(self.sigmas[-1])) for p in percent])
            return Batch(chosen, sigma.to(device), sigma.to(device), noise)
        levels = self.sigmas[consistency_training.spread(len(self.sigmas), self._levels_at(step))]
        return Batch(chosen, *consistency_training.pairs_of_levels(levels, count, generator), noise)

    def _levels_at(self, step: int) -> int:
        return consistency_training.discretisation(step, self.settings.steps, most=len(self.sigmas) - 1)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.latents[batch.chosen.cpu()].to(self.device)
        found = self._predict(batch, latents, batch.higher)
        if self.settings.strategy == STRATEGIES[0]:
            sigma = batch.higher.view(-1, *[1] * (latents.ndim - 1))
            return ((found - latents) / sigma).square().mean(), {}
        with torch.no_grad():
            clean = self._predict(batch, latents, batch.lower.clamp(min=float(self.sigmas[1])))
            target = torch.where((batch.lower == 0).view(-1, *[1] * (latents.ndim - 1)), latents, clean)
        return consistency_training.consistency_loss(found, target, batch.lower, batch.higher), {}

    def _predict(self, batch: Batch, latents: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents with the ControlNet, (B, ...)."""
        x = self.practice.sampling.noise_scaling(sigma.view(-1, *[1] * (latents.ndim - 1)), batch.noise, latents, False)
        return self.practice.predict(self._shown(batch.chosen.cpu()), x, sigma, control=self.control)

    def _shown(self, chosen: Tensor) -> list[str]:
        """Puts the conditions of these pairs before the ControlNet; gives the names of their prompts."""
        self.control.cond_hint = None
        self.control.set_cond_hint(self.pairs.hints[chosen].float().to(self.device))
        return [str(self.pairs.prompt[int(i)]) for i in chosen]

    def picture(self) -> Tensor:
        """Of the first pairs in a few steps, always from the same noise."""
        names = self._shown(torch.arange(min(SHOWN, len(self.latents))))
        generator = torch.Generator().manual_seed(self.settings.seed)
        steps = SHOWN_STEPS[STRATEGIES.index(self.settings.strategy)]
        noises = torch.randn(steps, len(names), *self.latents.shape[1:], generator=generator).to(self.device)
        path = path_of(self.sigmas, steps)
        if self.settings.strategy == STRATEGIES[1]:
            return walks.lcm(self.practice, names, noises, path, self.control)
        x = self.practice.sampling.noise_scaling(torch.tensor(path[0]), noises[0], torch.zeros_like(noises[0]), True)
        return walks.euler(self.practice, names, x, [*path, 0.0], self.control)


def initial(model: Any, device: torch.device) -> torch.nn.Module:
    """The host's ControlNet for one of its UNets, with the encoder's weights, in float32."""
    if not isinstance(model.diffusion_model, UNetModel):
        raise ControlError(
            "Only UNets (such as SD 1.5, SD 2 and SDXL) have ControlNets of this kind, and this model is no UNet: take such a model."
        )
    config = {**model.model_config.unet_config, "hint_channels": HINT_CHANNELS, "operations": comfy.ops.disable_weight_init}
    config.pop("out_channels", None)
    config["transformer_depth"] = list(config["transformer_depth"])
    control = comfy.cldm.cldm.ControlNet(**{**config, "dtype": torch.float32, "device": device})
    for name, weight in control.named_parameters():  # the host leaves them as they lie in memory
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
        else:
            torch.nn.init.zeros_(weight)
        if name.startswith(("zero_convs", "middle_block_out", "input_hint_block.14")):
            torch.nn.init.zeros_(weight)
    control.load_state_dict({name: weight.float() for name, weight in model.diffusion_model.state_dict().items()}, strict=False)
    return control.requires_grad_(True)


def for_the_host(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the host's ControlNet loader reads them, in half precision."""
    return {MARK: torch.zeros(0), **{name: weight.half().cpu().contiguous() for name, weight in weights.items()}}


def train(model: ModelPatcher, pairs: Pairs, settings: ControlSettings, folder: Path | None, audience: Audience = NOBODY) -> Result:
    """A ControlNet as the host's loader reads it. folder: where the run is kept, and goes on from, with the ControlNet so far as
    CONTROL_FILE. Shown is what the first pairs come to in a few steps."""
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False, bfloat16=True)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        torch.manual_seed(seed_of(settings.seed, 0))
        control = initial(practice.base, next(dm.parameters()).device)
        trainer = ControlTrainer(practice, pairs, control, settings)
        around = partial(passes.differentiable, dm, passes.Settings(copying=True))
        return finished(begun(control, work, folder), trainer, around, for_the_host, folder and folder / CONTROL_FILE, audience)

    return practise(model, {str(i): positive for i, positive in enumerate(pairs.positive)}, pairs.latents[:1], body)
