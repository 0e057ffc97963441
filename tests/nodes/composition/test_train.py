"""Training Separate & Enhance: it learns, can be stopped and goes on, and what it makes is the host's own LoRA."""

import dataclasses
import re

import comfy.sample
import comfy.sd
import folder_paths
import pytest
import torch
from freesteer.host.adapters.lora import AdapterError
from freesteer.host.gradients.preparation import NoGradientError
from freesteer.host.models import families
from freesteer.host.models.attention_sites import text_layers
from freesteer.nodes.common.checks import InputError
from freesteer.playground.image import models
from freesteer.recipes.composition.guide import CompositionError, Named
from freesteer.recipes.composition.lessons import Lesson, prompts_of
from freesteer.recipes.composition.train import LORA_FILE, LoraSettings, train
from freesteer.recipes.training import NOBODY
from safetensors.torch import load_file

from ..conftest import run, tiny
from ..training_cases import goes_on_to_the_same_end, is_interrupted, refuses_fewer_steps, shown_last

SPOKEN = [name for name in tiny.RECIPES if name != "SVD"]
NAN = float("nan")
FEW = LoraSettings(steps=4, rank=4, pictures=2, prompts=1, own=0.5)


def lessons(made) -> list[Lesson]:
    encoded = made.positive[0][0]
    phrases = torch.zeros(2, encoded.shape[1], dtype=torch.bool)
    phrases[0, 1], phrases[1, 2:4] = True, True
    named = Named(encoded, phrases, phrases, torch.tensor([True, True]), torch.zeros(encoded.shape[1], dtype=torch.bool), [None, None])
    return [Lesson(made.positive, named), Lesson(made.negative, None)]


def trained(made, settings=FEW, folder=None, audience=NOBODY):
    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(made.model, made.latent)
        return train(made.model, lessons(made), latent, settings, folder, audience)


@pytest.fixture(scope="module")
def playground():
    with torch.inference_mode():
        return models.load()


