"""What moves weights: AdamW, or Muon with AdamW beside it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .settings import Settings

LEAST = 32  # rows and columns of a matrix whose steps are made orthogonal


class MuonAndAdamW:
    """Muon for matrices (https://kellerjordan.github.io/posts/muon/), its steps as long as AdamW's (https://arxiv.org/abs/2502.16982),
    and AdamW for all else. Called as one optimiser is."""

    def __init__(self, trained: Sequence[Tensor], settings: Settings, **options: Any) -> None:
        matrices = [weight for weight in trained if weight.ndim == 2 and min(weight.shape) >= LEAST]
        others = [weight for weight in trained if not any(weight is matrix for matrix in matrices)]
        muon = torch.optim.Muon(matrices, settings.learning_rate, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw")
        self.both = (muon, adamw(others, settings, **options))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for one in self.both for group in one.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for one in self.both:
            one.zero_grad(set_to_none)

    def step(self) -> None:
        for one in self.both:
            one.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [one.state_dict() for one in self.both]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for one, state in zip(self.both, states, strict=True):
            one.load_state_dict(state)


def adamw(trained: Sequence[Tensor], settings: Settings, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(trained, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, **options)
