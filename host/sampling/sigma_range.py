"""When a step is guided: a part of the noise schedule, named in percent as everywhere in ComfyUI, decided by sigma.

A call counter would be wrong: heun evaluates the model twice a step, dpmpp_sde at sigmas that are not in the schedule.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

WHOLE = 0.05  # of sampling: a run that begins earlier than this counts as a whole one, whatever its scheduler


@dataclass(frozen=True)
class SigmaInterval:
    """All sigmas with low <= sigma <= high."""

    high: float
    low: float

    def contains(self, sigma: float | Tensor) -> bool:
        """`sigma` may be a number or the host's (rows,) tensor, in which all rows are equal."""
        value = float(sigma.max()) if isinstance(sigma, Tensor) else float(sigma)
        tolerance = 1e-5 * value  # the host stores sigmas as float32
        return self.low - tolerance <= value <= self.high + tolerance


@dataclass(frozen=True)
class SigmaRange:
    """A part of sampling: 0 is its noisy start, 1 its clean end.

    0 takes in everything above (a schedule may start higher than the model's own), 1 everything down to sigma 0.
    """

    start_percent: float = 0.0
    end_percent: float = 1.0

    def resolve(self, model_sampling: Any) -> SigmaInterval:
        """The range in sigmas, by the `model_sampling` of a model of the host."""
        high = float("inf") if self.start_percent <= 0 else float(model_sampling.percent_to_sigma(self.start_percent))
        low = 0.0 if self.end_percent >= 1 else float(model_sampling.percent_to_sigma(self.end_percent))
        return SigmaInterval(high, low)

    def of_run(self, noise: Tensor, sigmas: Tensor, model_sampling: Any) -> "SigmaRange":
        """The same shares of a run that begins late, as img2img does. One without noise goes on with what another sampler has left over."""
        begun = percent_at(float(sigmas[0]), model_sampling)
        if begun < WHOLE or not noise.any():
            return self
        start = begun + self.start_percent * (1 - begun) if self.start_percent > 0 else 0.0
        return SigmaRange(start, 1 - (1 - self.end_percent) * (1 - begun))

    def contains(self, sigma: float | Tensor, model_sampling: Any) -> bool:
        return self.resolve(model_sampling).contains(sigma)


def percent_at(sigma: float, model_sampling: Any) -> float:
    """How much of sampling is over at a noise level: the inverse of the host's percent_to_sigma, which only falls."""
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if model_sampling.percent_to_sigma(middle) > sigma else (low, middle)
    return low
