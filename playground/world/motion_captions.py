"""Captions of drawn clips: what there is, how it moves, and what the ground does."""

import random

from .captions import GROUND, MOTION, OPENINGS, PLACES, VOCABULARY, Caption, object_words, phrase
from .motion import DRIFTS, MOTIONS, WAYS, Clips
from .textures import BACKGROUNDS

VERBS = {
    **{way: (f"goes {way}", f"moves {way}", f"moving {way}", f"that goes {way}") for way in WAYS},
    "circle": ("goes in a circle", "moves in a circle", "moving in a circle", "that goes in a circle"),
    "grow": ("grows", "gets bigger", "growing", "that grows"),
    "shrink": ("shrinks", "gets smaller", "shrinking", "that shrinks"),
    "spin": ("spins", "turns", "spinning", "that spins"),
    "still": ("stands still", "stays", "standing still", "that stands still"),
}
GROUNDS = {
    **{way: (f"while the ground drifts {way}ward", f"and the ground moves {way}ward", f", the ground drifting {way}ward") for way in WAYS},
    "still": ("", "", "", "and the ground rests"),
}
CLIP_OPENINGS = (*OPENINGS, "a video of", "a clip of")
PHRASES = (*CLIP_OPENINGS, *(said for group in (VERBS, GROUNDS) for several in group.values() for said in several))
CLIP_VOCABULARY = tuple(dict.fromkeys([*VOCABULARY, *" ".join(PHRASES).split()]))


def caption(clips: Clips, i: int, rng: random.Random) -> Caption:
    """One phrasing of clip i."""
    first = i * clips.frames
    slots = list(range(int(clips.count[i])))
    rng.shuffle(slots)
    parts = phrase(rng.choice(CLIP_OPENINGS), None)
    for n, slot in enumerate(slots):
        parts += phrase(rng.choice(("and", "and", ",")), None) if n else []
        parts += object_words(clips.scenes, first, slot, rng)
        parts += phrase(rng.choice(VERBS[MOTIONS[int(clips.motion[i, slot])]]), MOTION + slot + 1)
    if rng.random() < 0.93:
        lead, noun = PLACES[BACKGROUNDS[int(clips.scenes.background[first])]].rsplit(" ", 1)
        parts += [*phrase(lead, None), (noun, GROUND)]
    parts += phrase(rng.choice(GROUNDS[DRIFTS[int(clips.drift[i])]]), MOTION + GROUND)
    words, groups = zip(*parts, strict=True)
    return Caption(words, groups)
