"""Train ControlNet and Train Consistency Adapter as nodes, on the playground: what they make, keep and refuse."""

from pathlib import Path

import comfy.controlnet
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from freesteer.core.consistency import adapter_file
from freesteer.nodes.common.checks import InputError
from freesteer.playground.image import models
from freesteer.recipes.consistency.adapter import ADAPTER_FILE
from freesteer.recipes.consistency.control import CONTROL_FILE
from freesteer.recipes.consistency.controlled import ControlError, for_the_host, initial
from freesteer.recipes.training import TrainingError
from freesteer.tests.host.controls import control_of
from safetensors.torch import load_file

from ..conftest import run, tiny
from ..training_cases import is_interrupted, refuses_fewer_steps, shown_last

NAN = float("nan")
PICTURES = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def playground():
    with torch.inference_mode():
        model, clip, vae = models.load()
        return model, ModelSamplingDiscrete().patch(model, "lcm", False)[0], clip, vae


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    for kind in ("controlnet", "freesteer_adapters"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
    return tmp_path


@pytest.fixture
def train_control(playground, output):
    model, _, clip, vae = playground
    given = {"model": model, "clip": clip, "vae": vae, "image": PICTURES, "condition": 1 - PICTURES, "prompts": "a red ball on grass",
             "steps": 3, "batch": 2}  # fmt: skip
    return lambda **inputs: run("FreeSteerTrainControlNet", **{**given, **inputs})


@pytest.fixture(scope="module")
def control(playground):
    model = playground[0].model
    torch.manual_seed(0)
    with torch.inference_mode(False):
        return comfy.controlnet.load_controlnet_state_dict(for_the_host(model, initial(model, torch.device("cpu")).state_dict()))


@pytest.fixture
def train_adapter(playground, output, control):
    _, consistent, clip, vae = playground
    given = {"model": consistent, "clip": clip, "vae": vae, "image": PICTURES, "control_net": control, "condition": 1 - PICTURES,
             "prompts": "a red ball on grass", "steps": 3, "batch": 2, "rank": 2}  # fmt: skip
    return lambda **inputs: run("FreeSteerTrainConsistencyAdapter", **{**given, **inputs})


def test_a_controlnet_is_made_kept_and_saved(train_control, output):
    control, loss, curves = train_control(name="sub/edges")
    assert isinstance(control, comfy.controlnet.ControlNet) and len(loss["loss"]) == 3 and curves.ndim == 4
    (kept,) = output.glob(f"freesteer_training/control-*/{CONTROL_FILE}")
    saved = load_file(output / "controlnet" / "sub" / "edges_00001_.safetensors")
    assert all(torch.equal(weight, saved[name]) for name, weight in load_file(kept).items())
    train_control(name="sub/edges")
    assert (output / "controlnet" / "sub" / "edges_00002_.safetensors").exists()


def test_each_strategy_is_a_run_of_its_own(train_control, playground, output):
    train_control()
    train_control(model=playground[1], strategy="consistency")
    train_control(condition=PICTURES)
    assert len(list(output.glob("freesteer_training/control-*"))) == 3


def test_an_adapter_is_made_kept_and_saved(train_adapter, control, output):
    adapter, loss, _ = train_adapter(name="mine", kinds="noise, noise", condition_2=PICTURES, control_net_2=control)
    assert len(loss["loss"]) == 3
    (kept,) = output.glob(f"freesteer_training/adapter-*/{ADAPTER_FILE}")
    assert set(load_file(kept)) == set(adapter.weights)
    found, about = run("FreeSteerLoadConsistencyAdapter", file="mine_00001_.safetensors")
    assert set(found.weights) == set(adapter.weights) and about == "FreeSteer playground: noise, noise"
    assert adapter_file.load(kept).kinds == "noise, noise"


@pytest.mark.parametrize("kind", ["control", "adapter"])
def test_it_is_interrupted_goes_on_and_refuses_fewer_steps(kind, request, output, monkeypatch):
    node = request.getfixturevalue(f"train_{kind}")
    is_interrupted(node, monkeypatch)
    assert list(output.glob(f"freesteer_training/{kind}-*/*.safetensors"))
    assert len(node()[1]["loss"]) == 3
    refuses_fewer_steps(node)


@pytest.mark.parametrize("kind", ["control", "adapter"])
def test_pictures_are_shown_on_the_way(kind, request, monkeypatch):
    form, shape = shown_last(request.getfixturevalue(f"train_{kind}"), monkeypatch)
    assert form == "JPEG" and shape == (1, 4, 8, 24)


BOTH = [
    ({"prompts": ""}, InputError, "prompts is empty"),
    ({"prompts": "a ball\na ring"}, InputError, "prompts has 2 lines for 3 pictures"),
    ({"steps": 0}, InputError, "steps is 0"),
    ({"learning_rate": NAN}, InputError, "learning_rate is nan"),
    ({"batch": 0}, InputError, "batch is 0"),
    ({"seed": -1}, InputError, "seed is -1"),
    ({"clip": None}, InputError, "clip is missing"),
    ({"vae": None}, InputError, "vae is nothing"),
    ({"image": PICTURES[0]}, InputError, "image has to be an IMAGE"),
    ({"image": PICTURES * NAN}, InputError, "image has pixels that are not numbers"),
    ({"condition": None}, InputError, "condition has to be an IMAGE"),
    ({"condition": PICTURES[:1]}, InputError, "condition has 1 pictures of 64 x 64, and image 3 of 64 x 64"),
    ({"condition": torch.rand(3, 32, 64, 3)}, InputError, "condition has 3 pictures of 64 x 32, and image 3 of 64 x 64"),
    ({"condition": PICTURES * NAN}, InputError, "condition has pixels that are not numbers"),
    ({"name": "../up"}, InputError, "write a plain file name"),
    ({"name": "nul.txt"}, InputError, "write a plain file name"),
]


@pytest.mark.parametrize(("inputs", "error", "says"), [*BOTH, ({"strategy": "both"}, InputError, "strategy is 'both'"),
    ({"strategy": "consistency"}, ControlError, "This needs a consistency model")])  # fmt: skip
def test_what_cannot_be_is_said(train_control, inputs, error, says):
    with pytest.raises(error, match=says):
        train_control(**inputs)


@pytest.mark.parametrize(("inputs", "error", "says"), [*BOTH, ({"rank": 0}, InputError, "rank is 0"),
    ({"control_net": None}, InputError, "control_net is nothing"),
    ({"condition_2": PICTURES}, InputError, "control_net_2 is nothing"),
    ({"control_net": "edges"}, InputError, "control_net is str")])  # fmt: skip
def test_what_no_adapter_can_be_made_of_is_said(train_adapter, inputs, error, says):
    with pytest.raises(error, match=says):
        train_adapter(**inputs)


def test_other_models_are_told(train_control, train_adapter, playground):
    flux = tiny.build("Flux", True).model
    for node in (train_control, train_adapter):
        with pytest.raises(ControlError, match="this model is no UNet"):
            node(model=flux)
        with pytest.raises(ControlError, match="takes 8 channels for latents of 4"):
            node(model=tiny.build("SVD", True).model)
    with pytest.raises(ControlError, match="This needs a consistency model"):
        train_adapter(model=playground[0])
    with pytest.raises(ControlError, match="made for another model"):
        train_adapter(control_net=control_of(tiny.build("SD 1.5", True)))
    with pytest.raises(ControlError, match="This is a T2IAdapter"):
        train_adapter(control_net=comfy.controlnet.T2IAdapter(None, 3, 8, "nearest", torch.device("cpu")))


def test_nothing_is_lost_where_a_file_cannot_be_written(train_control, output, monkeypatch):
    (output / "controlnet").write_text("no folder")
    with pytest.raises(InputError, match="name is 'mine', which cannot be written"):
        train_control(name="mine")
    assert list(output.glob(f"freesteer_training/control-*/{CONTROL_FILE}"))


def test_too_little_memory_is_told_and_what_there_is_is_kept(train_control, output, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("freesteer.recipes.consistency.control.NoiseTrainer.loss", full)
    with pytest.raises(TrainingError, match="choose a smaller batch"):
        train_control()
    assert list(output.glob(f"freesteer_training/control-*/{CONTROL_FILE}"))
