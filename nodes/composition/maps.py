"""Looking at where a model looks."""

import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui
from torch import Tensor

from ...host.models import families
from ...host.models.pictures import encode_pictures
from ...host.sampling import probe
from ...recipes.composition.maps import maps_of_picture
from ..common import checks
from ..common.previews import sheet
from .inputs import ALIASES, CATEGORY, conditioning_input, encoded, layers_input, named_in, objects_of, phrases_input, text_input

FIRST, LAST = 0.1, 0.9  # of sampling
MOST_LEVELS = 8
HOT = (1.0, 0.35, 0.0)
DIMMED = 0.35


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerAttentionMaps",
            display_name="Attention Map Preview",
            category=CATEGORY,
            description=(
                "Shows where in a picture the model looks for each object of the prompt, at several noise levels. Two objects that glow at "
                "one place are those that fuse; one that glows nowhere gets lost."
            ),
            search_aliases=[*ALIASES, "daam", "attention heatmap", "heat map", "cross attention"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model whose attention is shown."),
                io.Clip.Input("clip", tooltip="Encodes the prompt."),
                io.Vae.Input("vae", tooltip="Encodes the picture."),
                io.Image.Input("image", tooltip="The picture that is looked at; of several, the first."),
                text_input(),
                phrases_input(),
                io.Int.Input("levels", default=4, min=1, max=MOST_LEVELS, tooltip="At how many noise levels, from much noise to little."),
                layers_input(),
                conditioning_input(),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="A row for each noise level, a column for each object."),
                io.Mask.Output(display_name="maps", tooltip="One mask an object, the mean of all levels, 1 where it glows most."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, vae, image, text, phrases, levels, layers, conditioning=None) -> io.NodeOutput:
        checks.vae(model, vae)
        count = checks.whole("levels", levels, 1, MOST_LEVELS)
        checks.choice("layers", layers, families.CHOICES)
        picture = checks.image("image", image)[:1]
        objects = objects_of(text, phrases, None)
        positive = encoded(model, clip, text, conditioning)
        named = named_in(clip, text, positive[:1], objects, None)[0]
        cell = vae.spacial_compression_encode()
        latent = encode_pictures(vae, picture, (picture.shape[1] // cell, picture.shape[2] // cell))
        sigmas = probe.levels(model, count, FIRST, LAST)
        maps = maps_of_picture(model, named, positive, latent, sigmas, layers, seed=0)[:, 0, :, 0]  # levels, objects, h, w
        strongest = maps.flatten(2).amax(2)
        glow = maps / strongest.amax(1).clamp(min=1e-9)[:, None, None, None]
        size = picture.shape[1:3]
        rows = []
        for sigma, level, most in zip(sigmas.tolist(), glow, strongest.tolist(), strict=True):
            rows.append((f"noise {sigma:.3g}; most {', '.join(f'{v:.2f}' for v in most)}", heated(picture[0], level)))
        peaks = maps / strongest.clamp(min=1e-9)[..., None, None]
        mean = F.interpolate(peaks.mean(0)[None], size, mode="bilinear")[0]
        shown = sheet([(name, list(cells)) for name, cells in rows], objects)[None]
        return io.NodeOutput(shown, mean / mean.flatten(1).amax(1).clamp(min=1e-9)[:, None, None], ui=ui.PreviewImage(shown, cls=cls))


def heated(picture: Tensor, maps: Tensor) -> Tensor:
    """A picture (H, W, 3) under each of maps (objects, h, w) in 0..1: (objects, H, W, 3)."""
    glow = F.interpolate(maps[None], picture.shape[:2], mode="bilinear")[0][..., None]
    return torch.lerp(DIMMED * picture.cpu(), torch.tensor(HOT), glow)


NODES = [AttentionMaps]
