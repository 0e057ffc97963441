"""One adapter with which ready-made ControlNets fit a consistency model."""

from dataclasses import asdict, replace

import folder_paths
import torch
from comfy.controlnet import ControlBase
from comfy_api.latest import io

from ...core.consistency import adapter_file
from ...core.consistency.adapter_file import Adapter
from ...host.adapters.control_adapter import with_adapter
from ...recipes.consistency.adapter import AdapterSettings, train
from ...recipes.consistency.controlled import check_consistent, check_unet, own_weights
from ...training.curves import draw
from ..common import checks
from ..common.files import chosen_file, register_folder, save_new, stamp
from ..common.previews import to_tensor
from ..common.training import audience, digest, run_folder
from .inputs import ADAPTER, ALIASES, CATEGORY, batch_input, rate_input, seed_input, steps_input
from .material import material, name_input, prompts_input

DEFAULTS = AdapterSettings()
FOLDER = "freesteer_adapters"
MOST = 4  # ControlNets of one training
register_folder(FOLDER)


def _names(number: int) -> tuple[str, str]:
    return ("control_net", "condition") if number == 1 else (f"control_net_{number}", f"condition_{number}")


def _controls() -> list:
    inputs = []
    for number in range(1, MOST + 1):
        control, condition = _names(number)
        what = "A ready-made ControlNet of this model; it is not changed itself."
        inputs += [
            io.ControlNet.Input(control, optional=number > 1, tooltip=what),
            io.Image.Input(
                condition, optional=number > 1, tooltip=f"The condition of each picture for {control}, in the same order and size."
            ),
        ]
    return inputs


class TrainConsistencyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerTrainConsistencyAdapter",
            display_name="Train Consistency Adapter",
            category=CATEGORY,
            description=(
                "Trains one small adapter with which ControlNets made for an ordinary model fit its consistency model, also those of "
                "other kinds than it was trained with. Interrupted, it goes on from where it was when it is queued again."
            ),
            search_aliases=[*ALIASES, "controlnet adapter", "unified adapter", "train controlnet"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The consistency model: SD 1.5, SD 2 or SDXL with its LoRA, and ModelSamplingDiscrete set to lcm.",
                ),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Vae.Input("vae", tooltip="Encodes the pictures."),
                io.Image.Input("image", tooltip="Pictures to learn from. A few hundred are the least."),
                *_controls(),
                prompts_input(),
                steps_input(DEFAULTS.steps, "edges and colours come out cleaner"),
                io.Int.Input("rank", default=DEFAULTS.rank, min=1, max=128, tooltip="Size of the adapter. Higher: closer, and larger."),
                rate_input(DEFAULTS.learning_rate, "1e-4"),
                seed_input(),
                batch_input(DEFAULTS.pictures),
                io.String.Input(
                    "kinds", default="", tooltip="What the conditions are, such as 'canny, depth'. It is written into the file, for "
                    "whoever loads it.",
                ),
                name_input(FOLDER, "Load Consistency Adapter"),
            ],
            outputs=[
                ADAPTER.Output(display_name="adapter", tooltip="For Apply Consistency Adapter."),
                io.Custom("LOSS_MAP").Output(display_name="loss", tooltip="For Plot Loss Graph."),
                io.Image.Output(display_name="curves", tooltip="The loss over the steps."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, vae, image, prompts, steps, rank, learning_rate, seed, batch, kinds, name, **controls
    ) -> io.NodeOutput:  # fmt: skip
        checks.clip(clip)
        settings = AdapterSettings(
            checks.whole("steps", steps, 1), checks.whole("rank", rank, 1, 128), checks.number("learning_rate", learning_rate, 1e-7, 1),
            checks.whole("batch", batch, 1, 256), checks.whole("seed", seed, 0),
        )  # fmt: skip
        name = checks.file_name(name) if name else ""
        check_unet(model.model)
        check_consistent(model)
        given = _given(controls)
        taught = material(model, clip, vae, image, {kind: condition for kind, _, condition in given}, prompts)
        nets = [control for _, control, _ in given]
        known = [digest(torch.cat([weight.flatten()[:64].float() for weight in own_weights(control).values()])) for control in nets]
        folder = run_folder("adapter", model, taught.told(), known, asdict(replace(settings, steps=0)))
        adapter, history = train(model, nets, taught.pairs(vae), kinds, settings, folder, audience(model, settings.steps))
        if name:
            save_new(FOLDER, name, lambda path: adapter_file.save(path, adapter))
        return io.NodeOutput(adapter, {"loss": history["loss"]}, to_tensor(draw(history))[None])


def _given(controls: dict) -> list[tuple[str, ControlBase, object]]:
    """(name of the condition, ControlNet, condition) of those that are connected."""
    found = []
    for number in range(1, MOST + 1):
        control_name, condition_name = _names(number)
        control, condition = controls.get(control_name), controls.get(condition_name)
        if control is None and condition is None and number > 1:
            continue
        if not isinstance(control, ControlBase):
            raise checks.InputError(f"{control_name} is {checks.kind_of(control)}: connect Load ControlNet Model.")
        found.append((condition_name, control, condition))
    return found


class LoadConsistencyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadConsistencyAdapter",
            display_name="Load Consistency Adapter",
            category=CATEGORY,
            description=f"Takes an adapter from models/{FOLDER}. It fits ControlNets of the kind of model that it was trained with.",
            search_aliases=[*ALIASES, "open adapter"],
            inputs=[
                io.Combo.Input(
                    "file", options=folder_paths.get_filename_list(FOLDER),
                    tooltip=f"A file in models/{FOLDER} that Train Consistency Adapter wrote; press R after you have added one.",
                ),
            ],
            outputs=[
                ADAPTER.Output(display_name="adapter", tooltip="For Apply Consistency Adapter."),
                io.String.Output(display_name="about", tooltip="The model and the conditions that it was trained with."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return stamp(FOLDER, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        adapter = adapter_file.load(chosen_file(FOLDER, file))
        return io.NodeOutput(adapter, f"{adapter.family}: {adapter.kinds or 'conditions not told'}")


class ApplyConsistencyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerApplyConsistencyAdapter",
            display_name="Apply Consistency Adapter",
            category=CATEGORY,
            description=(
                "Makes a ControlNet of an ordinary model fit a consistency model, which draws in 1 to 8 steps. It goes between Load "
                "ControlNet Model and Apply ControlNet, once for each ControlNet."
            ),
            search_aliases=[*ALIASES, "controlnet adapter"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A ControlNet of the model that the adapter is for; it is not changed itself."),
                ADAPTER.Input("adapter", tooltip="From Train or Load Consistency Adapter."),
                io.Float.Input(
                    "strength", default=1.0, min=-10.0, max=10.0, step=0.05, tooltip="How much of the adapter is added. 0: the ControlNet "
                    "as it is.",
                ),
            ],
            outputs=[io.ControlNet.Output(tooltip="For Apply ControlNet, with any of its settings.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, control_net, adapter: Adapter, strength) -> io.NodeOutput:
        if not isinstance(control_net, ControlBase):
            raise checks.InputError(f"control_net is {checks.kind_of(control_net)}, not a ControlNet: connect Load ControlNet Model.")
        checks.number("strength", strength, -10, 10)
        return io.NodeOutput(with_adapter(control_net, adapter.weights, strength))


NODES = [TrainConsistencyAdapter, LoadConsistencyAdapter, ApplyConsistencyAdapter]
