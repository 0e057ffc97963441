"""What one sampling run of a guided MODEL has come to so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..models.taps import Readable
from .guides import Guide, Session
from .sigma_range import SigmaRange


@dataclass(frozen=True)
class Held:
    """The last step, in units of its limit, and the noise (see `noise_to_signal`) at which it was taken."""

    guides: Sequence[Guide]
    noise: float
    step: Tensor

    def fits(self, guides: Sequence[Guide], shape: torch.Size) -> bool:
        return self.step.shape == shape and list(map(id, self.guides)) == list(map(id, guides))

    def distance(self, noise: float) -> float:
        """In powers of e."""
        return abs(math.log(max(noise, 1e-9) / max(self.noise, 1e-9)))


@dataclass
class Run:
    """One sampling run: its guides, and what they have come to so far. recompute: by the points that are read, whether a graph is
    made smaller at the cost of time. sigmas: the sampler's. ranges: of each guide, as it lies in this run."""

    guides: Sequence[Guide]
    sigmas: Sequence[float]
    ranges: dict[int, SigmaRange]
    sessions: dict[int, Session] = field(default_factory=dict)
    held: Held | None = None
    recompute: dict[tuple[Readable, ...], bool] = field(default_factory=dict)

    def active(self, sigma: float, model_sampling: Any) -> list[Guide]:
        return [guide for guide in self.guides if guide.strength > 0 and self.ranges[id(guide)].contains(sigma, model_sampling)]

    def start(self, guides: Sequence[Guide], model: ModelPatcher, x: Tensor, positive: list[dict[str, Any]]) -> list[Session]:
        """Sessions of the guides that had none yet."""
        fresh = {id(g): g.start(model, x, positive, self.ranges[id(g)]) for g in guides if id(g) not in self.sessions}
        self.sessions.update(fresh)
        return list(fresh.values())

    def forget(self, sessions: Sequence[Session]) -> None:
        """Sessions that have seen nothing yet: they start anew at the next step."""
        self.sessions = {key: one for key, one in self.sessions.items() if not any(one is other for other in sessions)}

    def correct(self, denoised: Tensor, guides: Sequence[Guide], sigma: float) -> Tensor:
        for guide in guides:
            denoised = self.sessions[id(guide)].correct(denoised, sigma)
        return denoised
