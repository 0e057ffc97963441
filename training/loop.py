"""What the three training scripts share: seeded initialisation, resumable state, averaged weights, and a loss log."""

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def initialise(module: nn.Module, zero: tuple[str, ...] = ()) -> None:
    """Fills all parameters (the host's layers start as uninitialised memory); names ending in one of `zero` start at 0."""
    for name, p in module.named_parameters():
        if name.endswith(zero) if zero else False:
            nn.init.zeros_(p)
        elif p.ndim > 1:
            nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))
        elif name.endswith("weight"):
            nn.init.ones_(p)
        else:
            nn.init.zeros_(p)
        p.requires_grad_(True)


class Run:
    """One resumable training: optimiser, learning rate, averaged weights and a log, saved under `folder`."""

    def __init__(self, module: nn.Module, folder: Path, steps: int, learning_rate: float, ema: float = 0.999):
        self.module, self.folder, self.steps, self.ema = module, folder, steps, ema
        folder.mkdir(parents=True, exist_ok=True)
        self.optimiser = torch.optim.AdamW(module.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.learning_rate = learning_rate
        self.average = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.recent: dict[str, list[float]] = {}
        self.started = time.time()
        if self.state_file.exists():
            self._resume()

    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def _resume(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step, self.log = state["average"], state["step"], state["log"]
        logger.info("resumed %s at step %d", self.folder.name, self.step)

    def save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "log": self.log,
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state_file)
        (self.folder / "log.json").write_text(json.dumps(self.log))

    def remaining(self, every: int = 250) -> Iterator[int]:
        """The steps still to do; saves every so many, and at the end."""
        while self.step < self.steps:
            yield self.step
            self.step += 1
            if self.step % every == 0 or self.step == self.steps:
                self.save()

    @property
    def pace(self) -> float:
        """Share of the learning rate: up over the first 150 steps, down over the last third. Depends on nothing but the step,
        so that a run can be resumed with another length."""
        return min(1.0, (self.step + 1) / 150, (self.steps - self.step) / (self.steps / 3))

    def descend(self, loss: Tensor, **figures: Tensor) -> None:
        """One optimiser step; `figures` are logged beside the loss as means of 50 steps."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * self.pace
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimiser.step()
        decay = min(self.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            live = self.module.state_dict()
            floating = [k for k in live if live[k].is_floating_point()]
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                [self.average[k] for k in floating], [live[k].float() for k in floating], 1 - decay
            )
        for name, value in {"loss": loss, **figures}.items():
            self.recent.setdefault(name, []).append(float(value.detach()))
        if (self.step + 1) % 50 == 0:
            means = {name: sum(values) / len(values) for name, values in self.recent.items()}
            self.recent.clear()
            self.log.append({"step": self.step + 1, **means})
            rate = (time.time() - self.started) / 50
            self.started = time.time()
            logger.info("%s step %d: %s, %.2f s a step", self.folder.name, self.step + 1, {k: round(v, 4) for k, v in means.items()}, rate)
