"""What the composition nodes ask for, and whether it can be done."""

from typing import Any

from comfy_api.latest import io

from ...core.boxes.places import Places
from ...core.composition.phrases import noun_phrases
from ...host.models import families
from ...recipes.composition.guide import CompositionSettings, Named, name_objects
from ..common import checks
from ..common.tracks import Tracks

CATEGORY = "FreeSteer/Composition"
ALIASES = [
    "separate and enhance", "sepen", "attend and excite", "attend-and-excite", "composition", "missing object", "lost object",
    "attribute binding", "color bleeding", "concept bleeding", "multiple subjects", "syngen", "boxdiff",
]  # fmt: skip
DEFAULTS = CompositionSettings()
MOST_OBJECTS = 8
MOST_WEIGHT = 10.0


def text_input() -> io.Input:
    return io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt, such as 'a red cube and a blue ball'.")


def phrases_input() -> io.Input:
    return io.String.Input(
        "phrases", default="", multiline=True, tooltip="The objects, one a line, with their attributes and exactly as the prompt says "
        "them, such as 'red cube'. Empty: they are found in the prompt, by its articles and 'and'.",
    )  # fmt: skip


def conditioning_input() -> io.Input:
    return io.Conditioning.Input(
        "conditioning", optional=True, tooltip="The same prompt, encoded by another node (for SDXL or Flux guidance). Without it, the "
        "prompt is encoded here.",
    )  # fmt: skip


def layers_input() -> io.Input:
    return io.Combo.Input(
        "layers", options=list(families.CHOICES), default=DEFAULTS.layers, advanced=True, tooltip="Where the model's attention to words is "
        "read. Default: where layout is told, in the decoder of a U-Net. Coarse, fine: one level of it; in transformers, earlier or later "
        "layers.",
    )  # fmt: skip


def weight_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "separate", default=DEFAULTS.separate, min=0.0, max=MOST_WEIGHT, step=0.05, advanced=True, tooltip="How much it counts that "
            "objects do not share a place: against fused ones. Not for attend and excite.",
        ),
        io.Float.Input(
            "enhance", default=DEFAULTS.enhance, min=0.0, max=MOST_WEIGHT, step=0.05, advanced=True, tooltip="How much it counts that each "
            "object is seen somewhere: against lost ones. Not for attend and excite.",
        ),
        io.Float.Input(
            "gather", default=DEFAULTS.gather, min=0.0, max=MOST_WEIGHT, step=0.05, advanced=True, tooltip="How much it counts that each "
            "object is at one place only: against doubled ones. Phrases in the plural, such as 'two cats', are let be. Lower it for what "
            "shall fill the picture. For separate and enhance only.",
        ),
    ]  # fmt: skip


def weight(name: str, given: float) -> float:
    return checks.number(name, given, 0, MOST_WEIGHT)


def objects_of(text: str, phrases: str, tracks: Tracks | None) -> list[str]:
    """The phrases that a user has written, or those of the prompt; and those of tracks."""
    written = [" ".join(line.split()) for line in phrases.splitlines() if line.strip()]
    if not isinstance(text, str) or not text.strip():
        raise checks.InputError("text is empty: write the prompt, such as 'a red cube and a blue ball'.")
    lows = [phrase.casefold() for phrase in written]
    doubled = next((phrase for phrase, low in zip(written, lows, strict=True) if lows.count(low) > 1), None)
    if doubled is not None:
        raise checks.InputError(f"phrases names {doubled!r} twice: two things of one name cannot be told apart. Give each its own words.")
    placed = [each.phrase for each in tracks or ()]
    own = written or [phrase for phrase in noun_phrases(text) if not any(_same(phrase, name) for name in placed)]
    known = [phrase.casefold() for phrase in placed]
    found = [*(phrase for phrase in own if phrase.casefold() not in known), *placed]  # a track's words stand for what they are a part of
    if not found:
        raise checks.InputError(f"No object was found in the prompt {text.strip()[:60]!r}: write the objects in phrases, one a line.")
    if len(found) > MOST_OBJECTS:
        raise checks.InputError(f"The prompt has {len(found)} objects, and {MOST_OBJECTS} are the most: name those that matter in phrases.")
    return found


def _same(phrase: str, other: str) -> bool:
    """Whether one is a part of the other."""
    one, two = f" {phrase.casefold()} ", f" {other.casefold()} "
    return one in two or two in one


def encoded(model, clip, text: str, conditioning: list | None) -> list:
    checks.clip(clip)
    if conditioning is None:
        return checks.encoded(model, clip, text)
    checks.conditioning("conditioning", conditioning)
    checks.fits("conditioning", model, conditioning)
    if len(conditioning) > 1:
        raise checks.InputError(
            f"conditioning has {len(conditioning)} parts (combined or scheduled): connect one prompt, and combine afterwards."
        )
    return conditioning


def named_in(clip: Any, text: str, positive: list, phrases: list[str], tracks: Tracks | None) -> list[Named]:
    """Of each part of a CONDITIONING."""
    where: dict[str, Places] = {each.phrase: each.where for each in tracks or ()}
    return [name_objects(clip, text, part[0], phrases, where) for part in positive]
