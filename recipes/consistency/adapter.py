"""One light adapter with which many ControlNets fit a consistency model (CCM, https://arxiv.org/abs/2312.06971, its third strategy).

    L(delta) = lambda(n) d( f(x_{n+1}; psi_k + delta), sg f(x_n; psi_k + delta) ),    k: of which ControlNet a batch is

The consistency model and all psi_k stay as they are. What delta is made of, the paper does not say: ours is a LoRA on the layers of the
ControlNet, the same for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.consistency import adapter_file, consistency_training
from ...core.consistency.adapter_file import Adapter
from ...host.adapters.control_adapter import PREFIX
from ...host.adapters.lora import Lora, layers_of, louder
from ...host.adapters.practice import Practice, practise
from ...host.gradients import passes
from ...host.models import families
from ...training.settings import Settings
from ..training import NOBODY, Audience, History, Result, begun, finished
from .control import SHOWN_STEPS, neighbours
from .controlled import Batch, Controlled, Pairs, network_of

ADAPTER_FILE = "adapter.safetensors"


@dataclass(frozen=True)
class AdapterSettings:
    """pictures: of a step, all with the same ControlNet."""

    steps: int = 400
    rank: int = 4
    learning_rate: float = 1e-3
    pictures: int = 16
    seed: int = 0


class AdapterTrainer:
    def __init__(self, kinds: Sequence[Controlled], lora: Lora, settings: AdapterSettings) -> None:
        self.kinds, self.lora, self.settings = kinds, lora, settings

    def batch(self, step: int, generator: torch.Generator) -> tuple[int, Batch]:
        kind = int(torch.randint(len(self.kinds), (), generator=generator, device=generator.device))
        return kind, neighbours(self.kinds[kind], step, self.settings.steps, self.settings.pictures, generator)

    def loss(self, batch: tuple[int, Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        kind, pairs = batch
        controlled = self.kinds[kind]
        with self.lora.attached(controlled.network):
            found = louder(controlled.predict(pairs, pairs.higher))  # first, or autocast would keep weights without a gradient
            target = controlled.consistent(pairs)
        return consistency_training.consistency_loss(found, target, pairs.lower, pairs.higher), {}

    def picture(self) -> Tensor:
        """The first pairs with each ControlNet, one after the other."""
        rows = []
        for controlled in self.kinds:
            with self.lora.attached(controlled.network):
                rows.append(controlled.picture(SHOWN_STEPS["consistency"], self.settings.seed, True))
        return torch.cat(rows)


def train(
    model: ModelPatcher, controls: Sequence[Any], pairs: Sequence[Pairs], kinds: str, settings: AdapterSettings, folder: Path | None,
    audience: Audience = NOBODY,
) -> tuple[Adapter, History]:  # fmt: skip
    """controls: the host's ControlNets; pairs: of each; kinds: what their conditions are, in words. folder: where the run is kept, and goes
    on from, with the adapter so far as ADAPTER_FILE."""
    family = families.family_of(model).name
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False, bfloat16=True)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        device = next(dm.parameters()).device
        networks = [network_of(control, practice.base).to(device).requires_grad_(False) for control in controls]
        lora = Lora(networks[0], layers_of(networks[0], settings.rank), settings.rank, settings.seed).to(device)
        each = [
            Controlled(practice, some, network, control.global_average_pooling)
            for some, network, control in zip(pairs, networks, controls, strict=True)
        ]
        around = partial(passes.differentiable, dm, passes.Settings(copying=True))
        file, made = folder and folder / ADAPTER_FILE, partial(_named, lora)
        trainer = AdapterTrainer(each, lora, settings)
        return finished(begun(lora, work, folder), trainer, around, made, file, audience, keep)

    def keep(weights: Mapping[str, Tensor], path: Path) -> None:
        adapter_file.save(path, Adapter(weights, kinds, family))

    prompts = {str(i): positive for i, positive in enumerate(pairs[0].positive)}
    weights, history = practise(model, prompts, pairs[0].latents[:1], settings.pictures, body)
    return Adapter(weights, kinds, family), history


def _named(lora: Lora, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = lora.for_the_host(dict(average))
    return {name.replace("diffusion_model.", PREFIX, 1): weight for name, weight in found.items() if not name.endswith(".alpha")}
