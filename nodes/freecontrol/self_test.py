"""FreeControl on a user's own checkpoint: does it follow, and what does it cost? With a report that can be sent to us."""

import json
import platform
from pathlib import Path

import comfy.model_management
import comfy.samplers
import comfyui_version
import folder_paths
import latent_preview
import torch
from comfy_api.latest import io, ui

from ...host.models import families
from ...playground.world import world
from ...recipes.freecontrol import self_test as recipe
from ...recipes.freecontrol.self_test import Sampling, Tested, Words
from ...recipes.freecontrol.steps import encode_text
from ..common import checks
from ..common.previews import outlined, sheet
from .from_image import remembered_basis
from .types import CATEGORY

FORMAT, VERSION = "freesteer_selftest", 1
PLAYGROUND = {"silhouette": 0.73, "edge": 0.56, "scribble": 0.69, "depth": 0.65}  # overlaps with the pack's own model, template "selftest"
PLAYGROUND_TIME = 1.45
WEAKER, SLOWER = 0.15, 1.25  # less overlap, times the ratio of times: what is worth a word


class SelfTest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerSelfTest",
            display_name="FreeControl Self-Test",
            category=CATEGORY,
            description=(
                "Tries FreeControl on your model: a shape as silhouette, edge, scribble and depth map, each drawn with and without it. "
                "Says how well the shape is followed and what it costs, and saves that as a JSON file that you can attach to a report, "
                "with the sheet."
            ),
            search_aliases=["freecontrol", "benchmark", "report", "measure", "test my checkpoint", "bug report"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model to try."),
                io.Clip.Input("clip", tooltip="Reads the prompts; take that of the model."),
                io.Vae.Input("vae", tooltip="Reads and makes pictures; take that of the model."),
                io.Latent.Input("latent", tooltip="An empty latent as you usually draw with: it gives the size."),
                io.String.Input(
                    "prompt", default="a red star on grass", multiline=True, tooltip="What is drawn: the shape, in a plain colour that its "
                    "ground has not, or it cannot be told from it.",
                ),
                io.Combo.Input(
                    "shape", options=list(world.SHAPES), default="star", tooltip="What the conditions show; the prompt names it.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip="Of the first condition's "
                    "noise; each further one has the next.",
                ),
                io.Int.Input("steps", default=25, min=1, max=10000, tooltip="As you usually draw."),
                io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="As you usually draw; 1 for models without CFG."),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="dpmpp_2m", tooltip="As you usually draw.",
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="As you usually draw.",
                ),
                io.String.Input("name", default="freesteer/selftest", tooltip="Of the report in the output folder; a number is added."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet", tooltip="A row for each condition: what it is, the picture without it and with it, each with the "
                    "outline that was asked for.",
                ),
                io.String.Output(display_name="report", tooltip="What the JSON file holds."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, clip, vae, latent, prompt, shape, seed, steps: int, cfg, sampler_name, scheduler, name) -> io.NodeOutput:
        checks.clip(clip)
        checks.vae(model, vae)
        samples = checks.latent(model, latent)[:1]
        samples = torch.zeros_like(samples[:, :, :1] if samples.ndim == 5 else samples)
        line = checks.prompts("prompt", prompt)[0]
        checks.choice("shape", shape, world.SHAPES)
        checks.number("steps", steps, 1, 10000)
        checks.number("cfg", cfg, 0, 100)
        name = checks.file_name(name)
        subject = f"a {shape}"
        made = remembered_basis(model, clip, samples, [subject], cfg)
        how = Sampling(seed, steps, cfg, sampler_name, scheduler)
        tested = recipe.run(
            model, vae, made.basis, samples, Words(*(encode_text(clip, text) for text in (line, "", subject))), shape, how,
            latent_preview.prepare_callback(model, steps),
        )  # fmt: skip
        found = figures(tested)
        report = {"words": words(found), **surroundings(model), "prompt": line, "shape": shape, **settings(samples, how), **found}
        text = json.dumps(report, indent=2)
        page = shown(tested)
        saved = save(name, text)
        told = "\n".join([*report["words"], saved])
        picture = ui.PreviewImage(page[None], cls=cls).as_dict()
        return io.NodeOutput(page[None], text, ui={**picture, **ui.PreviewText(told).as_dict()})


def surroundings(model) -> dict:
    """Where it ran."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "comfyui": comfyui_version.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "device": comfy.model_management.get_torch_device_name(model.load_device),
        "family": families.family_of(model).name,
        "dtype": str(model.model_dtype()),
    }


def settings(samples: torch.Tensor, how: Sampling) -> dict:
    cells = {"width": samples.shape[-1], "height": samples.shape[-2]}
    return {"cells": cells, "seed": how.seed, "steps": how.steps, "cfg": how.cfg, "sampler": how.sampler, "scheduler": how.scheduler}


def figures(tested: Tested) -> dict:
    plain, steered = tested.plain, tested.steered
    return {
        "overlap": {row.kind: round(row.overlap, 3) for row in tested.rows},
        "overlap_unsteered": {row.kind: round(row.plain_overlap, 3) for row in tested.rows},
        "seconds_unsteered": round(plain.seconds, 3),
        "time_ratio": round(steered.seconds / plain.seconds, 3),
        "memory_ratio": round(steered.bytes / plain.bytes, 3) if steered.bytes and plain.bytes else None,
    }


def words(found: dict) -> list[str]:
    """What the figures say, for people."""
    now, plain = found["overlap"], found["overlap_unsteered"]
    weak = [f"{kind} ({value:.2f} for {PLAYGROUND[kind]:.2f})" for kind, value in now.items() if value < PLAYGROUND[kind] - WEAKER]
    ratio, memory = found["time_ratio"], found["memory_ratio"]
    slower = "slower than" if ratio > SLOWER * PLAYGROUND_TIME else "much as"
    return [
        f"Overlap with the condition: {average(now):.2f}, without FreeControl {average(plain):.2f}; playground {average(PLAYGROUND):.2f}.",
        f"Weaker than on the playground: {', '.join(weak)}." if weak else "No condition is followed less than on the playground.",
        f"Sampling takes {ratio:.2f} times as long with it: {slower} on the playground ({PLAYGROUND_TIME:.2f}).",
        "Memory is measured on CUDA only." if memory is None else f"It holds {memory:.2f} times the memory.",
    ]


def average(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def shown(tested: Tested) -> torch.Tensor:
    """(H, W, 3)."""
    rows = []
    for row in tested.rows:
        wanted = row.wanted[None]
        pictures = [outlined(picture[None], wanted)[0] for picture in (row.plain, row.steered)]
        rows.append((f"{row.kind}: {row.plain_overlap:.2f} to {row.overlap:.2f}", [row.condition, *pictures]))
    return sheet(rows, ["condition", "without", "with FreeControl"])


def save(name: str, text: str) -> str:
    """Writes the report; says where it is."""
    try:
        folder, stem, counter, below, _ = folder_paths.get_save_image_path(name, folder_paths.get_output_directory())
        while (path := Path(folder) / f"{stem}_{counter:05}_.json").exists():
            counter += 1
        path.write_text(text)
    except OSError as error:
        raise checks.unwritable(name, error) from None
    return f"Saved as {below + '/' if below else ''}{path.name} in the output folder."


NODES = [SelfTest]
