"""Separate-and-Enhance (https://arxiv.org/abs/2312.06712) while sampling: every object that the prompt names."""

from comfy_api.latest import io

from ...host.models import families
from ...recipes.composition import guide as recipe
from ...recipes.composition.guide import CompositionSettings
from ..common import checks
from ..common.tracks import TRACKS
from .inputs import (
    ALIASES,
    CATEGORY,
    DEFAULTS,
    MOST_WEIGHT,
    conditioning_input,
    encoded,
    layers_input,
    named_in,
    objects_of,
    phrases_input,
    text_input,
    weight,
    weight_inputs,
)

MOST_STEPS = 10


class SeparateAndEnhance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerSeparateEnhance",
            display_name="Separate & Enhance",
            category=CATEGORY,
            description=(
                "Makes the model paint every object that the prompt names, each with its own attributes: while sampling, attention to one "
                "object is pulled away from the others, gathered at one place, and raised where it is weak. Needs no training, and works "
                "with any sampler."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A model of pictures or of videos; it is not changed itself."),
                io.Clip.Input("clip", tooltip="Encodes the prompt."),
                text_input(),
                phrases_input(),
                io.Float.Input(
                    "strength", default=DEFAULTS.strength, min=0.0, max=10.0, step=0.05, tooltip="How far objects are pushed. Higher: more "
                    "of the missing ones appear, and the picture departs further from the plain one. 0: not at all.",
                ),
                io.Float.Input(
                    "start_percent", default=DEFAULTS.start, min=0.0, max=1.0, step=0.01, tooltip="When it begins, as a part of sampling; "
                    "of img2img, of what its denoise leaves.",
                ),
                io.Float.Input(
                    "end_percent", default=DEFAULTS.end, min=0.0, max=1.0, step=0.01, tooltip="When it ends. Objects find their places "
                    "early; the last steps cost time and change little.",
                ),
                io.Combo.Input(
                    "method", options=list(recipe.METHODS), default=DEFAULTS.method, tooltip="Separate and enhance: no two objects at one "
                    "place, none forgotten, and none twice; what is well already stays. As published: the paper's losses, which always "
                    "push. Attend and excite: the peer that only raises the most neglected object.",
                ),
                *weight_inputs(),
                io.Float.Input(
                    "enough", default=DEFAULTS.enough, min=0.001, max=1.0, step=0.005, advanced=True, tooltip="With how much attention "
                    "an object is seen well enough to be left alone. Higher: more pictures are changed, also some that were right. See "
                    "the numbers of Attention Map Preview.",
                ),
                io.Float.Input(
                    "boxes", default=DEFAULTS.boxes, min=0.0, max=MOST_WEIGHT, step=0.05, advanced=True, tooltip="How much it counts that "
                    "an object with a track is in its box. 0: tracks do not matter.",
                ),
                io.Int.Input(
                    "refinements", default=DEFAULTS.refinements, min=0, max=MOST_STEPS, advanced=True, tooltip="Small steps at each noise "
                    "level, in place of one. More: follows more surely, and takes longer. 0: more where the sampler takes few steps.",
                ),
                layers_input(),
                conditioning_input(),
                TRACKS.Input(
                    "tracks", optional=True, tooltip="Where objects are to be, from Box Track or Mask Track: softer than Peekaboo.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler. Several of these nodes, one for each regional prompt, follow one another."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, encoded: connect it to the sampler."),
                io.String.Output(display_name="phrases", tooltip="The objects that were found, one a line."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, text, phrases, strength, start_percent, end_percent, method, separate, enhance, gather, enough, boxes,
        refinements, layers, conditioning=None, tracks=None,
    ) -> io.NodeOutput:  # fmt: skip
        start, end = checks.percents(start_percent, end_percent)
        checks.choice("method", method, recipe.METHODS)
        checks.choice("layers", layers, families.CHOICES)
        settings = CompositionSettings(
            checks.number("strength", strength, 0, 10), start, end, checks.whole("refinements", refinements, 0, MOST_STEPS),
            method, weight("separate", separate), weight("enhance", enhance), weight("gather", gather),
            checks.number("enough", enough, 0.001, 1), weight("boxes", boxes), layers,
        )  # fmt: skip
        objects = objects_of(text, phrases, tracks)
        positive = encoded(model, clip, text, conditioning)
        named = named_in(clip, text, positive, objects, tracks)
        steered = recipe.attach(model, named, settings) if strength > 0 else model.clone()
        return io.NodeOutput(steered, positive, "\n".join(objects))


NODES = [SeparateAndEnhance]
