# pyright: reportAttributeAccessIssue=false
"""Empty Clip Latent, for models of every kind of latent."""

import pytest
from freesteer.nodes.common.checks import InputError

from ..conftest import run, tiny

TIME = (2, 16, 4, 8, 12)
FORMS = {"SD 1.5": (26, 4, 8, 12), "SVD": (26, 4, 8, 12), "Wan": TIME, "Hunyuan Video": TIME, "Qwen-Image": TIME}


@pytest.mark.parametrize("family", FORMS)
def test_it_has_the_form_that_the_model_wants(family):
    model = tiny.build(family).model
    (latent,) = run("FreeSteerEmptyClip", model=model, width=96, height=64, length=13, batch_size=2)
    assert tuple(latent["samples"].shape) == FORMS[family] and not latent["samples"].any()


def test_a_cell_of_another_size_counts():
    (latent,) = run("FreeSteerEmptyClip", model=tiny.build("LTX Video").model, width=96, height=64, length=9)
    assert tuple(latent["samples"].shape) == (1, 128, 2, 2, 3)


@pytest.mark.parametrize(
    ("family", "inputs", "says"),
    [
        ("Wan", {"length": 14}, "length is 14, where this model takes 13 or 17 frames"),
        ("LTX Video", {"length": 13}, "takes 9 or 17 frames"),
        ("SD 1.5", {"width": 100}, "width is 100, where this model's latents have cells of 8 pixels"),
        ("LTX Video", {"length": 9, "height": 72}, "height is 72, where this model's latents have cells of 32 pixels"),
        ("Wan", {"length": 0}, "length is 0"),
        ("Wan", {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_is_said(family, inputs, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerEmptyClip", model=tiny.build(family).model, **inputs)
