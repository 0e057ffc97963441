"""Making, saving and loading a basis: which features of a model tell the layout of its pictures."""

import folder_paths
from comfy_api.latest import io, ui

from ...core.freecontrol import bases_file
from ...core.freecontrol.bases_file import ModelBasis
from ...host.models import families
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.steps import BasisSettings, ReadingSettings
from ..common import checks
from ..common.files import chosen_file, register_folder, save_new, stamp
from . import fits
from .previews import SeedPictures, coordinate_sheets
from .types import BASIS, CATEGORY

FOLDER = "freesteer_bases"
MOST_SEEDS = 500
DEFAULTS = BasisSettings()


register_folder(FOLDER)


def make_basis(model, clip, samples, lines, negative, settings: BasisSettings):
    """A basis, the text of its first prompt, and its first seed picture as a latent."""
    positives = [checks.encoded(model, clip, line) for line in lines]
    seen = SeedPictures(model, settings.seed_images, settings.steps)
    basis = recipe.build_basis(
        model, positives, recipe.encode_text(clip, negative), samples, settings, seen, recipe.pictures_at_once(samples)
    )
    made = ModelBasis(basis.to("cpu"), families.family_of(model).name, tuple(lines), tuple(samples.shape[-2:]))
    return made, positives[0], model.model.process_latent_out(seen.first)


def cfg_input(**options):
    return io.Float.Input(
        "cfg", default=DEFAULTS.cfg, min=0.0, max=100.0, step=0.1, tooltip="How closely the seed pictures of the basis follow their "
        "prompts. Take about what you sample with; 1 for models without CFG, such as Flux.", **options,
    )  # fmt: skip


class ExtractBasis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerExtractBasis",
            display_name="Extract Basis",
            category=CATEGORY,
            description=(
                "Lets the model draw some pictures of your subject and finds out which of its features tell where the parts of such a "
                "picture are. Needed once for each model and kind of subject; save it and use it again. Nothing is trained."
            ),
            search_aliases=["freecontrol", "semantic basis", "pca", "principal components", "controlnet", "layout"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will draw the steered pictures. LoRAs on it count."),
                io.Clip.Input("clip", tooltip="Reads the prompts; take that of the model."),
                io.Latent.Input(
                    "latent", tooltip="A latent as large as the pictures you will make: layout is learnt at this size. What it shows does "
                    "not matter. For clips, one of a single frame is enough, and quicker.",
                ),
                io.String.Input(
                    "prompts",
                    default="a star",
                    multiline=True,
                    tooltip="What to draw, one prompt a line. Name the kind of thing that will be placed (a dog, a house), without the "
                    "details of one picture; several lines in different words make layout more independent of looks.",
                ),
                io.String.Input("negative", default="", multiline=True, tooltip="What the drawn pictures should not show. Usually empty."),
                io.Int.Input(
                    "seed_images", default=DEFAULTS.seed_images, min=1, max=MOST_SEEDS, tooltip="How many pictures are drawn. With fewer "
                    "than ten, layout is found less well; more than forty hardly help, and each costs its time.",
                ),
                io.Int.Input(
                    "steps", default=DEFAULTS.steps, min=1, max=200, tooltip="Sampling steps of each picture, and how many noise levels "
                    "are learnt. It need not be the number of steps you will sample with.",
                ),
                cfg_input(),
                io.Int.Input(
                    "components", default=DEFAULTS.components, min=1, max=1024, tooltip="How finely layout is told. Fewer: coarse places, "
                    "freer shapes. More: finer shapes, and more of the looks of a condition comes along.",
                ),
                io.Combo.Input(
                    "layers", options=list(families.CHOICES), default="default", tooltip="Where in the model layout is read. Coarse: the "
                    "place of whole parts. Fine: outlines. Default: what works best for this model.",
                ),
                io.Boolean.Input(
                    "shared", default=DEFAULTS.shared, tooltip="On: one set of components for all noise levels, a small file, steadier "
                    "shapes. Off: one set for each level, as in the paper.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False,
                    tooltip="Which pictures are drawn. The same seed gives the same basis.",
                ),
            ],
            outputs=[
                BASIS.Output(display_name="basis", tooltip="For Structure From Image and Save Basis; fits this model and its fine-tunes."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="How the model sees its first picture: one colour for what it takes as one part, a row for each layer, a "
                    "column for each noise level. Clear shapes mean a good basis.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, latent, prompts, negative, seed_images, steps: int, cfg, components, layers, shared, seed
    ) -> io.NodeOutput:
        checks.clip(clip)
        lines = checks.prompts("prompts", prompts)
        checks.number("seed_images", seed_images, 1, MOST_SEEDS)
        checks.number("steps", steps, 1, 200)
        checks.number("cfg", cfg, 0, 100)
        checks.choice("layers", layers, families.CHOICES)
        fits.components(model, layers, components)
        samples = checks.latent(model, latent)
        settings = BasisSettings(seed_images, steps, cfg, components, layers, shared, seed)
        made, positive, first = make_basis(model, clip, samples, lines, negative, settings)
        return io.NodeOutput(made, preview(model, made, first, positive))


def preview(model, made: ModelBasis, first, positive):
    structure = recipe.read_structure(model, made.basis, first, positive, ReadingSettings(levels=len(made.basis.sigmas)), draws=1)
    return coordinate_sheets(structure)


class SaveBasis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerSaveBasis",
            display_name="Save Basis",
            category=CATEGORY,
            description=(
                f"Keeps a basis in models/{FOLDER}, or where extra_model_paths.yaml has this folder, so that it need not be made again. "
                "An older file of the name stays."
            ),
            search_aliases=["freecontrol", "store basis", "export basis"],
            is_output_node=True,
            inputs=[
                BASIS.Input("basis", tooltip="From Extract Basis."),
                io.String.Input("name", default="basis", tooltip="Name of the file; a number is added. Folders as in 'sd15/people'."),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, basis: ModelBasis, name: str) -> io.NodeOutput:
        name = checks.file_name(name)
        saved = save_new(FOLDER, name, lambda path: bases_file.save(path, basis))
        return io.NodeOutput(ui=ui.PreviewText(f"Saved as {saved}"))


class LoadBasis(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadBasis",
            display_name="Load Basis",
            category=CATEGORY,
            description=f"Takes a basis from models/{FOLDER}. It steers the kind of model that it was made with.",
            search_aliases=["freecontrol", "open basis", "import basis"],
            inputs=[
                io.Combo.Input(
                    "file", options=folder_paths.get_filename_list(FOLDER),
                    tooltip=f"A file in models/{FOLDER} that Save Basis wrote; press R after you have added one.",
                ),
            ],
            outputs=[BASIS.Output(display_name="basis", tooltip="For Structure From Image, with the kind of model it was made with.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return stamp(FOLDER, file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(bases_file.load(chosen_file(FOLDER, file)))


NODES = [ExtractBasis, SaveBasis, LoadBasis]
