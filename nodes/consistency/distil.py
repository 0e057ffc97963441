"""A user's model distilled into a LoRA that draws in 1 to 4 steps (latent consistency, https://arxiv.org/abs/2310.04378)."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import comfy.utils
import torch
from comfy_api.latest import io
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...recipes.consistency import examples
from ...recipes.consistency.distil import DistillationSettings, distil
from ...recipes.consistency.examples import Examples
from ..common import checks
from ..common.training import audience, digest, lora_output, lora_outputs, run_folder
from .inputs import ALIASES, CATEGORY, MOST_PROMPTS, batch_input, pictures_of, rate_input, seed_input, steps_input

DEFAULTS = DistillationSettings()
OWN_FILE = "own_pictures.safetensors"


class DistilConsistencyLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerDistilConsistencyLora",
            display_name="Distil Consistency LoRA",
            category=CATEGORY,
            description=(
                "Trains a LoRA with which your own model draws in 1 to 4 steps, without guidance. Use it as an LCM-LoRA: Load LoRA, "
                "ModelSamplingDiscrete set to lcm, sampler lcm, scheduler sgm_uniform, cfg 1. Interrupted, it goes on from where it was "
                "when it is queued again."
            ),
            search_aliases=[*ALIASES, "train lora"],
            inputs=[
                io.Model.Input("model", tooltip="The model to distil, with its LoRAs; it is not changed itself."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.String.Input(
                    "prompts", multiline=True, default="", tooltip="What the pictures show, one prompt a line. The more of what you draw "
                    "is in here, the better it is drawn in a few steps. With pictures connected: one line for all, or one for each.",
                ),
                io.String.Input(
                    "negative", multiline=True, default="", tooltip="What guidance leads away from: it is built into the LoRA, and no "
                    "negative prompt has an effect afterwards.",
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="An empty latent of the size to train at, if the model is to draw its own pictures.",
                ),
                io.Image.Input("image", optional=True, tooltip="Pictures to learn from, in place of the model's own."),
                io.Vae.Input("vae", optional=True, tooltip="Encodes the pictures; without pictures it is not needed."),
                steps_input(DEFAULTS.steps, "sharper pictures in fewer steps"),
                io.Int.Input(
                    "rank", default=DEFAULTS.rank, min=1, max=256, tooltip="Size of the LoRA. Higher: one or two steps look better, and "
                    "the file is larger.",
                ),
                rate_input(DEFAULTS.learning_rate, "1e-4"),
                io.Float.Input(
                    "guidance", default=DEFAULTS.guidance, min=1.0, max=30.0, step=0.1, tooltip="The cfg that is built in. Higher: follows "
                    "the prompt more closely, with stronger colours.",
                ),
                seed_input(),
                batch_input(DEFAULTS.pictures),
                io.Int.Input(
                    "own_pictures", default=256, min=1, max=100000, advanced=True, tooltip="How many pictures the model draws first, to "
                    "learn from, if none are connected. More: the LoRA knows more of what the model can draw.",
                ),
            ],
            outputs=lora_outputs(),
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, prompts, negative, steps, rank, learning_rate, guidance, seed, batch, own_pictures, latent=None, image=None,
        vae=None,
    ) -> io.NodeOutput:  # fmt: skip
        checks.clip(clip)
        settings = DistillationSettings(
            checks.whole("steps", steps, 1), checks.whole("rank", rank, 1, 256), checks.number("learning_rate", learning_rate, 1e-7, 1),
            checks.whole("batch", batch, 1, 256), checks.number("guidance", guidance, 1, 30), seed=checks.whole("seed", seed, 0),
        )  # fmt: skip
        lines = checks.prompts("prompts", prompts, MOST_PROMPTS)
        if image is None:
            samples = _samples(model, latent)
            shown = tuple(samples.shape[1:]), checks.whole("own_pictures", own_pictures, 1)
            make = partial(_own, model, samples, own_pictures, settings)
        else:
            pictures = pictures_of(model, vae, image, lines)
            shown, make = digest(pictures), partial(_encoded, vae, pictures)
        encoded = [checks.encoded(model, clip, line) for line in [*lines, negative]]
        known = f"{encoded[0][0][0].float().std():.3g}"
        folder = run_folder("consistency", model, lines, negative, shown, known, asdict(replace(settings, steps=0)))
        learnt = make(encoded[:-1], encoded[-1], folder)
        return lora_output(distil(model, learnt, settings, folder, audience(model, settings.steps)))


def _samples(model, latent) -> Tensor:
    if latent is None:
        raise checks.InputError(
            "Neither latent nor image is connected: connect an Empty Latent Image of the size to train at, or pictures."
        )
    samples = checks.latent(model, latent)
    if samples.ndim != 4:
        raise checks.InputError("latent is a clip, and only models of pictures are distilled: connect such a model and its empty latent.")
    return samples[:1]


def _own(model, empty: Tensor, count: int, settings: DistillationSettings, positive: list, negative, folder: Path) -> Examples:
    """The model's own pictures, drawn once for a run and kept with it."""
    path = folder / OWN_FILE
    if path.exists():
        kept = load_file(path)
        return Examples(kept["latents"], kept["prompt"].tolist(), positive, negative)
    bar = comfy.utils.ProgressBar(count)
    drawn = examples.own(model, positive, negative, empty, count, settings.guidance, settings.seed, bar.update_absolute)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": drawn.latents.contiguous(), "prompt": torch.tensor(drawn.prompt)}, path)
    return drawn


def _encoded(vae, pictures: Tensor, positive: list, negative, folder: Path) -> Examples:
    latents = examples.encoded(vae, pictures, comfy.utils.ProgressBar(len(pictures)).update_absolute)
    return Examples(latents, range(len(positive)) if len(positive) > 1 else [0] * len(latents), positive, negative)


NODES = [DistilConsistencyLora]
