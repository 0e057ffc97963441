"""Captions of drawn scenes, in several phrasings, with the words that speak of each object."""

import random
from dataclasses import dataclass

from .textures import BACKGROUNDS
from .world import COLOUR_NAMES, SHAPES, Scenes

PLACES = {
    "grass": "on grass",
    "sand": "on sand",
    "water": "on water",
    "bricks": "on bricks",
    "night": "in the night",
    "wood": "on wood",
    "stone": "on stone",
    "ice": "on ice",
}
SIZES = ("small", "big")
ANY_SHAPE = "shape"
OPENINGS = ("", "", "", "", "a photo of", "a picture of", "a drawing of")
LINKS = ("left", "right", "above", "below", "of", "with", "and", "the", "a", "an", ",")
PHRASES = (*OPENINGS, *PLACES.values(), *SIZES, *COLOUR_NAMES, *SHAPES, ANY_SHAPE)
VOCABULARY = tuple(dict.fromkeys([*" ".join(PHRASES).split(), *LINKS]))
GROUND = 0  # the group of words about the background; objects are 1, 2, 3; other words are None
MOTION = 4  # and so much more of a word that says how one of these moves


@dataclass(frozen=True)
class Caption:
    """Words and, for each, what it speaks of: GROUND, an object slot + 1, MOTION + one of these, or None."""

    words: tuple[str, ...]
    groups: tuple[int | None, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words).replace(" ,", ",")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def phrase(text: str, group: int | None) -> list[tuple[str, int | None]]:
    """The words of `text`, all of one group."""
    return [(word, group) for word in text.split()]


def object_words(scenes: Scenes, i: int, slot: int, rng: random.Random) -> list[tuple[str, int | None]]:
    """One way to name an object of scene i, with its article."""
    radius = float(scenes.radius[i, slot])
    size = SIZES[radius > 24] if int(scenes.count[i]) == 1 and rng.random() < 0.2 and not 21 < radius < 27 else ""
    draw = rng.random()  # now and then only a part of the name is said
    colour = COLOUR_NAMES[int(scenes.colour[i, slot])] if draw > 0.08 else ""
    shape = SHAPES[int(scenes.shape[i, slot])] if draw < 0.96 else ANY_SHAPE
    words = f"{size} {colour} {shape}".split()
    return [(article(words[0]), None), *phrase(" ".join(words), slot + 1)]


def _relation(scenes: Scenes, i: int, first: int, second: int) -> str:
    """How object `first` lies to `second`, or nothing when it is not plain."""
    dx, dy = (float(axis[i, first] - axis[i, second]) for axis in (scenes.x, scenes.y))
    if abs(dx) > 1.5 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.5 * abs(dx):
        return "above" if dy < 0 else "below"
    return ""


def caption(scenes: Scenes, i: int, rng: random.Random) -> Caption:
    """One phrasing of scene i."""
    slots = list(range(int(scenes.count[i])))
    rng.shuffle(slots)
    parts = phrase(rng.choice(OPENINGS), None) + object_words(scenes, i, slots[0], rng)
    for n, slot in enumerate(slots[1:], 1):
        relation = _relation(scenes, i, slots[0], slot) if len(slots) == 2 and rng.random() < 0.3 else ""
        link = relation or ("," if n == 1 and len(slots) == 3 else rng.choice(("and", "and", "with")))
        parts += phrase(link, None) + object_words(scenes, i, slot, rng)
    place = PLACES[BACKGROUNDS[int(scenes.background[i])]]
    if rng.random() < 0.93:
        lead, noun = place.rsplit(" ", 1)
        parts += phrase(lead, None) + phrase(noun, GROUND)
    words, groups = zip(*parts, strict=True)
    return Caption(words, groups)


def prompt(colour: str, shape: str, background: str) -> str:
    """The plainest caption of one object."""
    return f"{article(colour)} {colour} {shape} {PLACES[background]}"
