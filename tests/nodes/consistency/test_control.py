"""ControlNets that are trained here: the host's own, begun as they should be, and as good after a file as before."""

import dataclasses
import importlib
from typing import Any

import comfy.controlnet
import comfy.sample
import comfy.utils
import pytest
import torch
from freesteer.recipes.consistency import control as recipe
from freesteer.recipes.consistency.control import CONTROL_FILE, STRATEGIES, ControlError, ControlSettings, Pairs
from freesteer.recipes.training import NOBODY
from safetensors.torch import load_file

from ..conftest import tiny
from ..training_cases import goes_on_to_the_same_end

UNETS = ["SD 1.5", "SDXL", "FreeSteer playground"]
FEW = ControlSettings(steps=4, pictures=2, learning_rate=1e-3)


def pairs(made) -> Pairs:
    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(made.model, made.latent)
    generator = torch.Generator().manual_seed(0)
    h, w = latent.shape[-2:]
    hints = torch.rand(3, 3, 8 * h, 8 * w, generator=generator)
    return Pairs(torch.randn(3, *latent.shape[1:], generator=generator), hints, [0, 1, 0], [made.positive, made.negative])


def trained(made, settings=FEW, folder=None, audience=NOBODY):
    with torch.inference_mode():
        return recipe.train(made.model, pairs(made), settings, folder, audience)


def host_nodes() -> Any:
    return importlib.import_module("nodes")


def drawn(made, weights):
    """With the ControlNet, as the stock nodes apply it."""
    with torch.inference_mode():
        control = comfy.controlnet.load_controlnet_state_dict(dict(weights))
        hint = pairs(made).hints[:1].movedim(1, -1)
        applied = host_nodes().ControlNetApplyAdvanced().apply_controlnet(made.positive, made.negative, control, hint, 1.0, 0.0, 1.0)
        return dataclasses.replace(made, positive=applied[0], negative=applied[1]).sample()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", UNETS)
def test_unets_get_a_controlnet_that_the_host_loads(family, strategy, tmp_path):
    made = tiny.build(family, True)
    plain = made.sample()
    weights, history = trained(made, ControlSettings(strategy, 2, 1e-3, 2), tmp_path)
    assert len(history["loss"]) == 2 and all(torch.isfinite(weight).all() for weight in weights.values())
    assert torch.equal(made.sample(), plain)
    found = drawn(made, weights)
    assert torch.equal(found, drawn(made, load_file(tmp_path / CONTROL_FILE))) and not torch.equal(found, plain)


def test_before_it_has_learnt_it_changes_nothing():
    made = tiny.build("SD 1.5", True)
    weights = recipe.for_the_host(recipe.initial(made.model.model, torch.device("cpu")).state_dict())
    torch.testing.assert_close(drawn(made, weights), made.sample())
    own = made.model.model.diffusion_model.state_dict()
    shared = [name for name in weights if name in own]
    assert len(shared) > 50 and all(torch.equal(weights[name], own[name].half()) for name in shared)


def test_what_was_stopped_goes_on_to_the_same_end(tmp_path):
    made = tiny.build("FreeSteer playground", True)
    goes_on_to_the_same_end(lambda folder, audience: trained(made, FEW, folder, audience), tmp_path, CONTROL_FILE)


@pytest.mark.parametrize("family", ["Flux", "SD 3"])
def test_other_models_are_told(family):
    with pytest.raises(ControlError, match="this model is no UNet"):
        trained(tiny.build(family, True))
