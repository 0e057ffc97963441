"""A text encoder of another kind of model is told before anything is drawn."""

import pytest
import torch
from freesteer.nodes.common.checks import InputError
from freesteer.playground.image import models

from .conftest import run, tiny

LATENT = {"samples": torch.zeros(1, 4, 16, 16)}
PICTURES = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(0))
INPUTS = {
    "FreeSteerSeparateEnhance": {"text": "a red star and a blue ring"},
    "FreeSteerAttentionMaps": {"text": "a red star and a blue ring", "image": PICTURES},
    "FreeSteerTrainSeparateEnhance": {"concepts": "a star\na ring", "latent": LATENT, "steps": 1},
    "FreeSteerExtractBasis": {"prompts": "a star", "latent": LATENT},
    "FreeSteerDistilConsistencyLora": {"prompts": "a star", "negative": "", "latent": LATENT, "steps": 1},
    "FreeSteerTrainControlNet": {"prompts": "a star", "image": PICTURES, "condition": PICTURES, "steps": 1},
}


@pytest.mark.parametrize("node", INPUTS)
def test_a_clip_of_another_kind_of_model_is_told(node):
    _, clip, vae = models.load()
    given = {"vae": vae} if "image" in INPUTS[node] else {}
    with pytest.raises(InputError, match="clip is of another kind of model: it has 128 numbers a word, and this model reads 768"):
        run(node, model=tiny.build("SD 1.5", True).model, clip=clip, **given, **INPUTS[node])


def test_so_is_one_that_places_objects():
    tracks = run("FreeSteerBoxTrack", phrase="red star", keyframes="0.1 0.1 0.5 0.5")[0]
    for family, width in {"Flux": 12, "Wan": 24}.items():
        with pytest.raises(InputError, match=f"128 numbers a word, and this model reads {width}"):
            run("FreeSteerPeekaboo", model=tiny.build(family, True).model, clip=models.load()[1], tracks=tracks, text="a red star")
