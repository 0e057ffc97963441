"""ControlNets that are trained here: the host's own, begun as they should be, and as good after a file as before."""

import comfy.controlnet
import pytest
import torch
from freesteer.recipes.consistency import control as recipe
from freesteer.recipes.consistency.control import CONTROL_FILE, STRATEGIES, ControlSettings
from freesteer.recipes.consistency.controlled import ControlError, for_the_host, initial
from freesteer.recipes.training import NOBODY
from freesteer.tests.host.controls import UNETS, drawn, pairs_of
from safetensors.torch import load_file

from ..conftest import tiny
from ..training_cases import goes_on_to_the_same_end

FEW = ControlSettings(steps=4, pictures=2, learning_rate=1e-3)


def trained(made, settings=FEW, folder=None, audience=NOBODY):
    with torch.inference_mode():
        return recipe.train(made.model, pairs_of(made), settings, folder, audience)


def drawn_by(made, weights):
    return drawn(made, comfy.controlnet.load_controlnet_state_dict(dict(weights)), steps=2)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", UNETS)
def test_unets_get_a_controlnet_that_the_host_loads(family, strategy, tmp_path):
    made = tiny.build(family, True)
    plain = made.sample()
    weights, history = trained(made, ControlSettings(strategy, 2, 1e-3, 2), tmp_path)
    assert len(history["loss"]) == 2 and all(torch.isfinite(weight).all() for weight in weights.values())
    assert torch.equal(made.sample(), plain)
    found = drawn_by(made, weights)
    assert torch.equal(found, drawn_by(made, load_file(tmp_path / CONTROL_FILE))) and not torch.equal(found, plain)


def test_before_it_has_learnt_it_changes_nothing():
    made = tiny.build("SD 1.5", True)
    weights = for_the_host(made.model.model, initial(made.model.model, torch.device("cpu")).state_dict())
    torch.testing.assert_close(drawn_by(made, weights), made.sample())
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
