"""Separate & Enhance and the preview of attention, as a user connects them, and what they say of inputs that cannot be."""

import pytest
import torch
from freesteer.core.boxes.boxes import parse
from freesteer.core.boxes.places import BoxPlaces
from freesteer.host.gradients.preparation import NoGradientError
from freesteer.host.models.families import UnknownModelError
from freesteer.host.models.prompt_tokens import PhraseError
from freesteer.host.sampling import steering
from freesteer.nodes.common.checks import InputError
from freesteer.nodes.common.tracks import Placed
from freesteer.nodes.composition.inputs import MOST_OBJECTS
from freesteer.playground.image import models
from freesteer.recipes.composition.guide import CompositionError

from ..conftest import run, tiny

NAN = float("nan")
TEXT = "a red ball and a blue ring on grass"


@pytest.fixture(scope="module")
def playground():
    with torch.inference_mode():
        return models.load()


@pytest.fixture
def guide(playground):
    model, clip, _ = playground
    return lambda **inputs: run("FreeSteerSeparateEnhance", **{"model": model, "clip": clip, "text": TEXT, "phrases": "", **inputs})


@pytest.fixture
def maps(playground):
    model, clip, vae = playground
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    given = {"model": model, "clip": clip, "vae": vae, "image": picture, "text": TEXT, "phrases": ""}
    return lambda **inputs: run("FreeSteerAttentionMaps", **{**given, **inputs})


def known(model):
    """What the guides on a model know."""
    return [each.prompts[0].phrases for each in model.get_attachment(steering.KEY) or ()]


def test_objects_are_found_in_the_prompt(guide):
    model, positive, phrases = guide()
    assert phrases == "red ball\nblue ring"
    (marks,) = known(model)
    assert marks.sum(1).tolist() == [2, 2] and marks.shape[1] == positive[0][0].shape[1]


def test_objects_may_be_written(guide):
    model, _, phrases = guide(phrases=" ball \n\nblue ring\n")
    assert phrases == "ball\nblue ring" and known(model)[0].sum(1).tolist() == [1, 2]


def placed(phrase):
    return (Placed(phrase, BoxPlaces(parse("0.1 0.1 0.5 0.5"))),)


def test_words_of_a_track_stand_for_what_was_found(guide):
    assert guide(tracks=placed("a red ball"))[2] == "blue ring\na red ball"
    assert guide(text="a red Ball and a blue ring", tracks=placed("red ball"))[2] == "blue ring\nred ball"


def test_a_phrase_within_another_is_looked_for_elsewhere(guide):
    (marks,) = known(guide(text="a red ball and a ball", phrases="red ball\nball")[0])
    assert not (marks[0] & marks[1]).any() and marks.sum(1).tolist() == [2, 1]


def test_weights_in_the_prompt_are_no_words(guide):
    assert guide(text="a (red ball:1.3) and a ((blue ring)) on grass")[2] == "red ball\nblue ring"


def test_a_long_prompt_of_several_chunks():
    made = tiny.build("SD 1.5")
    long = "grass " * 100 + ", a red ball and a blue ring"
    clip = Clip()
    model, positive, phrases = run("FreeSteerSeparateEnhance", model=made.model, clip=clip, text=long, phrases="red ball\nblue ring")
    assert positive[0][0].shape[1] == 154 and known(model)[0].nonzero()[:, 1].min() > 77
    assert phrases == "red ball\nblue ring"


class Clip:
    """SD 1.5's tokenizer, and an encoder that gives zeros."""

    def __init__(self):
        import comfy.sd1_clip

        self.tokenizer = comfy.sd1_clip.SD1Tokenizer()

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.zeros(1, 77 * len(tokens["l"]), 768), {}]]


def test_tracks_bring_their_objects_along(guide):
    assert guide(tracks=(Placed("ball", BoxPlaces(parse("0 0 1 0.5"))),))[2] == "blue ring\nball"
    tracks = (Placed("grass", BoxPlaces(parse("0 0 1 0.5"))),)
    model, _, phrases = guide(tracks=tracks)
    assert phrases == "red ball\nblue ring\ngrass"
    ((prompt,),) = [each.prompts for each in model.get_attachment(steering.KEY)]
    assert [where is not None for where in prompt.where] == [False, False, True]


def test_an_encoded_prompt_is_taken_as_it_is(guide, playground):
    given = playground[1].encode_from_tokens_scheduled(playground[1].tokenize(TEXT))
    model, positive, _ = guide(conditioning=given)
    assert positive is given and torch.equal(model.get_attachment(steering.KEY)[0].prompts[0].encoded, given[0][0])


def test_at_strength_0_there_is_no_guide(guide):
    assert not known(guide(strength=0.0)[0])


def test_one_after_the_other_they_know_several_prompts(guide):
    model, *_ = guide()
    both, *_ = guide(model=model, text="a green star and a white cross")
    assert len(known(both)) == 2 and len(known(model)) == 1


def test_maps_show_each_object_at_each_level(maps):
    sheet, masks = maps(levels=3)
    assert sheet.shape[0] == 1 and sheet.std() > 0.05
    assert masks.shape == (2, 64, 96) and torch.allclose(masks.amax((1, 2)), torch.ones(2)) and masks.min() >= 0
    assert not torch.allclose(masks[0], masks[1])


