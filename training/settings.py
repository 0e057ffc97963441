"""How a run is done, and how far it has come."""

import sys
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Settings:
    steps: int
    learning_rate: float
    seed: int = 0
    warm_up: int = 150  # steps until the learning rate is reached
    decay: float = 1 / 3  # the last share of the steps, in which it falls to 0
    ema: float = 0.999  # decay of the averaged weights, reached after some time
    clip: float = 1.0  # longest gradient (L2) that a step follows
    weight_decay: float = 0.01
    muon: bool = False  # steps of matrices are made orthogonal, which takes fewer of them
    bfloat16: bool = False  # forward pass in mixed precision, on a processor that is fast at it
    save_every: int = 250  # steps
    record: bool = True  # on a GPU, as what is trained does nothing but its own work there (recording.py)

    def learning_rate_at(self, step: int) -> float:
        """Up over `warm_up` steps, down over the last `decay`. Depends on nothing but the step, so that a run can be resumed with
        another length."""
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, (self.steps - step) / (self.decay * self.steps))


def seed_of(seed: int, step: int) -> int:
    """The seed of one step's random numbers, below 2**30: pictures to measure with are drawn from seeds above."""
    return (seed * 1_000_003 + step) % 2**30


@dataclass(frozen=True)
class Progress:
    step: int  # steps done
    steps: int
    figures: dict[str, float]  # of this step; "loss" among them
    seconds_left: float

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"step {self.step} of {self.steps}: {figures}; {minutes} min {seconds:02d} s left"


@dataclass
class Line:
    """Shows progress as one line: rewritten after each step in a terminal, else (in a file) written every so many steps."""

    name: str
    stream: TextIO = sys.stderr
    every: int = 50

    def __call__(self, progress: Progress) -> None:
        last = progress.step == progress.steps
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[K{self.name} {progress}" + "\n" * last)
        elif last or progress.step % self.every == 0:
            self.stream.write(f"{self.name} {progress}\n")
        self.stream.flush()
