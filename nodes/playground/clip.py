"""A clip to try reconstruction with, drawn by the pack itself."""

import torch
from comfy_api.latest import io

from ...playground.rooms import clips
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY

MOST_FRAMES, MOST_SIDE = 120, 512


class DrawClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPlaygroundClip",
            display_name="Draw Clip (Playground)",
            category=CATEGORY,
            description=(
                "Draws a short clip of a still scene with a moving camera, with its depth and its true cameras, to try Reconstruct Splats "
                "From Video with when you have no video at hand."
            ),
            search_aliases=["test video", "playground", "ray tracing", "synthetic video", "sample clip"],
            inputs=[
                io.Combo.Input(
                    "kind", options=list(clips.KINDS), default="orbit", tooltip="How the camera moves, and through which scene.",
                ),
                io.Int.Input("frames", default=24, min=2, max=MOST_FRAMES, tooltip="More frames make the same way in smaller steps."),
                io.Int.Input("width", default=96, min=32, max=MOST_SIDE, tooltip="Of the frames, in pixels."),
                io.Int.Input("height", default=72, min=32, max=MOST_SIDE, tooltip="Of the frames, in pixels."),
                io.Boolean.Input(
                    "as_estimated", default=True, tooltip="On: depth as an estimator would give it, with another scale and offset in each "
                    "frame, noise and holes, and a camera whose exposure wanders. Off: exact.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip="Other paints, furniture and "
                    "noise for each.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The frames."),
                io.Image.Output(display_name="depth", tooltip="Far is bright: the distance of each pixel, divided by the largest."),
                CAMERA_PATH.Output(display_name="cameras", tooltip="The true cameras, for Evaluate Trajectory."),
                io.Float.Output(display_name="field_of_view", tooltip="Over the width, in degrees."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, kind, frames, width, height, as_estimated, seed) -> io.NodeOutput:
        checks.choice("kind", kind, tuple(clips.KINDS))
        frames = checks.whole("frames", frames, 2, MOST_FRAMES)
        width, height = checks.whole("width", width, 32, MOST_SIDE), checks.whole("height", height, 32, MOST_SIDE)
        seed = checks.whole("seed", seed, 0)
        with torch.inference_mode(False):
            clip = clips.draw(kind, frames, (height, width), seed % 2**31)
            pictures, depth = clips.corrupted(clip, seed % 2**31) if as_estimated else (clip.frames, clip.depth)
        shown = (depth / depth.max())[..., None].expand(-1, -1, -1, 3).contiguous()
        return io.NodeOutput(pictures, shown, clip.path, clips.FIELD_OF_VIEW)


NODES = [DrawClip]
