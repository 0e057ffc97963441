"""An empty clip for any video model."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ...host.models.frames import pictures_per_latent
from ..common import checks

MOST_SIDE, MOST_FRAMES, MOST_CLIPS = 16384, 4096, 64


class EmptyClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerEmptyClip",
            display_name="Empty Clip Latent",
            category="FreeSteer",
            description=(
                "An empty clip in the form that the connected model wants, so that one workflow fits every video model: with an axis of "
                "time (Wan, LTX, Hunyuan Video), or with the frames as a batch (SVD, AnimateDiff)."
            ),
            search_aliases=["empty video", "empty latent", "video latent", "animatediff", "wan", "latent"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will draw the clip."),
                io.Int.Input("width", default=128, min=16, max=MOST_SIDE, step=8, tooltip="Of the frames, in pixels."),
                io.Int.Input("height", default=128, min=16, max=MOST_SIDE, step=8, tooltip="Of the frames, in pixels."),
                io.Int.Input(
                    "length", default=13, min=1, max=MOST_FRAMES, tooltip="How many frames. Wan and Hunyuan Video take one more than a "
                    "multiple of 4, LTX of 8.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=MOST_CLIPS, tooltip="How many clips."),
            ],
            outputs=[io.Latent.Output(tooltip="For the sampler.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, width, height, length, batch_size) -> io.NodeOutput:
        latent_format = model.get_model_object("latent_format")
        cell = getattr(latent_format, "spacial_downscale_ratio", 8)
        rows, columns = (
            _cells(name, checks.whole(name, side, cell, MOST_SIDE), cell) for name, side in (("height", height), ("width", width))
        )
        length, clips = checks.whole("length", length, 1, MOST_FRAMES), checks.whole("batch_size", batch_size, 1, MOST_CLIPS)
        if latent_format.latent_dimensions == 3:
            pictures = pictures_per_latent(latent_format)
            if (length - 1) % pictures:
                below = length - 1 - (length - 1) % pictures + 1
                raise checks.InputError(
                    f"length is {length}, where this model takes {below} or {below + pictures} frames: choose one of these."
                )
            shape = (clips, latent_format.latent_channels, (length - 1) // pictures + 1, rows, columns)
        elif latent_format.latent_dimensions == 2:
            shape = (clips * length, latent_format.latent_channels, rows, columns)
        else:
            raise checks.InputError("model draws no pictures: connect a model of videos or of pictures.")
        return io.NodeOutput({"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())})


def _cells(name: str, pixels: int, cell: int) -> int:
    if pixels % cell:
        raise checks.InputError(f"{name} is {pixels}, where this model's latents have cells of {cell} pixels: choose a multiple of that.")
    return pixels // cell


NODES = [EmptyClip]
