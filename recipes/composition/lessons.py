"""What a LoRA is trained on: prompts of several things, that are to be kept apart, and of each alone, that is to stay as it is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.composition.phrases import noun_phrases, with_article, without_article
from .guide import Named, name_objects

MOST_PROMPTS = 200
OPENING = "a photo of"


class NothingToKeepApartError(ValueError):
    """Written for the user: what else is needed."""


@dataclass(frozen=True)
class Lesson:
    """A prompt, encoded as the sampler takes it. named: its objects, or None for one that the model is to draw as before."""

    positive: list
    named: Named | None


def lessons(clip: Any, lines: Sequence[str], seed: int) -> list[Lesson]:
    several, singles = prompts_of(lines, seed)
    return [lesson(clip, prompt, noun_phrases(prompt)) for prompt in several] + [lesson(clip, single) for single in singles]


def lesson(clip: Any, prompt: str, objects: list[str] | None = None) -> Lesson:
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    return Lesson(positive, None if objects is None else name_objects(clip, prompt, positive[0][0], objects))


def prompts_of(lines: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Prompts of several things; and of each thing alone, with the empty one, from which guidance leads away. A line that names several is
    a prompt as it stands; single things are put together in pairs and threes, MOST_PROMPTS at most."""
    several = [line for line in lines if len(noun_phrases(line)) > 1]
    things = list(dict.fromkeys(with_article(without_article(line)) for line in lines if line not in several))
    if not several and len(things) < 2:
        raise NothingToKeepApartError("concepts has one thing, and there is nothing to keep it apart from: write two or more, one a line.")
    chosen = random.Random(seed)
    groups = [[things[i] for i in chosen.sample(range(len(things)), size)] for size in (2, 3) if len(things) >= size
              for _ in range(MOST_PROMPTS // 2)]  # fmt: skip
    made = dict.fromkeys(f"{OPENING} {', '.join(group[:-1])} and {group[-1]}" for group in groups)
    alone = things or list(dict.fromkeys(with_article(phrase) for line in several for phrase in noun_phrases(line)))
    return [*several, *made], [*(f"{OPENING} {thing}" for thing in alone), ""]
