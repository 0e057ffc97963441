"""FreeControl in one node, for those who want a picture first and the parts later."""

import hashlib
from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from ...host.models import families
from ...host.models.memo import Memo, identity
from ...host.models.pictures import picture_size
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.steps import BasisSettings
from ..common import checks
from . import fits
from .basis import cfg_input, make_basis
from .previews import coordinate_sheets
from .structure import (
    ALIASES,
    GUIDE,
    READING,
    appearance_input,
    check_condition,
    condition_input,
    end_input,
    lines_input,
    method_input,
    read,
    strength_input,
)
from .types import CATEGORY, ModelBasis, ModelStructure

BASIS = BasisSettings()
bases, structures = Memo(), Memo()  # or every change of strength would make them again


class FreeControlFromImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerFreeControlFromImage",
            display_name="FreeControl From Image",
            category=CATEGORY,
            description=(
                "The layout of any picture (photo, silhouette, edge map, scribble, depth map, pose) for any model that FreeSteer knows, "
                "without a ControlNet. It goes between the loader and the sampler. The first run takes as long as making twenty pictures; "
                "later ones are quick."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model to steer; it is not changed itself."),
                io.Clip.Input("clip", tooltip="Reads the words for the subject; take that of the model."),
                io.Vae.Input("vae", tooltip="Reads the picture into latents; take that of the model."),
                condition_input(),
                io.String.Input(
                    "subject", default="a star", multiline=True, tooltip="What is placed, in a few general words, such as 'a dog'. The "
                    "prompt of the sampler then says which dog, and where it lives. Other words for it, one a line, make layout depend "
                    "less on looks; the condition is read with the first.",
                ),
                strength_input(),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where the layout is followed; elsewhere only the subject is kept out. Without one: "
                    "everywhere.",
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="Connect the empty latent of the sampler: layout is then learnt at that size, of "
                    "clips from single frames. Without it: at the size that the model usually draws, in the condition's proportions.",
                ),
                end_input(advanced=True),
                appearance_input(advanced=True),
                method_input(advanced=True),
                lines_input(advanced=True),
                cfg_input(advanced=True),
            ],
            outputs=[
                io.Model.Output(tooltip="Draws in the layout of the condition, with any sampler, scheduler and number of steps."),
                io.Image.Output(
                    display_name="preview", tooltip="How the model sees the condition: one colour for what it takes as one part. Where no "
                    "shape can be seen, none can be followed.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, vae, image, subject, strength, end_percent, appearance, method, lines, cfg, mask=None, latent=None
    ) -> io.NodeOutput:
        checks.clip(clip)
        subjects = checks.prompts("subject", subject)
        checks.number("strength", strength, 0, 1000)
        checks.percents(GUIDE.start, end_percent)
        checks.number("appearance", appearance, 0, 1)
        checks.number("cfg", cfg, 0, 100)
        image, mask = check_condition(model, vae, image, mask, method, READING.levels, lines)
        samples = recipe.empty_latent(model, usual_size(model, vae, image)) if latent is None else checks.latent(model, latent)
        samples = samples[:, :, :1] if samples.ndim == 5 else samples  # still pictures teach the layout of clips too
        made = remembered_basis(model, clip, samples, subjects, cfg)
        structure = remembered_structure(model, clip, made, vae, image, mask, method, lines)
        points = fits.structure_of(model, structure)
        m = recipe.guide(model, structure.structure, points, replace(GUIDE, strength=strength, end=end_percent, appearance=appearance))
        return io.NodeOutput(m, coordinate_sheets(structure.structure))


def usual_size(model, vae, image) -> tuple[int, int]:
    """Cells (h, w) of a picture as large as the model usually draws, with the proportions of the condition."""
    cell = vae.spacial_compression_encode()
    usual = families.family_of(model).side // cell
    height, width = picture_size(image.shape[1:3], (usual, usual), cell)
    return height // cell, width // cell


def remembered_basis(model, clip, samples, subjects: list[str], cfg: float) -> ModelBasis:
    owners, key = identity(model)
    reading = (clip.patcher.patches_uuid, clip.layer_idx, repr(clip.tokenizer_options))
    return bases.recall(
        [*owners, clip.cond_stage_model],
        (key, reading, tuple(subjects), tuple(samples.shape[1:]), cfg),
        lambda: make_basis(model, clip, samples, subjects, "", replace(BASIS, cfg=cfg))[0],
    )


def remembered_structure(model, clip, made: ModelBasis, vae, image, mask, method: str, lines: str) -> ModelStructure:
    owners, key = identity(model)
    content = tuple(None if tensor is None else (tuple(tensor.shape), hash_of(tensor)) for tensor in (image, mask))
    return structures.recall(
        [*owners, made, vae.first_stage_model],
        (key, content, method, lines),
        lambda: read(model, made, vae, image, recipe.encode_text(clip, made.prompts[0]), mask, lines, replace(READING, method=method)),
    )


def hash_of(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


NODES = [FreeControlFromImage]
