"""The loader of our own small model."""

from comfy_api.latest import io

from ...playground.image import models


class LoadPlayground(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadPlayground",
            display_name="Load Playground Model",
            category="FreeSteer",
            description=(
                "A tiny text-to-image model that comes with FreeSteer: 128 x 128 pictures of one to three coloured shapes, such as 'a red "
                "star on grass'. It runs on any computer in seconds, and every stock node works on it. Use it to learn a node before you "
                "try it on your own checkpoint."
            ),
            search_aliases=["freesteer", "test model", "tiny model", "demo model", "toy model", "load checkpoint"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="Draws 128 x 128 pictures best; use an Empty Latent Image of 128 x 128."),
                io.Clip.Output(tooltip="Knows about forty words: colours, shapes, places, left of, above..."),
                io.Vae.Output(tooltip="Turns latents into pictures and back."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*models.load())


NODES = [LoadPlayground]
