"""One light adapter with which many ControlNets fit a consistency model (CCM, https://arxiv.org/abs/2312.06971, its third strategy).

    L(delta) = lambda(n) d( f(x_{n+1}; psi_k + delta), sg f(x_n; psi_k + delta) ),    k: of which ControlNet a batch is

The consistency model and all psi_k stay as they are. What delta is made of, the paper does not say: ours is a LoRA on the layers of the
ControlNet, the same for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.consistency import consistency_training
from ...host.adapters.control_adapter import PREFIX
from ...host.adapters.lora import Lora, layers_of, louder
from ...host.adapters.practice import Practice, practise
from ...host.gradients import passes
from ...training.settings import Settings
from ..training import NOBODY, Audience, Result, begun, finished
from .control import SHOWN_STEPS, neighbours
from .controlled import Batch, Controlled, Pairs

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
            target, found = controlled.consistent(pairs), louder(controlled.predict(pairs, pairs.higher))
        return consistency_training.consistency_loss(found, target, pairs.lower, pairs.higher), {}

    def picture(self) -> Tensor:
        """The first pairs with each ControlNet, one after the other."""
        rows = []
        for controlled in self.kinds:
            with self.lora.attached(controlled.network):
                rows.append(controlled.picture(SHOWN_STEPS["consistency"], self.settings.seed, True))
        return torch.cat(rows)


def train(
    model: ModelPatcher, networks: Sequence[nn.Module], pairs: Sequence[Pairs], settings: AdapterSettings, folder: Path | None,
    audience: Audience = NOBODY,
) -> Result:  # fmt: skip
    """An adapter, as a LoRA below `control_model`. networks: ControlNets of one form; pairs: of each. folder: where the run is kept, and
    goes on from, with the adapter so far as ADAPTER_FILE."""
    work = Settings(settings.steps, settings.learning_rate, settings.seed, warm_up=20, ema=0.98, record=False, bfloat16=True)

    def body(practice: Practice) -> Result:
        dm = practice.base.diffusion_model
        device = next(dm.parameters()).device
        ready = [network.to(device).requires_grad_(False) for network in networks]
        lora = Lora(ready[0], layers_of(ready[0], settings.rank), settings.rank, settings.seed).to(device)
        kinds = [Controlled(practice, some, network) for some, network in zip(pairs, ready, strict=True)]
        around = partial(passes.differentiable, dm, passes.Settings(copying=True))
        made = partial(_named, lora)
        return finished(
            begun(lora, work, folder), AdapterTrainer(kinds, lora, settings), around, made, folder and folder / ADAPTER_FILE, audience
        )

    return practise(model, {str(i): positive for i, positive in enumerate(pairs[0].positive)}, pairs[0].latents[:1], body)


def _named(lora: Lora, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = lora.for_the_host(dict(average))
    return {name.replace("diffusion_model.", PREFIX, 1): weight for name, weight in found.items() if not name.endswith(".alpha")}
