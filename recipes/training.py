"""What is trained beside a user's MODEL: begun or gone on with, shown on the way, and kept when it ends, however it does."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..training.loop import Run, Watch
from ..training.settings import Progress, Settings

SHOWN_EVERY = 25  # steps
Show = Callable[[Progress, Tensor], None]
Weights = dict[str, Tensor]
History = dict[str, list[float]]  # the figures of each step
Result = tuple[Weights, History]


class TrainingError(ValueError):
    """Written for the user: why this run cannot go on."""


class Trainer(Protocol):
    """batch, loss: see training.loop. picture: clean latents (B, C, ...) of what it has come to, for people to look at."""

    def batch(self, step: int, generator: torch.Generator) -> Any: ...
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]: ...
    def picture(self) -> Tensor: ...


@dataclass(frozen=True)
class Audience:
    """watch: after each step; show: now and then, with pictures. Whatever they raise ends the run."""

    watch: Watch = lambda progress: None
    show: Show | None = None


NOBODY = Audience()


def begun(network: nn.Module, work: Settings, folder: Path | None) -> Run:
    """A run, or what is kept of it in `folder`."""
    run = Run(network, work, folder)
    if run.step > work.steps:
        raise TrainingError(
            f"This was trained for {run.step} steps already, and steps says {work.steps}: ask for as many or more, or take another seed."
        )
    return run


def finished(
    run: Run, trainer: Trainer, around: Callable[[], AbstractContextManager], made: Callable[[Weights], Weights], file: Path | None,
    audience: Audience, keep: Callable[[Weights, Path], None] = save_file,
) -> Result:  # fmt: skip
    """Does the steps that are left. around: see Run.go. made: what the host reads, of the averaged weights; `keep` writes it to `file` when
    the run ends, however it does."""

    def watched(progress: Progress) -> None:
        audience.watch(progress)
        if audience.show is not None and (progress.step % SHOWN_EVERY == 0 or progress.step == progress.steps):
            with torch.no_grad():
                audience.show(progress, trainer.picture())

    try:
        run.go(trainer.batch, trainer.loss, watched, around)
    except torch.OutOfMemoryError:
        raise TrainingError(
            "There is too little memory for a step of this training: choose a smaller batch, or smaller pictures."
        ) from None
    finally:
        weights = made(run.average)
        if file is not None:
            keep(weights, file)
    return weights, run.history
