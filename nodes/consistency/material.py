"""What ControlNets and their adapters are trained on: pictures, their conditions, and prompts."""

from dataclasses import dataclass
from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ...recipes.consistency import examples
from ...recipes.consistency.controlled import Pairs
from ..common import checks
from ..common.training import digest
from .inputs import MOST_PROMPTS, pictures_of


@dataclass(frozen=True)
class Material:
    """pictures: (N, H, W, 3); hints: as many for each kind of condition; lines: prompts, and encoded: one for all pictures, or one for
    each."""

    lines: list[str]
    positive: list[Any]
    pictures: Tensor
    hints: list[Tensor]

    def told(self) -> tuple[Any, ...]:
        """What a run is known by."""
        digests = [digest(each) for each in (self.pictures, *self.hints)]
        return (self.lines, digests, f"{self.positive[0][0][0].float().std():.3g}")

    def pairs(self, vae) -> list[Pairs]:
        """Of each kind of condition."""
        latents = examples.encoded(vae, self.pictures, comfy.utils.ProgressBar(len(self.pictures)).update_absolute)
        numbers = range(len(self.lines)) if len(self.lines) > 1 else [0] * len(latents)
        return [Pairs(latents, hint.movedim(-1, 1), numbers, self.positive) for hint in self.hints]


def prompts_input():
    return io.String.Input("prompts", multiline=True, default="", tooltip="One line for all pictures, or one for each.")


def name_input(folder: str, loader: str):
    return io.String.Input(
        "name", default="", tooltip=f"Name of a file in models/{folder}, for {loader}; a number is added. Empty: it is only kept with the "
        "run, in output/freesteer_training.",
    )  # fmt: skip


def material(model, clip, vae, image, conditions: dict[str, Any], prompts: str) -> Material:
    """conditions: by the names of their inputs."""
    lines = checks.prompts("prompts", prompts, MOST_PROMPTS)
    pictures = pictures_of(model, vae, image, lines)
    hints = [_hints(name, condition, pictures) for name, condition in conditions.items()]
    return Material(lines, [checks.encoded(model, clip, line) for line in lines], pictures, hints)


def _hints(name: str, condition, pictures: Tensor) -> Tensor:
    hints = checks.image(name, condition)
    if hints.shape != pictures.shape:
        raise checks.InputError(
            f"{name} has {len(hints)} pictures of {hints.shape[2]} x {hints.shape[1]}, and image {len(pictures)} of "
            f"{pictures.shape[2]} x {pictures.shape[1]}: connect as many of the same size."
        )
    return hints
