"""What nodes that train have in common: a folder for each run, and what a user sees meanwhile."""

import hashlib
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import latent_preview
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ...recipes.training import Audience, Result
from ...training.curves import draw
from ...training.settings import Progress
from .previews import to_tensor

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


def audience(model: ModelPatcher, steps: int) -> Audience:
    """A bar with pictures, side by side, and the place where an interrupt is heard."""
    bar = comfy.utils.ProgressBar(steps)
    previewer: Any = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def watch(progress: Progress) -> None:
        bar.update_absolute(progress.step, progress.steps)
        comfy.model_management.throw_exception_if_processing_interrupted()

    def show(progress: Progress, clean: Tensor) -> None:
        row = rearrange(clean, "b ... w -> 1 ... (b w)") if clean.ndim == 4 else clean
        bar.update_absolute(progress.step, progress.steps, previewer.decode_latent_to_preview_image("JPEG", row))

    return Audience(watch, None if previewer is None else show)


def lora_outputs() -> list[Any]:
    return [
        io.Custom("LORA_MODEL").Output(display_name="lora", tooltip="For Load LoRA Model and Save LoRA Weights."),
        io.Custom("LOSS_MAP").Output(display_name="loss", tooltip="For Plot Loss Graph."),
        io.Image.Output(display_name="curves", tooltip="The losses over the steps."),
        io.Int.Output(display_name="steps", tooltip="Steps done, for Save LoRA Weights."),
    ]


def lora_output(result: Result) -> io.NodeOutput:
    """For `lora_outputs`."""
    lora, history = result
    return io.NodeOutput(lora, {"loss": history["loss"]}, to_tensor(draw(history))[None], len(history["loss"]))
