"""Looking at FreeControl: what a structure is, how well a result keeps it, and conditions to try it with."""

import re

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...core.freecontrol.energy import repeat_to
from ...core.measures.masks import overlap
from ...playground.referee import referee
from ...playground.world import captions, world
from ..common import checks
from ..common.previews import captioned, outlined
from .previews import coordinate_sheets
from .types import CATEGORY, STRUCTURE, ModelStructure


class PreviewStructure(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPreviewStructure",
            display_name="Preview Structure",
            category=CATEGORY,
            description="Shows the layout that FreeControl will follow, as the model sees it. Look here when a result does not follow.",
            search_aliases=["freecontrol", "show structure", "pca", "features"],
            is_output_node=True,
            inputs=[STRUCTURE.Input("structure", tooltip="From Structure From Image.")],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="One colour for what the model takes as one part; a row for each layer, a column for "
                    "each noise level, and the mask. Where no shape can be seen, none can be followed.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, structure: ModelStructure) -> io.NodeOutput:
        sheets = coordinate_sheets(structure.structure)
        return io.NodeOutput(sheets, ui=ui.PreviewImage(sheets, cls=cls))


class Overlap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerOverlap",
            display_name="Condition Overlap",
            category=CATEGORY,
            description=(
                "Measures how well a result keeps the place and shape of its condition: the area that both cover, divided by the area that "
                "either covers. 1 is perfect, 0 is nowhere. Pictures of the playground are judged by what the prompt names; for others, "
                "connect a mask of the subject in the result."
            ),
            search_aliases=["freecontrol", "iou", "intersection over union", "measure", "score", "compare masks"],
            is_output_node=True,
            inputs=[
                io.Image.Input("result", tooltip="The pictures to judge."),
                io.Mask.Input("condition", tooltip="Where the subject should be: one mask for all pictures, or one for each."),
                io.String.Input(
                    "prompt", optional=True, default="", multiline=True, tooltip="Playground only: the prompt, as in 'a red star on "
                    "grass'. What has its first colour is looked for, of its shape if there is one. One line for all, or one "
                    "for each.",
                ),
                io.Mask.Input(
                    "result_mask", optional=True, tooltip="Where the subject is in the result, from a segmentation node. Takes the place "
                    "of the prompt.",
                ),
                io.Image.Input(
                    "unsteered", optional=True, tooltip="Playground only: the same pictures without FreeControl; their overlap is told "
                    "beside that of the result. Without a result_mask.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="overlap", tooltip="From 0 to 1, the mean over all pictures."),
                io.Image.Output(display_name="overlay", tooltip="The result with the outline of the condition drawn on it."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, result, condition, prompt="", result_mask=None, unsteered=None) -> io.NodeOutput:
        result = checks.image("result", result)
        count, size = len(result), (result.shape[1], result.shape[2])
        wanted = repeat_to(checks.mask("condition", condition, size, count), count)[:, 0] > 0.5
        if result_mask is not None:
            found = repeat_to(checks.mask("result_mask", result_mask, size, count, empty=True), count)[:, 0] > 0.5
        else:
            found = named_masks("result", result, prompt)
        overlaps = overlap(wanted, found)
        told = [f"overlap {value:.2f}" for value in overlaps.tolist()]
        text = f"Mean overlap of result and condition: {overlaps.mean():.2f}"
        unknown = [] if result_mask is not None else (~found.flatten(1).any(1)).nonzero()[:, 0].tolist()
        if unknown:
            told = ["not recognised" if i in unknown else words for i, words in enumerate(told)]
            text += f" (not recognised in {len(unknown)} of {count} pictures, which count as 0: where you see it, connect a result_mask)"
        if unsteered is not None and result_mask is None:
            plain = named_masks("unsteered", checks.image("unsteered", unsteered), prompt)
            if plain.shape != wanted.shape:
                raise checks.InputError(
                    f"unsteered has {len(plain)} pictures of {plain.shape[2]} x {plain.shape[1]}, result {count} of {size[1]} x {size[0]}: "
                    "connect pictures of the same run."
                )
            text += f", unsteered {overlap(wanted, plain).mean():.2f}"
        overlay = outlined(result, wanted)
        picture = captioned(overlay, told)
        shown = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(float(overlaps.mean()), overlay, ui=shown)


def named_masks(name: str, images: Tensor, prompt: str) -> Tensor:
    """Where playground pictures show what their prompts name first, (B, H, W) bool; nowhere if they do not.

    Steering bends shapes, so what has the colour will do, and of a shape alone the largest thing: the overlap tells its outline.
    """
    lines = [line for line in prompt.splitlines() if line.strip()]
    if not lines:
        raise checks.InputError("Condition Overlap needs a prompt (playground pictures) or a result_mask (any others): give one of them.")
    if len(lines) not in (1, len(images)):
        raise checks.InputError(f"prompt has {len(lines)} lines for {len(images)} pictures: write one for all, or one for each.")
    if images.shape[1] % 16 or images.shape[2] % 16:
        size = f"{images.shape[2]} x {images.shape[1]}"
        raise checks.InputError(f"{name} is {size}, which no playground picture is: connect a result_mask instead.")
    names = [first_object(line) for line in (lines * len(images) if len(lines) == 1 else lines)]
    pictures = referee.look(referee.load(), images.movedim(-1, 1).cpu())
    masks = []
    for picture, (colour, shape) in zip(pictures, names, strict=True):
        coloured = [thing for thing in picture.objects if colour in (None, thing.colour)]
        found = next((thing for thing in coloured if shape in (None, thing.shape)), coloured[0] if coloured else None)
        masks.append(torch.zeros(images.shape[1:3], dtype=torch.bool) if found is None else torch.from_numpy(found.mask))
    return torch.stack(masks).to(images.device)


def first_object(prompt: str) -> tuple[str | None, str | None]:
    """Colour and shape of the first thing that a prompt names."""
    words = re.findall(r"\w+", prompt.lower())
    at = next((i for i, word in enumerate(words) if word in (*world.SHAPES, captions.ANY_SHAPE)), None)
    colour = next((word for word in words[:at] if word in world.COLOURS), None)
    if at is None and colour is None:
        raise checks.InputError(f"prompt {prompt[:60]!r} names no colour or shape of the playground: change it, or connect a result_mask.")
    return colour, words[at] if at is not None and words[at] in world.SHAPES else None


NODES = [PreviewStructure, Overlap]
