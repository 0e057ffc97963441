"""A ControlNet trained for a user's model, from pairs of pictures and conditions."""

from dataclasses import asdict, replace
from pathlib import Path

import comfy.controlnet
from comfy_api.latest import io
from safetensors.torch import save_file
from torch import Tensor

from ...recipes.consistency.control import STRATEGIES, ControlSettings, train
from ...recipes.consistency.controlled import check_consistent, check_unet
from ...training.curves import draw
from ..common import checks
from ..common.files import save_new
from ..common.previews import to_tensor
from ..common.training import audience, run_folder
from .inputs import ALIASES, CATEGORY, batch_input, rate_input, seed_input, steps_input
from .material import material, name_input, prompts_input

DEFAULTS = ControlSettings()
FOLDER = "controlnet"


class TrainControlNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerTrainControlNet",
            display_name="Train ControlNet",
            category=CATEGORY,
            description=(
                "Trains a ControlNet for your model from pictures and their conditions: edges, depth, scribbles, or whatever you can make "
                "of a picture. Interrupted, it goes on from where it was when it is queued again."
            ),
            search_aliases=[*ALIASES, "train controlnet", "control net", "finetune controlnet"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to control, SD 1.5, SD 2 or SDXL; it is not changed itself. For the consistency strategy: "
                    "with its consistency LoRA, and ModelSamplingDiscrete set to lcm.",
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Encodes the pictures."),
                io.Image.Input("image", tooltip="Pictures to learn from. A few hundred are the least; thousands are better."),
                io.Image.Input("condition", tooltip="The condition of each picture, in the same order and of the same size."),
                prompts_input(),
                io.Combo.Input(
                    "strategy", options=list(STRATEGIES), default=DEFAULTS.strategy, tooltip="Noise: an ordinary ControlNet, for many "
                    "steps. Consistency: for a consistency model, made for 1 to 8 steps.",
                ),
                steps_input(DEFAULTS.steps, "the condition is followed more closely"),
                rate_input(DEFAULTS.learning_rate, "1e-5"),
                seed_input(),
                batch_input(DEFAULTS.pictures),
                name_input(FOLDER, "Load ControlNet Model"),
            ],
            outputs=[
                io.ControlNet.Output(tooltip="For Apply ControlNet."),
                io.Custom("LOSS_MAP").Output(display_name="loss", tooltip="For Plot Loss Graph."),
                io.Image.Output(display_name="curves", tooltip="The loss over the steps."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, vae, image, condition, prompts, strategy, steps, learning_rate, seed, name, batch
    ) -> io.NodeOutput:  # fmt: skip
        checks.clip(clip)
        settings = ControlSettings(
            checks.choice("strategy", strategy, STRATEGIES), checks.whole("steps", steps, 1),
            checks.number("learning_rate", learning_rate, 1e-7, 1), checks.whole("batch", batch, 1, 256), checks.whole("seed", seed, 0),
        )  # fmt: skip
        name = checks.file_name(name) if name else ""
        check_unet(model.model)
        if strategy == "consistency":
            check_consistent(model)
        taught = material(model, clip, vae, image, {"condition": condition}, prompts)
        folder = run_folder("control", model, taught.told(), asdict(replace(settings, steps=0)))
        weights, history = train(model, taught.pairs(vae)[0], settings, folder, audience(model, settings.steps))
        if name:
            save_new(FOLDER, name, lambda path: _save(weights, path))
        control = comfy.controlnet.load_controlnet_state_dict(dict(weights))
        return io.NodeOutput(control, {"loss": history["loss"]}, to_tensor(draw(history))[None])


def _save(weights: dict[str, Tensor], path: Path) -> None:
    unfinished = path.with_name(path.name + ".part")
    try:
        save_file(weights, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


NODES = [TrainControlNet]
