"""Pictures of any size by windows, each told what a grid has at its place (https://arxiv.org/abs/2312.07330)."""

from comfy_api.latest import io

from ...core import windows
from ...core.large_image import interpolation
from ...host.sampling.windowed import Windowing
from ...recipes.large_image import grid as recipe
from ..common import checks
from .inputs import ALIASES, CATEGORY, GRID, checked_grid

MOST_TOGETHER = 64
WRAPS = {"none": (False, False), "left and right": (False, True), "top and bottom": (True, False), "both": (True, True)}


class GridGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerGridGuidance",
            display_name="Grid Guidance",
            category=CATEGORY,
            description=(
                "Makes a model draw pictures far larger than it knows, in windows that overlap, and tells each window what a grid has at "
                "its place, so that the picture changes smoothly from one prompt to the next. For any sampler. Memory is that of a few "
                "windows, whatever the picture's size."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A model of pictures; it is not changed itself."),
                GRID.Input("grid", tooltip="What is to be where, from Grid From Prompts. It is spread over the whole picture."),
                io.Int.Input(
                    "window", default=512, min=16, max=8192, step=8, tooltip="Side of a window in pixels: the size that the model knows, "
                    "such as 512 for SD 1.5, 1024 for SDXL and Flux, 128 for the playground. A smaller picture is drawn in one piece.",
                ),
                io.Int.Input(
                    "stride", default=256, min=8, max=8192, step=8, tooltip="Pixels from one window to the next. Smaller: neighbours agree "
                    "better, and it takes longer (a half of it: four times as long). At most the window.",
                ),
                io.Combo.Input(
                    "between", options=list(interpolation.WAYS), default=interpolation.WAYS[0], tooltip="How a prompt becomes the next one "
                    "between their cells. Slerp: they flow into each other. Linear: the same, weaker halfway. Nearest: each window has one "
                    "of them alone.",
                ),
                io.Combo.Input(
                    "blending", options=list(windows.BLENDINGS), default=windows.BLENDINGS[0], tooltip="What counts where windows overlap. "
                    "Gaussian: their middles more than their rims. Uniform: all alike, as in MultiDiffusion; softer.",
                ),
                io.Combo.Input(
                    "wraps", options=list(WRAPS), default="none", tooltip="Sides at which the picture goes on from the opposite one: left "
                    "and right for a panorama, both for a seamless texture.",
                ),
                io.Int.Input(
                    "together", default=0, min=0, max=MOST_TOGETHER, advanced=True, tooltip="Windows that are drawn at once. 0: as many as "
                    "fit into memory. The picture is the same.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The grid's prompts: connect it to the sampler."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, grid, window, stride, between, blending, wraps, together) -> io.NodeOutput:
        its = checked_grid(grid)
        checks.fits("grid", model, its.read())
        checks.choice("between", between, interpolation.WAYS)
        checks.choice("blending", blending, windows.BLENDINGS)
        checks.choice("wraps", wraps, tuple(WRAPS))
        pixels = _pixels(model)
        side, step = (_cells(name, value, pixels) for name, value in (("window", window), ("stride", stride)))
        if step > side:
            raise checks.InputError(f"stride is {stride}, more than the window of {window}: between windows nothing would be drawn.")
        windowing = Windowing((side, side), (step, step), WRAPS[wraps], blending, checks.whole("together", together, 0, MOST_TOGETHER))
        return io.NodeOutput(recipe.attach(model, windowing, between), its.conditioning())


def _pixels(model) -> int:
    """Of the side of a latent pixel."""
    return int(getattr(model.get_model_object("latent_format"), "spacial_downscale_ratio", 8))


def _cells(name: str, value: int, pixels: int) -> int:
    checks.whole(name, value, pixels)
    if value % pixels:
        raise checks.InputError(f"{name} is {value}: choose a multiple of {pixels} for this model.")
    return value // pixels


NODES = [GridGuidance]
