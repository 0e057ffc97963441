"""Consistency adapters: what is trained fits many ControlNets of one model, and leaves each as it is."""

import dataclasses
from pathlib import Path

import comfy.controlnet
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from freesteer.core.consistency import adapter_file
from freesteer.core.consistency.adapter_file import Adapter, AdapterFileError
from freesteer.host.adapters.lora import AdapterError
from freesteer.nodes.common.checks import InputError
from freesteer.recipes.consistency import adapter as recipe
from freesteer.recipes.consistency.adapter import ADAPTER_FILE, AdapterSettings
from freesteer.recipes.consistency.controlled import MARK, ControlError, network_of
from freesteer.recipes.training import NOBODY
from freesteer.tests.host.controls import UNETS, control_of, drawn, pairs_of, weights_of
from safetensors.torch import load_file, save_file

from ..conftest import run, tiny
from ..training_cases import goes_on_to_the_same_end

FEW = AdapterSettings(steps=4, rank=4, pictures=2, learning_rate=1e-2)


def consistent(made):
    with torch.inference_mode():
        return ModelSamplingDiscrete().patch(made.model, "lcm", False)[0]


def trained(made, settings=FEW, folder=None, audience=NOBODY):
    pairs = pairs_of(made)
    both = [pairs, dataclasses.replace(pairs, hints=1 - pairs.hints)]
    with torch.inference_mode():
        adapter, history = recipe.train(
            consistent(made), [control_of(made, seed) for seed in (0, 1)], both, "two", settings, folder, audience
        )
        return adapter.weights, history


def applied(control, weights, strength: float = 1.0):
    return run("FreeSteerApplyConsistencyAdapter", control_net=control, adapter=Adapter(weights, "", ""), strength=strength)[0]


def as_controlnet(made, seed: int = 0):
    """In the host's ordinary class, which tiny models are not recognised as."""
    network = network_of(control_of(made, seed), made.model.model)
    return comfy.controlnet.ControlNet(network.requires_grad_(False), load_device=torch.device("cpu"))


@pytest.mark.parametrize("family", UNETS)
def test_it_fits_controlnets_that_it_was_trained_with_and_others(family, tmp_path):
    made = tiny.build(family, True)
    weights, history = trained(made, folder=tmp_path)
    assert len(history["loss"]) == 4 and all(torch.isfinite(weight).all() for weight in weights.values())
    assert set(load_file(tmp_path / ADAPTER_FILE)) == set(weights)
    for seed in (0, 5):
        control = control_of(made, seed)
        plain = drawn(made, control)
        assert not torch.equal(drawn(made, applied(control, weights)), plain)
        assert torch.equal(drawn(made, applied(control, weights, 0.0)), plain)
        assert torch.equal(drawn(made, control), plain)


@pytest.mark.parametrize("family", ["SD 1.5", "FreeSteer playground"])
def test_both_classes_of_the_host_take_it_alike(family):
    made = tiny.build(family, True)
    weights, _ = trained(made)
    one, other = as_controlnet(made), control_of(made)
    torch.testing.assert_close(drawn(made, one), drawn(made, other), rtol=0.02, atol=0.02)
    change = drawn(made, applied(one, weights)) - drawn(made, one)
    wanted = drawn(made, applied(other, weights)) - drawn(made, other)
    assert (change - wanted).std() < 0.1 * wanted.std()


def test_low_ranks_of_a_control_lora_are_kept():
    """Weights in two parts are as good as whole ones."""
    made = tiny.build("SD 1.5", True)
    whole = weights_of(made)
    path = "middle_block.0.in_layers.2"
    own = dict(made.model.model.diffusion_model.state_dict())[f"{path}.weight"].float()
    up, size, down = torch.linalg.svd((whole[f"{path}.weight"].float() - own).flatten(1), full_matrices=False)
    parted = {MARK: torch.zeros(0), **{name: weight for name, weight in whole.items() if name != f"{path}.weight"}}
    parted |= {f"{path}.up": (up * size)[:, :, None, None], f"{path}.down": down.reshape(-1, *own.shape[1:])}
    control, parts = (comfy.controlnet.load_controlnet_state_dict(dict(each)) for each in ({MARK: torch.zeros(0), **whole}, parted))
    weights, _ = trained(made)
    torch.testing.assert_close(drawn(made, applied(parts, weights)), drawn(made, applied(control, weights)), rtol=0.02, atol=0.02)
    torch.testing.assert_close(
        drawn(made, applied(applied(parts, weights), weights)), drawn(made, applied(control, weights, 2.0)), rtol=0.02, atol=0.02
    )
    network = network_of(parts, made.model.model)
    torch.testing.assert_close(network.state_dict()[f"{path}.weight"], whole[f"{path}.weight"].float(), rtol=1e-2, atol=1e-3)


def test_a_controlnet_and_its_adapted_self_go_together():
    """In one chain, each with its own weights."""
    made = tiny.build("SD 1.5", True)
    weights, _ = trained(made)
    for control, other in ((as_controlnet(made), as_controlnet(made)), (control_of(made), control_of(made))):
        together = drawn(made, applied(control, weights), previous=control)
        assert torch.equal(together, drawn(made, applied(other, weights), previous=control))
        assert not torch.equal(together, drawn(made, other, previous=control))


