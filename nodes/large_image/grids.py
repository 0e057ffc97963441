"""Grids of meanings (https://arxiv.org/abs/2312.07330): from prompts, changed, and shown."""

import textwrap

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.large_image import interpolation
from ...recipes.large_image import edits, from_image
from ...recipes.large_image import grid as recipe
from ..common import checks
from ..common.previews import to_image, to_tensor
from .inputs import ALIASES, CATEGORY, GRID, MOST_CELLS, checked_grid, checked_shape, table

SHOWN = 160  # pixels of a cell's side


def between_input():
    return io.Combo.Input(
        "between", options=list(interpolation.WAYS), default=interpolation.WAYS[0], tooltip="How one prompt becomes another. Slerp: they "
        "flow into each other. Linear: the same, weaker halfway. Nearest: one of them alone.",
    )  # fmt: skip


class GridFromPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerGridFromPrompts",
            display_name="Grid From Prompts",
            category=CATEGORY,
            description="A table of prompts over a large picture: what is to be at each place. Grid Guidance lets one flow into the next.",
            search_aliases=ALIASES,
            inputs=[
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.String.Input(
                    "prompts", multiline=True, dynamic_prompts=False, default="a forest | a lake\na meadow | a village",
                    tooltip="What the picture shows at each place: a line for each row from top to bottom, | between cells from left to "
                    "right. All rows have as many cells.",
                ),
                io.String.Input(
                    "everywhere", default="", tooltip="Written after each prompt, such as the style. May stay empty.",
                ),
            ],
            outputs=[GRID.Output(display_name="grid", tooltip="For Grid Guidance.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip, prompts, everywhere) -> io.NodeOutput:
        checks.clip(clip)
        words = table(prompts)
        ending = everywhere.strip()
        texts = {cell: ", ".join(part for part in (cell, ending) if part) for row in words for cell in row}
        encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (*texts.values(), "")]
        if any(len(parts) > 1 for parts in encoded):
            raise checks.InputError("clip has a schedule of hooks, and a grid has one prompt a cell: use a CLIP without a schedule.")
        *cells_, (empty, _) = (tuple(parts[0]) for parts in encoded)
        same = dict(zip(texts, recipe.aligned(cells_, empty), strict=True))
        cells = tuple(tuple(same[cell] for cell in row) for row in words)
        return io.NodeOutput(recipe.Grid(cells, tuple(tuple(texts[cell] for cell in row) for row in words), empty=empty))


class GridFromImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerGridFromImage",
            display_name="Grid From Image",
            category=CATEGORY,
            description=(
                "What a picture shows at each place, as a vision encoder sees it. With Grid Guidance, its like is drawn in any size. For "
                "models that read pictures: unCLIP, SDXL and Stable Cascade by themselves, Flux with a style model (Redux)."
            ),
            search_aliases=[*ALIASES, "image variations", "redux", "unclip", "upscale"],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="Sees each part of the picture: the encoder that the model, or the style model, "
                                    "was made with."),
                io.Image.Input("image", tooltip="The picture whose like is drawn. Of several, the first."),
                io.Conditioning.Input("conditioning", tooltip="A prompt for all places, such as the style; may be an empty text, encoded."),
                io.Int.Input("rows", default=4, min=1, max=MOST_CELLS, tooltip="Parts from top to bottom. More: what is drawn keeps closer "
                             "to the picture's layout."),
                io.Int.Input("columns", default=4, min=1, max=MOST_CELLS, tooltip="Parts from left to right."),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="How much the picture counts. 0: the prompt "
                               "alone."),
                io.StyleModel.Input("style_model", optional=True, tooltip="For Flux: Redux, from Load Style Model. Not for unCLIP, SDXL "
                                    "and Stable Cascade."),
            ],
            outputs=[GRID.Output(display_name="grid", tooltip="For Grid Guidance.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip_vision, image, conditioning, rows, columns, strength, style_model=None) -> io.NodeOutput:
        if clip_vision is None:
            raise checks.InputError("clip_vision is missing: connect Load CLIP Vision, with the encoder that the model was made with.")
        picture = checks.image("image", image)[0]
        checks.conditioning("conditioning", conditioning)
        if len(conditioning) > 1:
            raise checks.InputError(f"conditioning has {len(conditioning)} prompts (Conditioning Combine): connect one for all places.")
        rows, columns = checked_shape(rows, columns)
        for name, count, pixels in (("rows", rows, len(picture)), ("columns", columns, picture.shape[1])):
            if count > pixels:
                raise checks.InputError(f"{name} is {count}, more than the picture's {pixels} pixels: choose fewer.")
        strength = checks.number("strength", strength, 0, 10)
        return io.NodeOutput(from_image.grid(clip_vision, picture, conditioning, (rows, columns), strength, style_model))


class ResizeGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerResizeGrid",
            display_name="Resize Grid",
            category=CATEGORY,
            description="The same grid with more cells, to paint on, or with fewer.",
            search_aliases=ALIASES,
            inputs=[
                GRID.Input("grid", tooltip="A grid with any number of cells."),
                io.Int.Input("rows", default=8, min=1, max=MOST_CELLS, tooltip="Cells from top to bottom. More: finer places for prompts."),
                io.Int.Input("columns", default=8, min=1, max=MOST_CELLS, tooltip="Cells from left to right."),
                between_input(),
            ],
            outputs=[GRID.Output(display_name="grid", tooltip="For Grid Guidance, or to be painted on.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, grid, rows, columns, between) -> io.NodeOutput:
        had = checked_grid(grid)
        rows, columns = checked_shape(rows, columns)
        return io.NodeOutput(edits.resized(had, rows, columns, checks.choice("between", between, interpolation.WAYS)))


class PaintGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPaintGrid",
            display_name="Paint Grid",
            category=CATEGORY,
            description="Another prompt, or another grid, where a mask is painted. Several may follow each other, one for each region.",
            search_aliases=ALIASES,
            inputs=[
                GRID.Input("grid", tooltip="What stays where nothing is painted."),
                GRID.Input("other", tooltip="What comes where the mask is, such as a grid of one prompt."),
                io.Mask.Input("mask", optional=True, tooltip="Where it comes. Half a mask: half of each. Without one: everywhere."),
                io.Float.Input("amount", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How much of the other comes, within the mask."),
                between_input(),
            ],
            outputs=[GRID.Output(display_name="grid", tooltip="With as many cells as the first grid.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, grid, other, amount, between, mask=None) -> io.NodeOutput:
        way = checks.choice("between", between, interpolation.WAYS)
        had, comes = checked_grid(grid), checked_grid(other, "other")
        if comes.read()[0][0].shape[-1] != had.read()[0][0].shape[-1] or comes.embedder is not had.embedder:
            raise checks.InputError("other is a grid of another text encoder: make both with the same CLIP.")
        had, comes = edits.of_one_length(had, comes)
        rows, columns = had.shape
        amounts = torch.full((rows, columns), checks.number("amount", amount, 0, 1))
        if mask is not None:
            amounts = amounts * _coverage(mask, rows, columns)
        return io.NodeOutput(edits.blended(had, edits.resized(comes, rows, columns, way), amounts, way))


def _coverage(mask: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, columns): of each cell, how much is painted. The mask is stretched over the picture."""
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        raise checks.InputError(f"mask has to be a MASK (pictures, height, width); what came is {checks.kind_of(mask)}.")
    if not torch.isfinite(mask).all():
        raise checks.InputError("mask has values that are not numbers (NaN or infinity): check the node before it.")
    first = mask.float().reshape(-1, 1, *mask.shape[-2:])[:1]
    return F.adaptive_avg_pool2d(first, (rows, columns))[0, 0].clamp(0, 1)


class PreviewGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPreviewGrid",
            display_name="Preview Grid",
            category=CATEGORY,
            description="A grid as a picture: cells with like colours stand for like prompts, which are written on them.",
            search_aliases=ALIASES,
            inputs=[GRID.Input("grid", tooltip="What is shown.")],
            outputs=[io.Image.Output(display_name="preview", tooltip="For Preview Image.")],
        )

    @classmethod
    def execute(cls, grid) -> io.NodeOutput:
        return io.NodeOutput(_drawn(checked_grid(grid))[None])


def _drawn(grid: recipe.Grid) -> Tensor:
    """(H, W, 3)."""
    rows, columns = grid.shape
    side = max(24, min(SHOWN, 1600 // max(rows, columns)))
    page = to_image(edits.colours(grid)).resize((columns * side, rows * side), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for row, words in enumerate(grid.words):
        for column, text in enumerate(words):
            lines = textwrap.wrap(text, max(1, side // 8))[: side // 16]
            draw.multiline_text((column * side + 4, row * side + 4), "\n".join(lines), "white", font, stroke_width=2, stroke_fill="black")
    return to_tensor(page)


NODES = [GridFromPrompts, GridFromImage, ResizeGrid, PaintGrid, PreviewGrid]