WRITTEN = "\n".join(f"thing {i}" for i in range(MOST_OBJECTS + 1))


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({"text": ""}, InputError, "text is empty"),
        ({"text": "  \n "}, InputError, "text is empty"),
        ({"text": "!!!"}, InputError, "No object was found"),
        ({"text": "on grass"}, InputError, "No object was found"),
        ({"phrases": "green ball"}, PhraseError, "does not say 'green ball'"),
        ({"phrases": "red ball\ncube"}, PhraseError, "does not say 'cube'"),
        ({"phrases": "ball red"}, PhraseError, "does not say 'ball red'"),
        ({"phrases": "red ball\nred ball"}, InputError, "phrases names 'red ball' twice"),
        ({"phrases": "red ball\nball"}, CompositionError, "'ball' is in the prompt only as a part of 'red ball'"),
        ({"phrases": WRITTEN}, InputError, f"{MOST_OBJECTS} are the most"),
        ({"clip": None}, InputError, "clip is missing"),
        ({"conditioning": []}, InputError, "conditioning is empty"),
        ({"conditioning": [[torch.full((1, 16, 128), NAN), {}]]}, InputError, "conditioning has values that are not numbers"),
        ({"conditioning": [[torch.zeros(1, 7, 128), {}]]}, PhraseError, "phrases cannot be placed"),
        ({"strength": -0.1}, InputError, "strength is -0.1: choose 0 to 10"),
        ({"strength": 11.0}, InputError, "strength is 11"),
        ({"strength": NAN}, InputError, "strength is nan"),
        ({"strength": "much"}, InputError, "strength is much"),
        ({"start_percent": -0.1}, InputError, "start_percent is -0.1"),
        ({"end_percent": 1.1}, InputError, "end_percent is 1.1"),
        ({"start_percent": 0.6, "end_percent": 0.4}, InputError, "is after end_percent"),
        ({"start_percent": NAN}, InputError, "start_percent is nan"),
        ({"method": "syngen"}, InputError, "method is 'syngen': choose one of separate and enhance"),
        ({"separate": -1.0}, InputError, "separate is -1"),
        ({"separate": 10.5}, InputError, "separate is 10.5"),
        ({"enhance": -1.0}, InputError, "enhance is -1"),
        ({"enhance": NAN}, InputError, "enhance is nan"),
        ({"gather": -1.0}, InputError, "gather is -1"),
        ({"enough": 0.0}, InputError, "enough is 0"),
        ({"enough": 1.5}, InputError, "enough is 1.5"),
        ({"method": "syngen"}, InputError, "method"),
        ({"boxes": -1.0}, InputError, "boxes is -1"),
        ({"refinements": -1}, InputError, "refinements is -1: choose 0 to 10"),
        ({"refinements": 11}, InputError, "refinements is 11"),
        ({"refinements": 1.5}, InputError, "choose a whole number"),
        ({"layers": "middle"}, InputError, "layers is 'middle': choose one of default"),
    ],
)
def test_what_cannot_be_is_said(guide, inputs, error, says):
    with pytest.raises(error, match=says):
        guide(**inputs)


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({"levels": 0}, InputError, "levels is 0: choose 1 to 8"),
        ({"levels": 9}, InputError, "levels is 9"),
        ({"layers": "some"}, InputError, "layers is 'some'"),
        ({"image": torch.zeros(1, 0, 8, 3)}, InputError, "image has no pixels"),
        ({"image": torch.full((1, 16, 16, 3), NAN)}, InputError, "image has pixels that are not numbers"),
        ({"image": torch.zeros(16, 16, 3)}, InputError, "image has to be an IMAGE"),
        ({"image": None}, InputError, "image has to be an IMAGE"),
        ({"vae": None}, InputError, "vae is nothing where this model needs one of 4"),
        ({"clip": None}, InputError, "clip is missing"),
        ({"text": ""}, InputError, "text is empty"),
        ({"phrases": "cube"}, PhraseError, "does not say 'cube'"),
        ({"phrases": "red ball\nred ball"}, InputError, "twice"),
        ({"conditioning": []}, InputError, "conditioning is empty"),
        ({"conditioning": [[torch.zeros(1, 16, 128), {}]] * 2}, InputError, "conditioning has 2 parts"),
    ],
)
def test_what_cannot_be_shown_is_said(maps, inputs, error, says):
    with pytest.raises(error, match=says):
        maps(**inputs)


def test_a_model_of_no_known_family_is_named(guide, playground):
    class Other(torch.nn.Module):
        pass

    model = playground[0].clone()
    model.model = type("Base", (), {"diffusion_model": Other(), "model_config": model.model.model_config})()
    with pytest.raises((UnknownModelError, NoGradientError), match="Other"):
        guide(model=model)


def test_svd_has_no_words(playground):
    made = tiny.build("SVD", rows=3)
    given = made.positive  # one token, of a picture
    with pytest.raises(PhraseError, match="phrases cannot be placed"):
        run("FreeSteerSeparateEnhance", model=made.model, clip=playground[1], text=TEXT, phrases="", conditioning=given)


@pytest.mark.parametrize("form", ["nvfp4", "int8_tensorwise"])
def test_quantised_models_are_refused(playground, form):
    with pytest.raises(NoGradientError, match="bf16, fp16 or fp8"):
        run("FreeSteerSeparateEnhance", model=tiny.quantised("FreeSteer playground", form).model, clip=playground[1], text=TEXT, phrases="")