@pytest.fixture
def node(playground, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    model, clip, _ = playground
    given = {"model": model, "clip": clip, "latent": {"samples": torch.zeros(1, 4, 16, 16)}, "concepts": "red ball\nblue ring", "steps": 3,
             "pictures": 2}  # fmt: skip
    return lambda **inputs: run("FreeSteerTrainSeparateEnhance", **{**given, **inputs})


@pytest.mark.parametrize("family", SPOKEN)
def test_every_family_can_be_trained_and_takes_its_lora(family):
    made = tiny.build(family, True)
    plain = made.sample()
    lora, history = trained(made, dataclasses.replace(FEW, learning_rate=1e-2))
    assert len(history["loss"]) == 4 and all(torch.isfinite(weight).all() for weight in lora.values())
    assert torch.equal(made.sample(), plain)
    with torch.inference_mode():
        loaded, _ = comfy.sd.load_lora_for_models(made.model, None, lora, 1.0, 0)
    assert not torch.equal(made.sample(loaded), plain)
    assert any(name.endswith("lora_up.weight") and weight.any() for name, weight in lora.items())


@pytest.mark.parametrize("family", ["FreeSteer playground", "Wan", "Flux"])
def test_the_last_layer_that_is_looked_at_learns_too(family):
    """Its keys are read after the LoRA has acted."""
    made = tiny.build(family, True)
    last = text_layers(families.family_of(made.model), made.model.model.diffusion_model)[-1]
    number = int(re.findall(r"\d+", last.points[0].module)[0])
    linears = families.family_of(made.model).text_linears(made.model.model.diffusion_model)
    path = next(each[0] for each in reversed(linears) if int(re.findall(r"\d+", each[0])[0]) == number)
    lora, _ = trained(made, dataclasses.replace(FEW, keep=0.0, own=0.0, learning_rate=1e-2))
    assert lora[f"diffusion_model.{path}.lora_up.weight"].any()


def test_it_learns(playground, node):
    """More is asked for in `bench composition`; here attention to two things comes to be apart."""
    _, loss, curves, steps = node(steps=60, pictures=4, learning_rate=3e-3, keep=0.1)
    first, last = (sum(part) / len(part) for part in (loss["loss"][:10], loss["loss"][-10:]))
    assert last < 0.95 * first and steps == 60
    assert curves.shape[0] == 1 and curves.std() > 0.05


def test_what_was_stopped_goes_on_to_the_same_end(tmp_path):
    made = tiny.build("SD 1.5", True)
    goes_on_to_the_same_end(lambda folder, audience: trained(made, FEW, folder, audience), tmp_path, LORA_FILE)


def test_an_interrupt_is_heard_and_leaves_the_lora_so_far(node, tmp_path, monkeypatch):
    is_interrupted(node, monkeypatch)
    (file,) = tmp_path.glob(f"freesteer_training/composition-*/{LORA_FILE}")
    assert load_file(file)
    lora, loss, _, steps = node()
    assert steps == 3 == len(loss["loss"]) and set(lora) == set(load_file(file))


def test_fewer_steps_than_were_done_are_refused(node):
    refuses_fewer_steps(node)


def test_another_checkpoint_begins_a_run_of_its_own(node, playground, tmp_path):
    other, _, _ = models.load()
    with torch.inference_mode():
        for weight in other.model.diffusion_model.parameters():
            if weight.ndim == 2:
                weight.mul_(1.001)  # as a merge does
    node()
    node(model=other)
    assert len(list(tmp_path.glob("freesteer_training/*"))) == 2


def test_other_concepts_begin_a_run_of_their_own(node, tmp_path):
    node()
    node(steps=4)
    assert len(list(tmp_path.glob("freesteer_training/*"))) == 1
    node(concepts="red ball\ngreen star")
    node(rank=4)
    assert len(list(tmp_path.glob("freesteer_training/*"))) == 3


def test_prompts_are_made_of_concepts():
    lines = ["red ball", "an orange ring", "a blue star and a white cross", "green heart"]
    prompts, singles = prompts_of(lines, 0)
    assert next(iter(prompts)) == "a blue star and a white cross" and len(prompts) == 1 + 6 + 6  # all pairs and threes, in each order
    assert prompts["a photo of a red ball and an orange ring"] == ["red ball", "orange ring"]
    things = ["a photo of a red ball", "a photo of an orange ring", "a photo of a green heart"]
    assert singles == [*things, "a blue star", "a white cross", ""]
    many, alone = prompts_of([f"red {name}" for name in "abcdefghijklmnop"], 0)
    assert 160 < len(many) <= 200 and len(alone) == 17


@pytest.mark.parametrize(
    ("line", "alone"),
    [
        ("a cat and a dog on grass", ["a cat on grass", "a dog on grass"]),
        ("The cat, an owl and a dog", ["a cat", "an owl", "a dog"]),
        ("A photo of the cat and an owl at night", ["A photo of a cat at night", "A photo of an owl at night"]),
        ("cat and dog in the snow, 4k", ["a cat in the snow, 4k", "a dog in the snow, 4k"]),
        ("a (red cat:1.2) and a dog", ["a photo of a red cat", "a photo of a dog"]),
    ],
)
def test_a_prompt_of_several_is_said_of_each_alone(line, alone):
    assert prompts_of([line], 0)[1] == [*alone, ""]


def test_concepts_stay_whole():
    prompts, _ = prompts_of(["knight with a sword", "running shoes", "the cat"], 0)
    assert prompts["a photo of a knight with a sword and a running shoes"] == ["knight with a sword", "running shoes"]
    assert prompts["a photo of a running shoes and a cat"] == ["running shoes", "cat"]


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({"concepts": ""}, InputError, "concepts is empty"),
        ({"concepts": "red ball"}, CompositionError, "concepts has one thing"),
        ({"concepts": "red ball\nred ball"}, CompositionError, "concepts has one thing"),
        ({"concepts": "\n".join(f"thing {i}" for i in range(101))}, InputError, "100 prompts are the most"),
        ({"steps": 0}, InputError, "steps is 0"),
        ({"rank": 0}, InputError, "rank is 0"),
        ({"rank": 129}, InputError, "rank is 129"),
        ({"rank": 100}, AdapterError, "rank is 100, and layer"),
        ({"learning_rate": 0.0}, InputError, "learning_rate is 0"),
        ({"learning_rate": NAN}, InputError, "learning_rate is nan"),
        ({"keep": -1.0}, InputError, "keep is -1"),
        ({"separate": 11.0}, InputError, "separate is 11"),
        ({"enhance": -0.5}, InputError, "enhance is -0.5"),
        ({"own_latents": 1.5}, InputError, "own_latents is 1.5"),
        ({"pictures": 0}, InputError, "pictures is 0"),
        ({"targets": "values"}, InputError, "targets is 'values'"),
        ({"layers": "some"}, InputError, "layers is 'some'"),
        ({"clip": None}, InputError, "clip is missing"),
        ({"latent": {}}, InputError, "latent has to be that of pictures"),
        ({"latent": {"samples": torch.full((1, 4, 8, 8), NAN)}}, InputError, "not numbers"),
        ({"latent": {"samples": torch.ones(1, 16, 8, 8)}}, InputError, "latent has 16 channels"),
        ({"seed": -1}, InputError, "seed is -1"),
    ],
)
def test_what_cannot_be_is_said(node, inputs, error, says):
    with pytest.raises(error, match=says):
        node(**inputs)


def test_a_quantised_model_is_refused(node):
    made = tiny.quantised("FreeSteer playground", "int8_tensorwise")
    with pytest.raises(NoGradientError, match="bf16, fp16 or fp8"):
        node(model=made.model)


def test_a_picture_is_shown_on_the_way(node, monkeypatch):
    assert shown_last(node, monkeypatch) == ("JPEG", (1, 4, 16, 16))
