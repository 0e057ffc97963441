"""FreeControl (https://arxiv.org/abs/2312.07536): the layout of a picture, on a MODEL."""

from comfy_api.latest import io

from ...core.freecontrol import line_art
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.guide import GuideSettings
from ...recipes.freecontrol.steps import ReadingSettings
from ..common import checks
from . import fits
from .types import BASIS, CATEGORY, STRUCTURE, ModelBasis, ModelStructure

CONDITION_OF = {"fill outlines": line_art.fill, "as they are": lambda image: image, "dark on light": lambda image: 1 - image}
LINES = tuple(CONDITION_OF)
MOST_LEVELS, MOST_COLOURINGS = 50, 32
FORMULAS = ("freesteer", "paper")
READING, GUIDE = ReadingSettings(), GuideSettings()  # what is offered at first
ALIASES = [
    "freecontrol", "controlnet", "control net", "canny", "depth", "scribble", "sketch", "pose", "openpose", "lineart", "line art",
    "silhouette", "segmentation", "edge", "hed", "structure", "layout", "t2i adapter", "training free",
]  # fmt: skip


def read(model, made: ModelBasis, vae, image, positive, mask, lines: str, settings: ReadingSettings) -> ModelStructure:
    """The recipe of Structure From Image, with inputs that have been checked."""
    structure = recipe.read_condition(model, made.basis, vae, CONDITION_OF[lines](image), made.size, positive, settings, mask)
    return ModelStructure(structure, made.family, made.prompts)


def check_condition(model, vae, image, mask, method: str, levels: int, lines: str):
    checks.vae(model, vae)
    checks.choice("method", method, recipe.METHODS)
    checks.choice("lines", lines, LINES)
    checks.number("levels", levels, 1, MOST_LEVELS)
    image = checks.image("image", image)
    if mask is not None:
        mask = checks.mask("mask", mask, (image.shape[1], image.shape[2]), len(image))
    return image, mask


def condition_input():
    return io.Image.Input(
        "image", tooltip="The condition: its layout comes into the result, stretched over the whole picture. Of a batch, each picture "
        "steers one picture of the result, in turn; where a clip is drawn, they are spread over its frames, so that things move with them.",
    )  # fmt: skip


def method_input(**options):
    return io.Combo.Input(
        "method", options=list(recipe.METHODS), default=READING.method, tooltip="How the picture is read. Noise: in a few seconds, and "
        "good for filled shapes. Inversion: takes about as long as making a picture, and follows lines better.", **options,
    )  # fmt: skip


def lines_input(**options):
    return io.Combo.Input(
        "lines", options=list(LINES), default=LINES[0], tooltip="What is done with line drawings. Fill outlines: what thin lines enclose "
        "is filled, which models follow best, and open strokes or stick figures to the smallest convex shape around them; other pictures "
        "stay as they are. Dark on light: the negative is read.", **options,
    )  # fmt: skip


def end_input(**options):
    return io.Float.Input(
        "end_percent", default=GUIDE.end, min=0.0, max=1.0, step=0.01, tooltip="When steering stops, as a part of sampling; of img2img, "
        "of what its denoise leaves. Earlier: finer details are the model's own, and it is quicker. Later: the layout is kept more "
        "strictly.", **options,
    )  # fmt: skip


def strength_input():
    return io.Float.Input(
        "strength", default=GUIDE.strength, min=0.0, max=100.0, step=0.1, tooltip="How strictly the picture follows the layout. 0: not at "
        "all. Too much shows in the colours. The same value does the same at any number of steps.",
    )  # fmt: skip


def appearance_input(**options):
    return io.Float.Input(
        "appearance", default=GUIDE.appearance, min=0.0, max=1.0, step=0.05, tooltip="How much the ground's colour and light stay those "
        "that prompt and seed give without steering. 0: those of the condition leak in a little, and it is quicker. 1: they stay.",
        **options,
    )  # fmt: skip


class StructureFromImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerStructure",
            display_name="Structure From Image",
            category=CATEGORY,
            description=(
                "Reads the layout of a picture with the model's own eyes: of a photo, a silhouette, an edge map, a scribble, a depth map, "
                "a rendering. It may have any size. A FreeControl node then draws other things in that layout."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that will draw the steered pictures."),
                BASIS.Input("basis", tooltip="How this model tells layout, from Extract Basis or Load Basis."),
                io.Vae.Input("vae", tooltip="Reads the picture into latents; take that of the model."),
                condition_input(),
                io.Conditioning.Input("positive", tooltip="What the condition shows, such as 'a dog' or 'a photo of a house'."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where the layout is followed; elsewhere only the subject is kept out. Without one: "
                    "everywhere. Also for several conditions in different parts of one picture.",
                ),
                method_input(),
                io.Int.Input(
                    "levels", default=READING.levels, min=1, max=MOST_LEVELS, tooltip="At how many noise levels the picture is read. 1: "
                    "once, for all of sampling. More: coarse shapes steer the early steps and fine ones the later.",
                ),
                lines_input(),
                io.Int.Input(
                    "colourings", default=READING.colourings, min=1, max=MOST_COLOURINGS, advanced=True, tooltip="In how many random pairs "
                    "of colours the picture is read by noise. More: less of its own colours come into the result. 1: as it is.",
                ),
            ],
            outputs=[STRUCTURE.Output(display_name="structure", tooltip="The layout, for FreeControl; Preview Structure shows it.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, basis: ModelBasis, vae, image, positive, method, levels, lines, colourings, mask=None) -> io.NodeOutput:
        fits.basis_of(model, basis)
        checks.conditioning("positive", positive)
        checks.number("colourings", colourings, 1, MOST_COLOURINGS)
        image, mask = check_condition(model, vae, image, mask, method, levels, lines)
        return io.NodeOutput(read(model, basis, vae, image, positive, mask, lines, ReadingSettings(method, levels, colourings)))


class FreeControl(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerFreeControl",
            display_name="FreeControl",
            category=CATEGORY,
            description=(
                "Makes a model draw in the layout of a condition, while the prompt decides everything else. Goes between the loader and "
                "any sampler; several may follow each other, each with its own condition or region."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model to steer; it is not changed itself."),
                STRUCTURE.Input("structure", tooltip="The layout to follow, from Structure From Image."),
                strength_input(),
                io.Float.Input(
                    "start_percent", default=GUIDE.start, min=0.0, max=1.0, step=0.01, tooltip="When steering starts, as a part of "
                    "sampling. 0: at once. Later leaves the coarse layout to the model.",
                ),
                end_input(),
                io.Float.Input(
                    "background", default=GUIDE.background, min=0.0, max=10.0, step=0.05, tooltip="How firmly the subject is kept out of "
                    "the places where the condition has none. 0: it may grow beyond the mask. Only matters with a mask.",
                ),
                appearance_input(),
                io.Int.Input(
                    "appearance_components", default=GUIDE.components, min=1, max=64, tooltip="How many parts of the picture keep their "
                    "own colours, in the paper's formula only. More: closer to the unsteered picture.",
                ),
                io.Combo.Input(
                    "formula", options=list(FORMULAS), default=FORMULAS[0], advanced=True, tooltip="FreeSteer: layout is told apart from "
                    "light and colour, which stay those of the unsteered picture. Paper: the energies of the published FreeControl, "
                    "followed by our step.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="Draws in the given layout, with any sampler, scheduler and number of steps.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, structure: ModelStructure, strength, start_percent, end_percent, background, appearance, appearance_components,
        formula,
    ) -> io.NodeOutput:  # fmt: skip
        points = fits.structure_of(model, structure)
        checks.number("strength", strength, 0, 1000)
        checks.percents(start_percent, end_percent)
        checks.number("background", background, 0, 1000)
        checks.number("appearance", appearance, 0, 1)
        checks.choice("formula", formula, FORMULAS)
        if formula == "paper":
            checks.number("appearance_components", appearance_components, 1, structure.structure.basis.components)
        paper = formula == "paper"
        settings = GuideSettings(strength, start_percent, end_percent, background, appearance, appearance_components, paper)
        return io.NodeOutput(recipe.guide(model, structure.structure, points, settings))


NODES = [StructureFromImage, FreeControl]
