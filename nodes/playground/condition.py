"""Conditions to try FreeControl with, drawn by the pack itself."""

import torch
from comfy_api.latest import io

from ...playground.world import conditions, world
from ...playground.world import motion as clip_world
from ..common import checks
from ..freecontrol.types import CATEGORY

ANY = "any"
EACH = "each in turn"
STILL = "each another"
MOST_PICTURES = 64
MOTIONS = (STILL, ANY, *clip_world.MOTIONS)
CLIPS_TO_CHOOSE_FROM = 300  # every motion is among them


class DrawCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPlaygroundCondition",
            display_name="Draw Condition (Playground)",
            category=CATEGORY,
            description=(
                "Draws condition pictures to try FreeControl with when you have none: one shape somewhere on 128 x 128 pixels, or a clip "
                "in which it moves."
            ),
            search_aliases=["freecontrol", "playground", "silhouette", "edge map", "scribble", "depth map", "test image"],
            inputs=[
                io.Combo.Input(
                    "kind", options=[*conditions.KINDS, EACH], tooltip="Silhouette: a filled light shape. Edge: its outline. Scribble: an "
                    "outline by a quick hand. Depth: nearer is lighter. Each in turn: a batch with all of these.",
                ),
                io.Combo.Input("shape", options=[ANY, *world.SHAPES], default="star", tooltip="What is drawn; any: each time another."),
                io.Int.Input("batch_size", default=1, min=1, max=MOST_PICTURES, tooltip="How many pictures; place, size and turn differ."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip="Where the shapes lie. The "
                    "same seed draws the same shapes in every kind.",
                ),
                io.Combo.Input(
                    "motion", options=list(MOTIONS), default=STILL, optional=True, tooltip="Each another: the pictures have "
                    "nothing to do with each other. Else they are the frames of a clip in which one shape moves so.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The condition, for Structure From Image."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where the shape is, for Structure From Image or Condition Overlap; of a scribble, what "
                    "was meant.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, kind: str, shape: str, batch_size: int, seed: int, motion: str = STILL) -> io.NodeOutput:
        checks.choice("kind", kind, (*conditions.KINDS, EACH))
        checks.choice("shape", shape, (ANY, *world.SHAPES))
        checks.number("batch_size", batch_size, 1, MOST_PICTURES)
        checks.choice("motion", motion, MOTIONS)
        generator = torch.Generator().manual_seed(seed)
        scenes = world.sample_scenes(batch_size, generator, (1.0, 0.0, 0.0)) if motion == STILL else moving(motion, batch_size, generator)
        if shape != ANY:
            scenes.shape[:] = world.SHAPES.index(shape)
        masks = world.render(scenes)[1][:, 0]
        kinds = conditions.KINDS if kind == EACH else (kind,)
        images = [conditions.condition(kinds[i % len(kinds)], mask[None], generator) for i, mask in enumerate(masks)]
        return io.NodeOutput(torch.cat(images).movedim(1, -1), masks)


def moving(name: str, frames: int, generator: torch.Generator) -> world.Scenes:
    """The frames of a clip of one shape that moves so."""
    clips = clip_world.sample_clips(CLIPS_TO_CHOOSE_FROM, generator, frames, (1.0, 0.0))
    fitting = (clips.motion[:, 0] == clip_world.MOTIONS.index(name)).nonzero() if name != ANY else torch.zeros(1, 1).long()
    first = int(fitting[0, 0])
    return clips[first : first + 1].scenes


NODES = [DrawCondition]
