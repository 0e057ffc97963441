"""PEEKABOO (https://arxiv.org/abs/2312.07509): this object in this box at this time."""

from comfy_api.latest import io

from ...host.models import prompt_tokens
from ...host.models.frames import FRAME_AXES, pictures_per_latent
from ...host.sampling.sigma_range import SigmaRange
from ...recipes.peekaboo import patch as recipe
from ...recipes.peekaboo.patch import Objects, PeekabooSettings
from ..common import checks
from ..common.tracks import TRACKS
from .types import ALIASES, CATEGORY

DEFAULTS = PeekabooSettings()


class Peekaboo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPeekaboo",
            display_name="Peekaboo",
            category=CATEGORY,
            description=(
                "Puts each object of the prompt where its track has it, in clips and in pictures, without any training: in the first part "
                "of sampling only the tokens inside the box know the object's words. It costs next to no time, and needs no gradient, so "
                "weights may be of any kind."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A model of pictures or of videos; it is not changed itself."),
                io.Clip.Input("clip", tooltip="Encodes the prompt."),
                TRACKS.Input("tracks", tooltip="Where each object is, from Box Track or Mask Track."),
                io.String.Input(
                    "text", multiline=True, dynamic_prompts=True, tooltip="The prompt. It has to say the words of each track's object.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="When objects begin to be held in their places, as "
                    "a part of sampling; of img2img, of what its denoise leaves.",
                ),
                io.Float.Input(
                    "end_percent", default=DEFAULTS.range.end_percent, min=0.0, max=1.0, step=0.01, tooltip="When they are let go. Later: "
                    "they keep to their boxes more strictly. Earlier: outlines and lighting fit in better.",
                ),
                io.Float.Input(
                    "strength", default=DEFAULTS.strength, min=0.0, max=1.0, step=0.05, tooltip="1: words and places are kept wholly "
                    "apart. Lower: softly. 0: not at all.",
                ),
                io.Boolean.Input(
                    "mask_text", default=DEFAULTS.text, advanced=True, tooltip="Whether the box alone sees the object's "
                    "words, and no others.",
                ),
                io.Boolean.Input(
                    "mask_space", default=DEFAULTS.space, advanced=True, tooltip="Whether box and surroundings do not see each other. In "
                    "models with attention over space and time at once, this is over both.",
                ),
                io.Boolean.Input(
                    "mask_time", default=DEFAULTS.time, advanced=True, tooltip="Whether, at each place, frames with the object and "
                    "frames without it do not see each other. For ComfyUI's own U-Nets with layers over time; others are not changed.",
                ),
                io.Combo.Input(
                    "special_tokens", options=list(recipe.SPECIAL), default=DEFAULTS.special, advanced=True, tooltip="Who sees the "
                    "prompt's begin, end and padding, which stand for the prompt as a whole.",
                ),
                io.Boolean.Input(
                    "negative_too", default=DEFAULTS.everywhere, advanced=True, tooltip="Whether box and surroundings are kept apart for "
                    "the negative prompt, too, where space or time is masked; its words are seen everywhere in any case.",
                ),
                io.Combo.Input(
                    "frames", options=list(FRAME_AXES), default="auto", advanced=True, tooltip="What a batch of pictures is, for models "
                    "whose latents have no axis of time. Auto: one clip for video U-Nets of ComfyUI's own, else single pictures. In the "
                    "batch: one clip, as with AnimateDiff.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, encoded: connect it to the sampler."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, tracks, text, start_percent, end_percent, strength, mask_text, mask_space, mask_time, special_tokens,
        negative_too, frames,
    ) -> io.NodeOutput:  # fmt: skip
        checks.clip(clip)
        start, end = checks.percents(start_percent, end_percent)
        checks.choice("special_tokens", special_tokens, recipe.SPECIAL)
        checks.choice("frames", frames, FRAME_AXES)
        if not isinstance(tracks, tuple) or not tracks:
            raise checks.InputError("tracks is empty: connect a Box Track or a Mask Track.")
        settings = PeekabooSettings(
            SigmaRange(start, end), checks.number("strength", strength, 0, 1), bool(mask_text), bool(mask_space), bool(mask_time),
            special_tokens, bool(negative_too),
        )  # fmt: skip
        positive = checks.encoded(model, clip, text)
        encoded = positive[0][0]
        prompt = prompt_tokens.locate(clip, text, [placed.phrase for placed in tracks], encoded.shape[1])
        per_latent = pictures_per_latent(model.get_model_object("latent_format"))
        objects = Objects([placed.where for placed in tracks], prompt.phrases, prompt.special, special_tokens, per_latent)
        return io.NodeOutput(recipe.attach(model, settings, objects, encoded, frames), positive)


NODES = [Peekaboo]
