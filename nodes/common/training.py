"""What nodes that train have in common: a folder for each run, and what a user sees meanwhile."""

import hashlib
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import latent_preview
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...training.settings import Progress

FOLDER = "freesteer_training"
KNOWN_BY = 64  # weights


def run_folder(kind: str, model: ModelPatcher, *told: Any) -> Path:
    """Where a run is kept: the same whenever the same is trained, so that a run goes on where it was, and no other does. A model is known
    by weights from all over it, as they are in its file, and by what is patched on them; `told`: all else that matters."""
    own = [(f"diffusion_model.{name}", weight) for name, weight in sorted(model.model.diffusion_model.named_parameters())]
    chosen = own[:: max(len(own) // KNOWN_BY, 1)]
    weights = [_beginning(model.backup[key].weight if key in model.backup else weight) for key, weight in chosen]
    patches = [
        (key, [(strength, *_weights(patch)) for strength, patch, *_ in each]) for key, each in sorted(model.patches.items(), key=str)
    ]
    name = hashlib.sha256(repr((*told, weights, patches)).encode()).hexdigest()[:12]
    return Path(folder_paths.get_output_directory()) / FOLDER / f"{kind}-{name}"


def digest(values: Tensor) -> str:
    """Of all numbers of a tensor."""
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def _beginning(weight: Tensor) -> str:
    return digest(weight.flatten()[:1024])


def _weights(patch: Any) -> list[str]:
    """Digests of the tensors in one of the host's weight patches."""
    parts = getattr(patch, "weights", patch)
    if isinstance(parts, Tensor):
        return [_beginning(parts)]
    return [one for part in parts for one in _weights(part)] if isinstance(parts, (list, tuple)) else []


class Seen:
    """A bar with pictures, and the place where an interrupt is heard."""

    def __init__(self, model: ModelPatcher, steps: int) -> None:
        self.bar = comfy.utils.ProgressBar(steps)
        self.previewer: Any = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def step(self, progress: Progress) -> None:
        self.bar.update_absolute(progress.step, progress.steps)
        comfy.model_management.throw_exception_if_processing_interrupted()

    def picture(self, progress: Progress, clean: Tensor) -> None:
        self.bar.update_absolute(progress.step, progress.steps, self.previewer.decode_latent_to_preview_image("JPEG", clean))
