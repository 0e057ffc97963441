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
from safetensors.torch import save_file
from torch import Tensor

from ...core.consistency import consistency_training
from ...host.adapters.practice import Conditioning, Practice, practise
from ...host.gradients import passes
from ...training.loop import Run, Watch
from ...training.settings import Settings, seed_of
from .levels import levels_of

STRATEGIES = ("noise", "consistency")
CONTROL_FILE = "controlnet.safetensors"
MARK = "lora_controlnet"  # by which the host takes the form of a control network from the MODEL that it is used with
HINT_CHANNELS = 3


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
        self.control.cond_hint = None
        self.control.set_cond_hint(self.pairs.hints[batch.chosen.cpu()].float().to(self.device))
        names = [str(self.pairs.prompt[int(i)]) for i in batch.chosen]
        return self.practice.predict(names, x, sigma, control=self.control)


def begun(model: Any, device: torch.device) -> torch.nn.Module:
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


def train(
    model: ModelPatcher, pairs: Pairs, settings: ControlSettings, folder: Path | None, watch: Watch
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """A ControlNet as the host's loader reads it, and the loss of each step. folder: where the run is kept, and goes on from; when it
    ends, however it does, the ControlNet so far lies there as CONTROL_FILE."""
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False, bfloat16=True)
    result: list[tuple[dict[str, Tensor], dict[str, list[float]]]] = []

    def body(practice: Practice) -> None:
        dm = practice.base.diffusion_model
        torch.manual_seed(seed_of(settings.seed, 0))
        control = begun(practice.base, next(dm.parameters()).device)
        trainer, run = ControlTrainer(practice, pairs, control, settings), Run(control, work, folder)
        around = partial(passes.differentiable, dm, passes.Settings(copying=True))
        try:
            run.go(trainer.batch, trainer.loss, watch, around)
        finally:
            made = for_the_host(run.average)
            if folder is not None:
                save_file(made, folder / CONTROL_FILE)
        result.append((made, run.history))

    practise(model, {str(i): positive for i, positive in enumerate(pairs.positive)}, pairs.latents[:1], body)
    return result[0]
