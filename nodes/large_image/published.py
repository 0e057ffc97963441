"""The published models of Large-Image-Diffusion, and grids of embeddings that were saved by research code."""

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ...core.large_image import embeddings_file
from ...core.large_image.embeddings_file import EmbeddingsError
from ...host.models import representation
from ...host.models.representation import Embedder, RepresentationError
from ...recipes.large_image.grid import Grid
from ..common import checks
from .inputs import ALIASES, CATEGORY, GRID, MOST_CELLS, checked_shape


class LoadRepresentation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadRepresentation",
            display_name="Load Large-Image-Diffusion",
            category=CATEGORY,
            description=(
                "A checkpoint of the authors of Large-Image-Diffusion (tissue or land from above), as MODEL and VAE for the stock nodes. "
                "It reads no text: what it draws comes from Grid From Embeddings."
            ),
            search_aliases=[*ALIASES, "pathology", "satellite", "naip", "hipt"],
            inputs=[
                io.Combo.Input(
                    "checkpoint", options=folder_paths.get_filename_list("checkpoints"), tooltip="last.ckpt of one of the four published "
                    "folders, in models/checkpoints.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For Grid Guidance, with windows of 256 pixels."),
                io.Vae.Output(display_name="VAE", tooltip="Decodes from the nearest of its 8192 words."),
                io.StyleModel.Output(display_name="style_model", tooltip="For Grid From Embeddings, or Apply Style Model."),
                io.Conditioning.Output(display_name="negative", tooltip="Nothing seen: for the sampler's negative."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, checkpoint) -> io.NodeOutput:
        path = Path(folder_paths.get_full_path_or_raise("checkpoints", checkpoint))
        try:
            model, vae, embedder = representation.load(path)
        except RepresentationError as error:
            raise checks.InputError(str(error)) from error
        nothing = [[embedder(torch.zeros(1, 1, embedder.seen)), {}]]
        return io.NodeOutput(model, vae, representation.style_model(embedder), nothing)


class GridFromEmbeddings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerGridFromEmbeddings",
            display_name="Grid From Embeddings",
            category=CATEGORY,
            description="What a research encoder saw at each place of a picture, from a file, for the models of Large-Image-Diffusion.",
            search_aliases=[*ALIASES, "hdf5", "features"],
            inputs=[
                io.StyleModel.Input("style_model", tooltip="From Load Large-Image-Diffusion."),
                io.Combo.Input(
                    "file", options=_files(), tooltip="An .h5, .npy or .safetensors file in ComfyUI's input folder, a vector for each "
                    "place: 384 numbers for HIPT, 768 for the others.",
                ),
                io.String.Input("entry", default="", tooltip="Which of the file's entries, such as feat_patch. Empty: the only one."),
                io.Int.Input("first", default=0, min=0, max=2**31 - 1, tooltip="The first vector of a list that is used."),
                io.Int.Input("rows", default=4, min=1, max=MOST_CELLS, tooltip="Places from top to bottom."),
                io.Int.Input("columns", default=4, min=1, max=MOST_CELLS, tooltip="Places from left to right."),
            ],
            outputs=[GRID.Output(display_name="grid", tooltip="For Grid Guidance.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, style_model, file, entry, first, rows, columns) -> io.NodeOutput:
        embedder = getattr(style_model, "model", None)
        if not isinstance(embedder, Embedder):
            raise checks.InputError(f"style_model is {checks.kind_of(style_model)}: connect that of Load Large-Image-Diffusion.")
        rows, columns = checked_shape(rows, columns)
        first = checks.whole("first", first, 0)
        path = Path(folder_paths.get_input_directory()) / checks.file_name(file)
        try:
            values = embeddings_file.read(path, entry)
        except EmbeddingsError as error:
            raise checks.InputError(str(error)) from error
        if values.shape[-1] != embedder.seen:
            raise checks.InputError(
                f"file has vectors of {values.shape[-1]} numbers, and the model reads {embedder.seen}: take its encoder's."
            )
        used = values.flatten(0, -2)[first : first + rows * columns]
        if len(used) < rows * columns:
            raise checks.InputError(
                f"file has {values[..., 0].numel()} vectors, too few for {rows} x {columns} from number {first}: choose fewer."
            )
        cells = tuple(tuple((one[None, None], {}) for one in row) for row in used.view(rows, columns, -1))
        numbers = torch.arange(first, first + len(used)).view(rows, columns).tolist()
        return io.NodeOutput(Grid(cells, tuple(tuple(map(str, row)) for row in numbers), embedder))


def _files() -> list[str]:
    folder = Path(folder_paths.get_input_directory())
    return sorted(path.name for path in folder.glob("*") if path.suffix.lower() in embeddings_file.ENDINGS) if folder.exists() else []


NODES = [LoadRepresentation, GridFromEmbeddings]
