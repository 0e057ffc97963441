"""What the composition nodes ask for, and whether it can be done."""

from typing import Any

from comfy_api.latest import io

from ...core.composition.phrases import noun_phrases
from ...core.peekaboo.places import Places
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


def text_input() -> io.Input:
    return io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt, such as 'a red cube and a blue ball'.")


def phrases_input() -> io.Input:
    return io.String.Input(
        "phrases", default="", multiline=True, tooltip="The objects, one a line, with their attributes and exactly as the prompt says "
        "them, such as 'red cube'. Empty: they are found in the prompt, by its articles and 'and'.",
    )  # fmt: skip


def conditioning_input() -> io.Input:
    return io.Conditioning.Input(
        "conditioning", optional=True, tooltip="The same prompt, encoded by another node (for SDXL, Flux guidance or a style). Without it, "
        "the prompt is encoded here.",
    )  # fmt: skip


def layers_input() -> io.Input:
    return io.Combo.Input(
        "layers", options=list(families.CHOICES), default=DEFAULTS.layers, advanced=True, tooltip="Where the model's attention to words is "
        "read. Default: where objects are told best in this kind of model. Coarse: large shapes only. Fine: details, too.",
    )  # fmt: skip


def objects_of(text: str, phrases: str, tracks: Tracks | None) -> list[str]:
    """The phrases that a user has written, or those of the prompt; and those of tracks."""
    written = [line.strip() for line in phrases.splitlines() if line.strip()]
    if not isinstance(text, str) or not text.strip():
        raise checks.InputError("text is empty: write the prompt, such as 'a red cube and a blue ball'.")
    doubled = next((phrase for phrase in written if written.count(phrase) > 1), None)
    if doubled is not None:
        raise checks.InputError(f"phrases names {doubled!r} twice: two things of one name cannot be told apart. Give each its own words.")
    placed = [each.phrase for each in tracks or ()]
    own = written or [phrase for phrase in noun_phrases(text) if not any(f" {name} " in f" {phrase} " for name in placed if name != phrase)]
    found = list(dict.fromkeys([*own, *placed]))  # where a track's words are a part of what was found, they stand for it
    if not found:
        raise checks.InputError(f"No object was found in the prompt {text.strip()[:60]!r}: write the objects in phrases, one a line.")
    if len(found) > MOST_OBJECTS:
        raise checks.InputError(f"The prompt has {len(found)} objects, and {MOST_OBJECTS} are the most: name those that matter in phrases.")
    return found


def encoded(clip, text: str, conditioning: list | None) -> list:
    checks.clip(clip)
    if conditioning is None:
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))
    checks.conditioning("conditioning", conditioning)
    return conditioning


def named_in(clip: Any, text: str, positive: list, phrases: list[str], tracks: Tracks | None) -> list[Named]:
    """Of each part of a CONDITIONING."""
    where: dict[str, Places] = {each.phrase: each.where for each in tracks or ()}
    return [name_objects(clip, text, part[0], phrases, where) for part in positive]