def test_an_adapted_controlnet_can_be_adapted_again():
    made = tiny.build("SD 1.5", True)
    weights, _ = trained(made)
    twice = applied(applied(control_of(made), weights), weights)
    torch.testing.assert_close(drawn(made, twice), drawn(made, applied(control_of(made), weights, 2.0)), rtol=0.02, atol=0.02)
    path = "middle_block.0.in_layers.2"
    kept, plain = (network_of(each, made.model.model).state_dict()[f"{path}.weight"] for each in (twice, control_of(made)))
    added = weights[f"control_model.{path}.lora_up.weight"].flatten(1) @ weights[f"control_model.{path}.lora_down.weight"].flatten(1)
    torch.testing.assert_close(kept, plain + 2 * added.reshape(plain.shape))


def test_a_strength_for_each_step_comes_before_or_after():
    made = tiny.build("SD 1.5", True)
    weights, _ = trained(made)
    control = control_of(made)

    def per_step(each):
        return run("FreeSteerControlStrengthPerStep", control_net=each, strengths="1 0.5 0.2 0")[0]

    assert torch.equal(drawn(made, applied(per_step(control), weights)), drawn(made, per_step(applied(control, weights))))


def test_what_was_stopped_goes_on_to_the_same_end(tmp_path):
    made = tiny.build("SD 1.5", True)
    goes_on_to_the_same_end(lambda folder, audience: trained(made, FEW, folder, audience), tmp_path, ADAPTER_FILE)


def test_an_adapter_of_another_model_is_told():
    weights, _ = trained(tiny.build("SD 1.5", True))
    larger = tiny.build("SDXL", True)
    low_ranks = comfy.controlnet.ControlLora(
        {"input_blocks.1.0.in_layers.2.up": torch.ones(8, 2), "input_blocks.1.0.in_layers.2.down": torch.ones(2, 3, 3, 3)}
    )
    for control in (control_of(larger), as_controlnet(larger), low_ranks, comfy.controlnet.ControlLora({})):
        with pytest.raises(AdapterError, match="trained for ControlNets of another model"):
            applied(control, weights)
    with pytest.raises(ControlError, match="made for another model"):
        network_of(control_of(tiny.build("SDXL", True)), tiny.build("SD 1.5", True).model.model)


def test_only_controlnets_take_it():
    with pytest.raises(InputError, match="control_net is nothing"):
        applied(None, {})
    with pytest.raises(AdapterError, match="T2IAdapter"):
        applied(comfy.controlnet.T2IAdapter(None, 3, 8, "nearest", torch.device("cpu")), {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "freesteer_adapters", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


WEIGHTS = {"control_model.a.lora_down.weight": torch.ones(2, 8), "control_model.a.lora_up.weight": torch.ones(8, 2)}
ABOUT = {"format": adapter_file.FORMAT, "version": "1", "kinds": "edge", "family": "SD 1.5"}


def test_a_file_is_read_as_it_was_written(folder):
    adapter_file.save(folder / "a.safetensors", Adapter(WEIGHTS, "edge, depth", "SD 1.5"))
    found, about = run("FreeSteerLoadConsistencyAdapter", file="a.safetensors")
    assert about == "SD 1.5: edge, depth"
    assert set(found.weights) == set(WEIGHTS) and all(torch.equal(found.weights[name], weight) for name, weight in WEIGHTS.items())
    with pytest.raises(InputError, match="there is no such file"):
        run("FreeSteerLoadConsistencyAdapter", file="../a.safetensors")


@pytest.mark.parametrize(
    ("weights", "about", "says"),
    [
        (WEIGHTS, {}, "is not a consistency adapter"),
        (WEIGHTS, {**ABOUT, "version": "2"}, "is of version 2"),
        ({name.removeprefix("control_model."): weight for name, weight in WEIGHTS.items()}, ABOUT, "which is not of an adapter"),
        ({}, ABOUT, "is empty"),
        ({"a.weight": torch.ones(2)}, ABOUT, "'a.weight', which is not of an adapter"),
        ({"a.lora_up.weight": torch.ones(8, 2)}, ABOUT, "which is not of an adapter"),
        ({**WEIGHTS, "control_model.a.lora_up.weight": torch.ones(8, 3)}, ABOUT, "do not fit each other"),
        ({**WEIGHTS, "control_model.a.lora_up.weight": torch.ones(8)}, ABOUT, "do not fit each other"),
        ({**WEIGHTS, "control_model.a.lora_up.weight": torch.ones(8, 2, 1, 1)}, ABOUT, "do not fit each other"),
        ({**WEIGHTS, "control_model.a.lora_up.weight": torch.full((8, 2), torch.nan)}, ABOUT, "that are not finite"),
    ],
)
def test_other_files_are_told(folder, weights, about, says):
    save_file(weights, folder / "a.safetensors", about)
    with pytest.raises(AdapterFileError, match=says):
        run("FreeSteerLoadConsistencyAdapter", file="a.safetensors")


def test_a_damaged_file_is_told(folder):
    (folder / "a.safetensors").write_bytes(b"\x08" + b"\0" * 40)
    with pytest.raises(AdapterFileError, match=r"a\.safetensors is damaged"):
        run("FreeSteerLoadConsistencyAdapter", file="a.safetensors")
