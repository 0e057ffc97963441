"""One loop for all trainers: seeded, and resumable after being stopped at any time.

What a step draws at random depends on the run's seed and the step's number alone, and only states between two steps are
saved, each file in one move. So a run that was stopped and went on ends with the same bits as one that was not.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import curves
from .files import STATE, save_whole
from .optimisers import MuonAndAdamW, adamw
from .precision import mixed_precision
from .recording import Recorded, Work
from .settings import Progress, Settings, seed_of
from .signals import noted_signals

Batch = TypeVar("Batch")
Data = Callable[[int, torch.Generator], Batch]  # of a step, by its number and random numbers
Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]  # and figures to keep beside it
Watch = Callable[[Progress], None]


class RunError(Exception):
    """Why a run cannot go on, in words for whoever started it."""


class Run:
    """The training of one module: its optimiser, averaged weights and history. With a `folder`, it is saved there and
    goes on from there; only what of the module requires a gradient is trained."""

    def __init__(self, module: nn.Module, settings: Settings, folder: Path | None = None):
        self.module, self.settings = module, settings
        self.device = next(module.parameters()).device
        self.file = folder / STATE if folder is not None else None
        self.trained = [p for p in module.parameters() if p.requires_grad]
        kind = MuonAndAdamW if settings.muon else adamw
        self.optimiser: Any = kind(self.trained, settings, fused=self.device.type == "cuda")
        self.average = {name: (w.float() if w.is_floating_point() else w).clone() for name, w in module.state_dict().items()}
        self.step = 0  # steps done
        self.history: dict[str, list[float]] = {}  # the loss and other figures, one value a step
        self.between_steps = True
        self._next: tuple[int | None, Any] = None, None  # a step, and its batch
        if self.file is not None and self.file.exists():
            self._resume(self.file)

    def _resume(self, file: Path) -> None:
        state = torch.load(file, map_location=self.device, weights_only=True)
        if state["seed"] != self.settings.seed:
            raise RunError(f"{file} was begun with seed {state['seed']}, not {self.settings.seed}: name another folder for this run.")
        own = self.module.state_dict()
        if own.keys() != state["module"].keys():
            raise RunError(f"{file} is of another network: name another folder for this run.")
        with torch.no_grad():  # in place: the optimiser has these tensors, and some hosts' load_state_dict puts others there
            for name, weight in own.items():
                weight.copy_(state["module"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step, self.history = state["average"], state["step"], state["history"]

    def save(self) -> None:
        """The state, and beside it the curves as a picture."""
        if self.file is None:
            return
        state = {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "history": self.history,
            "seed": self.settings.seed,
        }
        save_whole(state, self.file)
        if self.history:
            curves.draw(self.history).save(self.file.with_name("curves.png"))

    def go(
        self,
        data: Data[Batch],
        loss: Loss[Batch],
        watch: Watch = lambda progress: None,
        around: Callable[[], AbstractContextManager] = nullcontext,
    ) -> dict[str, Tensor]:
        """Does the steps that are left; gives the averaged weights.

        `watch` is called after each step. Whatever it, `data` or `loss` raises ends the run, as do Ctrl-C and SIGTERM (as
        KeyboardInterrupt, after the step they fall into); the steps done until then are saved, and in `average`.
        `around` makes a context for the forward and backward pass of each step."""
        if torch.is_inference_mode_enabled():
            raise RuntimeError("Nothing can be trained in inference mode: wrap the training in torch.inference_mode(False).")
        work = partial(self._pass, loss, around)
        if self.device.type == "cuda" and self.settings.record:
            work = Recorded(work, self.trained)
        self._next = None, None
        first, started = self.step, time.monotonic()
        with torch.enable_grad(), noted_signals() as stops:
            try:
                while self.step < self.settings.steps:
                    figures = self._backward(data, work)
                    self._update(figures)
                    pace = (time.monotonic() - started) / (self.step - first)
                    watch(Progress(self.step, self.settings.steps, figures, (self.settings.steps - self.step) * pace))
                    if stops:
                        raise KeyboardInterrupt
                    if self.step % self.settings.save_every == 0:
                        self.save()
            finally:
                if self.between_steps:  # else an error fell into the update, and the state of the last save is the last good one
                    self.save()
        return self.average

    def _pass(self, loss: Loss[Batch], around: Callable[[], AbstractContextManager], batch: Batch) -> dict[str, Tensor]:
        """Forward and backward, which gives new gradients."""
        self.optimiser.zero_grad(set_to_none=True)
        with around():
            with mixed_precision(self.device.type, self.settings.bfloat16):
                value, extra = loss(batch)
            value.backward()
        return {name: figure.detach() for name, figure in {"loss": value, **extra}.items()}

    def _backward(self, data: Data[Batch], work: Work[Batch]) -> dict[str, float]:
        """Fills the gradients, clipped; gives the loss and its figures. An error leaves the module as it was."""
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        try:
            return self._gradients(data, work)
        except BaseException:
            with torch.no_grad():  # the running means of norms must not keep a step that was not done
                for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            raise

    def _gradients(self, data: Data[Batch], work: Work[Batch]) -> dict[str, float]:
        seed = seed_of(self.settings.seed, self.step)
        torch.manual_seed(seed)  # for what draws without asking for a generator, such as dropout
        found = work(self._take(data, self.step))
        if self.step + 1 < self.settings.steps:
            self._next = self.step + 1, self._made(data, self.step + 1)  # while a GPU is at work on this one
        found["length"] = nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        figures = dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))  # read from a GPU at once
        length = figures.pop("length")
        if not (math.isfinite(figures["loss"]) and math.isfinite(length)):
            raise RunError(
                f"In step {self.step + 1} the loss is {figures['loss']:.4g} and the length of its gradient {length:.4g}: the run "
                "stopped, and the steps before it are kept. Try a smaller learning rate."
            )
        return figures

    def _take(self, data: Data[Batch], step: int) -> Batch:
        """What the step before has made ready."""
        made_for, batch = self._next
        self._next = None, None
        return batch if made_for == step else self._made(data, step)

    def _made(self, data: Data[Batch], step: int) -> Batch:
        return data(step, torch.Generator(self.device).manual_seed(seed_of(self.settings.seed, step)))

    @torch.no_grad()
    def _update(self, figures: dict[str, float]) -> None:
        """One step of the optimiser, of the average and of the history."""
        self.between_steps = False
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate_at(self.step)
        self.optimiser.step()
        decay = min(self.settings.ema, (self.step + 1) / (self.step + 10))
        state = self.module.state_dict()
        numbers = [name for name, weight in state.items() if weight.is_floating_point()]
        averages, weights = [self.average[name] for name in numbers], [state[name].float() for name in numbers]
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for name in state.keys() - set(numbers):
            self.average[name].copy_(state[name])
        for name, figure in figures.items():
            self.history.setdefault(name, []).append(figure)
        self.step += 1
        self.between_steps = True
