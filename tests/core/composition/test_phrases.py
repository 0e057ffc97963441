"""What a prompt names."""

import pytest
from freesteer.benchmarks.playground.playground import prompts
from freesteer.core.composition.phrases import head, is_single, noun_phrases


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a red cube and a blue ball", ["red cube", "blue ball"]),
        ("a photo of a cat and a dog on a bench", ["cat", "dog"]),
        ("a blue ring, a white star and an orange cross in the night", ["blue ring", "white star", "orange cross"]),
        ("a blue triangle left of a red heart on grass", ["blue triangle", "red heart"]),
        ("a blue ball shrinks and a white heart spins on bricks", ["blue ball", "white heart"]),
        ("A CAT and dog", ["CAT", "dog"]),
        ("a (red:1.3) cube with ((a blue ball)), highly detailed, 4k", ["red cube", "blue ball"]),
        ("the man wearing a hat and the dogs", ["man", "hat", "dogs"]),
        ("a cat sitting next to a dog", ["cat", "dog"]),
        ("a running dog", ["running dog"]),
        ("a very big dog and a cat", ["very big dog", "cat"]),
        ("a left shoe, an iron sewing machine and a red flying saucer", ["left shoe", "iron sewing machine", "red flying saucer"]),
        ("a glass, a red bus and a cactus", ["glass", "red bus", "cactus"]),
        ("cat and dog", ["cat", "dog"]),
        ("cat, dog and bird on grass", ["cat", "dog", "bird"]),
        ("cat and dog, highly detailed, 4k", ["cat", "dog"]),
        ("1girl, masterpiece, best quality", []),
        ("red ball", ["red ball"]),
        ("a red ball and a red ball", ["red ball"]),
        ("a lion-dog and a cat's toy", ["lion-dog", "cat's toy"]),
        ("a bowl of soup", ["bowl"]),
        ("a bear and an", ["bear"]),
        ("", []),
        ("a", []),
        ("!!!", []),
    ],
)  # fmt: skip
def test_what_a_prompt_names(prompt, wanted):
    assert noun_phrases(prompt) == wanted


@pytest.mark.parametrize(
    ("phrase", "wanted"), [("red ball", "ball"), ("bowl of soup", "bowl"), ("cat", "cat"), ("left shoe", "shoe"), ("of", "of"), ("", "")]
)  # fmt: skip
def test_the_word_that_says_what_a_thing_is(phrase, wanted):
    assert head(phrase) == wanted


@pytest.mark.parametrize(
    ("phrase", "single"),
    [("red ball", True), ("dogs", False), ("glass of beers", True), ("bus", True), ("old men", False), ("grass", False), ("", True)],
)
def test_one_thing_or_several(phrase, single):
    assert is_single(phrase) == single


def test_two_and_three_objects_of_the_playground():
    for count in (1, 2, 3):
        for text, names, _ in prompts(100, count):
            assert noun_phrases(text) == list(dict.fromkeys(" ".join(name) for name in names))
