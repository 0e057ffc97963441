"""What a LoRA is trained on: prompts of several things, that are to be kept apart, and of each alone, that is to stay as it is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management

from ...core.composition.phrases import ARTICLES, noun_phrases, with_article, without_article
from .guide import CompositionError, Named, name_objects

MOST_PROMPTS = 200
OPENING = "a photo of"


@dataclass(frozen=True)
class Lesson:
    """A prompt, encoded as the sampler takes it. named: its objects, or None for one that the model is to draw as before."""

    positive: list
    named: Named | None


def lessons(clip: Any, lines: Sequence[str], seed: int) -> list[Lesson]:
    several, singles = prompts_of(lines, seed)
    prompts = [*several.items(), *((single, None) for single in singles)]
    found = []
    for prompt, objects in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        found.append(lesson(clip, prompt, objects))
    return found


def lesson(clip: Any, prompt: str, objects: list[str] | None = None) -> Lesson:
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    return Lesson(positive, None if objects is None else name_objects(clip, prompt, positive[0][0], objects))


def prompts_of(lines: Sequence[str], seed: int) -> tuple[dict[str, list[str]], list[str]]:
    """Prompts of several things, and what each names; and prompts of each thing alone, with the empty one, from which guidance leads away.
    A line that names several is a prompt as it stands, and is also said with each of them alone; single things are put together in pairs
    and threes, MOST_PROMPTS at most."""
    several = {line: phrases for line in lines if len(phrases := noun_phrases(line)) > 1}
    things = list(dict.fromkeys(without_article(line) for line in lines if line not in several))
    if not several and len(things) < 2:
        raise CompositionError("concepts has one thing, and there is nothing to keep it apart from: write two or more, one a line.")
    chosen = random.Random(seed)
    groups = [[things[i] for i in chosen.sample(range(len(things)), size)] for size in (2, 3) if len(things) >= size
              for _ in range(MOST_PROMPTS // 2)]  # fmt: skip
    made = {_prompt_of(group): group for group in groups}
    alone = [each for line, phrases in several.items() for each in _alone(line, phrases)]
    return several | made, list(dict.fromkeys([*(_prompt_of([thing]) for thing in things), *alone, ""]))


def _alone(line: str, phrases: Sequence[str]) -> list[str]:
    """The prompt with each of its things in place of all: "a cat and a dog on grass" gives "a cat on grass" and "a dog on grass"."""
    low = line.lower()
    starts = [low.find(phrase.lower()) for phrase in phrases]
    if min(starts) < 0 or set("()[]") & set(line):  # weights would be torn apart
        return [_prompt_of([phrase]) for phrase in phrases]
    *before, article = line[: min(starts)].rstrip().rpartition(" ")
    opening = "".join(before) if article.lower() in ARTICLES else line[: min(starts)]
    rest = line[max(start + len(phrase) for start, phrase in zip(starts, phrases, strict=True)) :]
    return [f"{opening}{with_article(phrase)}{rest}" for phrase in phrases]


def _prompt_of(things: Sequence[str]) -> str:
    *before, last = (with_article(thing) for thing in things)
    return f"{OPENING} {', '.join(before)} and {last}" if before else f"{OPENING} {last}"
