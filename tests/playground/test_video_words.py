"""The text encoder of the video models: it says of a picture what the image playground's says, and tells ways apart."""

import random

import torch
from freesteer.playground import text
from freesteer.playground.image import models as image
from freesteer.playground.video_words import models, train
from freesteer.playground.world import motion, motion_captions

SAID = "a red star goes left on grass and a blue ring grows"
PLAIN = "a red star on grass and a blue ring"


def tokens(prompt: str, language: text.Language) -> torch.Tensor:
    return language.pad([language.ids[word] for word in prompt.split()])[None]


def test_captions_without_motion_are_those_of_pictures():
    given = train.batch(0, torch.Generator().manual_seed(7))
    clips, rng = motion.sample_clips(train.CLIPS_A_STEP, torch.Generator().manual_seed(7)), random.Random(7)
    known = set(image.LANGUAGE.words)
    for i in range(20):
        said = motion_captions.caption(clips, i, rng)
        still = [w if w in known else "picture" for w, g in zip(said.words, said.groups, strict=True) if g is None or g < 4]
        found = image.LANGUAGE.decode(given.plain[i].tolist()).split()
        same = [a == b or a == text.SPECIAL[text.UNKNOWN] for a, b in zip(found, still, strict=False)]
        assert not found or (len(found) == len(still) and all(same))
    assert given.plain.max() < len(image.LANGUAGE.words)
    kept = given.tokens.gather(1, given.places)
    assert bool((kept == given.plain)[kept < len(image.LANGUAGE.words)].all())


def test_labels_are_those_of_the_thing_that_a_motion_is_told_of():
    given = train.batch(0, torch.Generator().manual_seed(7))
    clips = motion.sample_clips(train.CLIPS_A_STEP, torch.Generator().manual_seed(7))
    told = {name: [set(row[row >= 0].tolist()) for row in labels] for name, labels in given.labels.items()}
    said = [bool(row[1] != text.END) for row in given.tokens[: train.CLIPS_A_STEP]]
    for i in (i for i, any_word in enumerate(said) if any_word):
        count = int(clips.count[i])
        assert told["motion"][i] == set(clips.motion[i, :count].tolist())
        assert told["shape"][i] == set(clips.scenes.shape[i * clips.frames, :count].tolist())
        assert told["drift"][i] == {int(clips.drift[i])}
    assert not any(told["motion"][train.CLIPS_A_STEP :])


def test_training_begins_with_the_words_of_the_image_playground():
    weights = models.image_words()
    begun = text.build_words(models.LANGUAGE, models.begun_from(weights))
    assert all(torch.equal(begun.state_dict()[name][: len(weight)], weight) for name, weight in weights.items())
    assert models.LANGUAGE.words[: len(image.LANGUAGE.words)] == image.LANGUAGE.words


def test_trained_words_say_of_a_picture_what_they_said_and_tell_ways_apart():
    words = models.load_words()
    assert not any(p.requires_grad for p in words.parameters())
    pictures = text.build_words(image.LANGUAGE, models.image_words())
    with torch.no_grad():
        found, wanted = words(tokens(SAID, models.LANGUAGE))[0][0], pictures(tokens(PLAIN, image.LANGUAGE))[0][0]
        other = words(tokens(SAID.replace("left", "right"), models.LANGUAGE))[0][0]
    kept = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]  # the start, and the words but "goes left" and "grows"
    assert float((found[kept] - wanted[: len(kept)]).square().mean() / wanted.var()) < 0.05
    assert float((found[5] - other[5]).norm() / found[5].norm()) > 0.3 and torch.equal(found[:5], other[:5])
