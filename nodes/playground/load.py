"""The loader of our own small models."""

from comfy_api.latest import io

from ...playground.image import models as image
from ...playground.video_dit import models as video_dit
from ...playground.video_unet import models as video_unet
from ..common import checks

PICTURES = "pictures"
MODELS = {PICTURES: image, "clips: transformer": video_dit, "clips: U-Net": video_unet}


class LoadPlayground(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadPlayground",
            display_name="Load Playground Model",
            category="FreeSteer",
            description=(
                "A tiny text-to-image model that comes with FreeSteer: 128 x 128 pictures of one to three coloured shapes, such as 'a red "
                "star on grass', or clips in which they move: 'a red star goes left on grass'. It runs on any computer, and every stock "
                "node works on it. Use it to learn a node before you try it on your own checkpoint."
            ),
            search_aliases=["freesteer", "test model", "tiny model", "demo model", "toy model", "load checkpoint", "tiny video model"],
            inputs=[
                io.Combo.Input(
                    "model", options=list(MODELS), default=PICTURES, optional=True, tooltip="What it draws: pictures in a second; or clips "
                    "of 13 frames in some ten seconds, with a small transformer like Wan, or with a U-Net like AnimateDiff and SVD.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Draws 128 x 128 pixels best: use Empty Latent Image of that size, for clips Empty Clip Latent."),
                io.Clip.Output(tooltip="Knows some forty words, that of clips seventy: colours, shapes, left of, above, goes, grows..."),
                io.Vae.Output(tooltip="Turns latents into pictures and back."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: str = PICTURES) -> io.NodeOutput:
        checks.choice("model", model, tuple(MODELS))
        return io.NodeOutput(*MODELS[model].load())


NODES = [LoadPlayground]
