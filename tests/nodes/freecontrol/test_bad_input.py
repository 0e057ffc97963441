"""Whatever is connected by mistake is refused in one sentence, before anything is sampled, and leaves the MODEL as it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.sample
import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from freesteer.core.freecontrol import bases_file
from freesteer.nodes.freecontrol.basis import FOLDER
from freesteer.nodes.freecontrol.types import ModelStructure

from ..conftest import World, run, tiny

NAN, INFINITY = float("nan"), float("inf")
Act = Callable[[World], object]


def extract(**inputs) -> Act:
    """Extract Basis with these inputs; a function is called with the world."""

    def act(world: World):
        given = {"model": world.model, "clip": world.clip, "latent": world.latent, **inputs}
        return run("FreeSteerExtractBasis", **{k: v(world) if callable(v) else v for k, v in given.items()})

    return act


def structure(**inputs) -> Act:
    def act(world: World):
        given = {"model": world.model, "basis": world.basis, "vae": world.vae, "image": world.image, "positive": world.positive, **inputs}
        return run("FreeSteerStructure", **{k: v(world) if callable(v) else v for k, v in given.items()})

    return act


def control(**inputs) -> Act:
    def act(world: World):
        given = {"model": world.model, "structure": world.structure, **inputs}
        return run("FreeSteerFreeControl", **{k: v(world) if callable(v) else v for k, v in given.items()})

    return act


def from_image(**inputs) -> Act:
    def act(world: World):
        given = {"model": world.model, "clip": world.clip, "vae": world.vae, "image": world.image, **inputs}
        return run("FreeSteerFreeControlFromImage", **{k: v(world) if callable(v) else v for k, v in given.items()})

    return act


def overlap(**inputs) -> Act:
    given = {"result": torch.rand(2, 32, 32, 3), "condition": torch.ones(1, 32, 32), **inputs}
    return lambda world: run("FreeSteerOverlap", **given)


def draw(**inputs) -> Act:
    return lambda world: run("FreeSteerPlaygroundCondition", **{"kind": "edge", **inputs})


def stranger(world: World):
    """A U-Net with text of a width that no family has."""
    recipe = tiny.RECIPES["SD 1.5"]
    return tiny.assemble(replace(recipe, unet={**recipe.unet, "context_dim": 999}), False, torch.float32, None)


def other(world: World):
    return tiny.build("SD 1.5").model


def wrong_width(world: World):
    layers = world.basis.basis.layers
    layers = {name: replace(each, mean=each.mean[..., :-1], components=each.components[..., :-1]) for name, each in layers.items()}
    return replace(world.basis, basis=replace(world.basis.basis, layers=layers))


def renamed(world: World):
    layers = {f"{name}.x": layer for name, layer in world.basis.basis.layers.items()}
    return replace(world.basis, basis=replace(world.basis.basis, layers=layers))


def broken(values: torch.Tensor, value: float) -> torch.Tensor:
    values = values.clone()
    values.view(-1)[3] = value
    return values


WRONG_VAE = SimpleNamespace(latent_channels=16)
CASES: dict[str, tuple[Act, str]] = {
    "no prompt": (extract(prompts=""), "prompts is empty"),
    "blank prompts": (extract(prompts=" \n\t\n"), "prompts is empty"),
    "very many prompts": (extract(prompts="a star\n" * 101), "100 prompts"),
    "no seed images": (extract(seed_images=0), "seed_images is 0"),
    "minus one seed image": (extract(seed_images=-1), "seed_images is -1"),
    "too many seed images": (extract(seed_images=501), "1 to 500"),
    "no steps for a basis": (extract(steps=0), "steps is 0"),
    "negative cfg": (extract(cfg=-1.0), "cfg is -1"),
    "cfg is no number": (extract(cfg=NAN), "cfg is nan"),
    "no components": (extract(components=0), "components is 0"),
    "more components than channels": (extract(components=1024), "components is 1024, .* channels: choose 1 to"),
    "unknown layers": (extract(layers="finest"), "layers is 'finest'"),
    "latent without samples": (extract(latent={}), "latent has to be"),
    "latent is no dict": (extract(latent=[1]), "latent has to be"),
    "latent of a video": (extract(latent={"samples": torch.zeros(1, 4, 5, 8, 8)}), "clip of 5 frames"),
    "latent of another model": (extract(latent={"samples": torch.ones(1, 16, 8, 8)}), "16 channels where this model has 4"),
    "latent with NaN": (extract(latent={"samples": torch.full((1, 4, 8, 8), NAN)}), "latent has values that are not numbers"),
    "latent of no size": (extract(latent={"samples": torch.zeros(1, 4, 0, 8)}), "latent has to be"),
    "no text encoder": (extract(clip=None), "clip is missing"),
    "basis of an unknown model": (extract(model=stranger), "does not know this model"),
    "image with NaN": (structure(image=lambda w: broken(w.image, NAN)), "not numbers"),
    "image with infinity": (structure(image=lambda w: broken(w.image, INFINITY)), "not numbers"),
    "image without pixels": (structure(image=torch.zeros(1, 0, 8, 3)), "no pixels"),
    "no images": (structure(image=torch.zeros(0, 8, 8, 3)), "no pixels"),
    "image without batch": (structure(image=torch.zeros(8, 8, 3)), "image has to be an IMAGE"),
    "image of integers": (structure(image=torch.zeros(1, 8, 8, 3, dtype=torch.uint8)), "8 x 8 x 3 uint8"),
    "image of two channels": (structure(image=torch.zeros(1, 8, 8, 2)), "image has to be an IMAGE"),
    "image is None": (structure(image=None), "what came is nothing"),
    "mask of zeros": (structure(mask=torch.zeros(1, 96, 64)), "mask is empty"),
    "one empty mask of two": (structure(mask=torch.cat([torch.ones(1, 96, 64), torch.zeros(1, 96, 64)])), "mask is empty"),
    "mask with NaN": (structure(mask=torch.full((1, 96, 64), NAN)), "mask has values"),
    "mask of another shape": (structure(mask=torch.ones(1, 64, 96)), "mask is 96 x 64, the picture 64 x 96"),
    "three masks for a picture": (structure(mask=torch.ones(3, 96, 64)), "3 masks for 1 pictures"),
    "mask of four dimensions": (structure(mask=torch.ones(1, 1, 96, 64)), "mask has to be a MASK"),
    "mask of no size": (structure(mask=torch.ones(1, 0, 64)), "mask has to be a MASK"),
    "VAE of another model": (structure(vae=WRONG_VAE), "16 channels where this model needs one of 4"),
    "no VAE": (structure(vae=None), "vae is nothing"),
    "no conditioning": (structure(positive=[]), "positive is empty"),
    "conditioning with NaN": (structure(positive=[[torch.full((1, 16, 128), NAN), {}]]), "positive has values"),
    "unknown method": (structure(method="guess"), "method is 'guess'"),
    "no levels": (structure(levels=0), "levels is 0"),
    "too many levels": (structure(levels=51), "1 to 50"),
    "unknown lines": (structure(lines="wavy"), "lines is 'wavy'"),
    "no colourings": (structure(colourings=0), "colourings is 0"),
    "basis of another family": (structure(model=other), "a FreeSteer playground model, and this model is SD 1.5"),
    "basis of another width": (structure(basis=wrong_width), r"\d+ channels in layer .*, this FreeSteer playground model \d+"),
    "basis of other layers": (structure(basis=renamed), "layer .*x, which this FreeSteer playground model lacks"),
    "structure of an unknown model": (structure(model=stranger), "does not know this model"),
    "negative strength": (control(strength=-1.0), "strength is -1"),
    "strength is no number": (control(strength=NAN), "strength is nan"),
    "infinite strength": (control(strength=INFINITY), "strength is inf"),
    "start after end": (control(start_percent=0.7, end_percent=0.2), "after end_percent"),
    "start before 0": (control(start_percent=-0.1), "start_percent is -0.1"),
    "end after 1": (control(end_percent=1.5), "end_percent is 1.5"),
    "negative background": (control(background=-1.0), "background is -1"),
    "negative appearance": (control(appearance=-0.5), "appearance is -0.5"),
    "more appearance than all": (control(appearance=1.5), "appearance is 1.5"),
    "unknown formula": (control(formula="secret"), "formula is 'secret'"),
    "no appearance components": (control(appearance_components=0, formula="paper"), "appearance_components is 0"),
    "more appearance components than the basis has": (control(appearance_components=9, formula="paper"), "choose 1 to 8"),
    "structure of another family": (control(model=other), "structure was made with a FreeSteer playground model, and this model is SD 1.5"),
    "steering an unknown model": (control(model=stranger), "does not know this model"),
    "structure of another width": (
        control(structure=lambda w: ModelStructure(replace(w.structure.structure, basis=wrong_width(w).basis), w.structure.family, ())),
        "channels in layer",
    ),
    "no subject": (from_image(subject=" "), "subject is empty"),
    "negative strength from image": (from_image(strength=-2.0), "strength is -2"),
    "NaN from image": (from_image(image=lambda w: broken(w.image, NAN)), "not numbers"),
    "empty mask from image": (from_image(mask=torch.zeros(1, 64, 64)), "mask is empty"),
    "odd mask from image": (from_image(mask=torch.ones(1, 64, 64)), "same shape"),
    "no text encoder from image": (from_image(clip=None), "clip is missing"),
    "wrong VAE from image": (from_image(vae=WRONG_VAE), "connect the VAE"),
    "video from image": (from_image(latent={"samples": torch.zeros(1, 4, 9, 8, 8)}), "clip of 9 frames"),
    "end before start from image": (from_image(end_percent=-0.1), "end_percent is -0.1"),
    "unknown model from image": (from_image(model=stranger), "does not know this model"),
    "overlap with nothing": (overlap(), "needs a prompt"),
    "overlap with an unknown word": (overlap(prompt="a dog in a park"), "no colour or shape"),
    "overlap with three prompts for two": (overlap(prompt="a star\na ball\na ring"), "3 lines for 2 pictures"),
    "overlap of NaN": (overlap(result=torch.full((1, 32, 32, 3), NAN), prompt="a star"), "result has pixels"),
    "overlap with three masks for two": (overlap(condition=torch.ones(3, 32, 32)), "3 masks for 2 pictures"),
    "overlap with an empty condition": (overlap(condition=torch.zeros(1, 32, 32)), "condition is empty"),
    "overlap of a size the playground has not": (overlap(result=torch.rand(1, 30, 30, 3), prompt="a star"), "30 x 30"),
    "unknown kind of condition": (draw(kind="sound"), "kind is 'sound'"),
    "unknown motion": (draw(motion="sideways"), "motion is 'sideways'"),
    "unknown shape": (draw(shape="dodecahedron"), "shape is"),
    "no conditions": (draw(batch_size=0), "batch_size is 0"),
    "too many conditions": (draw(batch_size=65), "batch_size is 65"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def model_is_as_before(world: World) -> Iterator[None]:
    """After every case: the MODEL samples bit-equal to before."""
    yield
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(world.sample(), world.before)


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def sample(*args, **kwargs):
        raise AssertionError("sampled before the input was checked")

    with monkeypatch.context() as patch:
        patch.setattr(comfy.sample, "sample_custom", sample)
        yield


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and 20 < len(text) < 400


@pytest.mark.parametrize(("act", "says"), CASES.values(), ids=CASES)
def test_it_is_refused_in_one_sentence_before_sampling(world: World, no_sampling: None, act: Act, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        act(world)
    assert is_one_sentence(str(refused.value))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path / "bases")], {".safetensors"}))
    (tmp_path / "bases").mkdir()
    return tmp_path / "bases"


def test_a_damaged_file_is_refused_in_one_sentence(world, folder) -> None:
    """All that can be wrong with one: tests/core/freecontrol/test_bases_file.py."""
    (folder / "gift.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"^gift\.safetensors is damaged") as refused:
        run("FreeSteerLoadBasis", file="gift.safetensors")
    assert is_one_sentence(str(refused.value))


@pytest.mark.parametrize("name", ["nothing.safetensors", "../secret.safetensors", "{}/secret.safetensors", "..\\secret.safetensors", ""])
def test_only_files_of_the_folder_are_loaded(world, folder, name) -> None:
    bases_file.save(folder.parent / "secret.safetensors", world.basis)
    with pytest.raises(ValueError, match="choose one of the list"):
        run("FreeSteerLoadBasis", file=name.format(folder.parent))


@pytest.mark.parametrize(
    "name",
    [
        "", "  ", "../up", "a/../../up", "/tmp/absolute", "C:\\windows", "..\\up", "a//b", "nul\0", "what?", "a\nb", ".", "x" * 300,
        "aux/x", "NUL.txt",
    ],
)  # fmt: skip
def test_only_into_the_folder_is_saved(world, folder, name) -> None:
    with pytest.raises(ValueError, match="plain file name") as refused:
        run("FreeSteerSaveBasis", basis=world.basis, name=name)
    assert is_one_sentence(str(refused.value))
    assert [file for file in folder.parent.rglob("*") if file.is_file()] == []


def failing(model, error: Exception, call: int = 3):
    """With another pack's patch that goes wrong at its n-th call."""
    m = model.clone()
    calls = []

    def patch(executor, *args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return executor(*args, **kwargs)

    m.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another pack", patch)
    return m


ERRORS = [
    torch.OutOfMemoryError("simulated"),
    RuntimeError("from another pack"),
    comfy.model_management.InterruptProcessingException(),
    KeyError("x"),
]


@pytest.mark.parametrize("error", ERRORS[1:], ids=lambda e: type(e).__name__)  # lack of memory has a remedy: tests/host/gradients
@pytest.mark.parametrize("call", [1, 2, 3, 6])
def test_an_error_while_steering_is_passed_on_and_leaves_nothing_behind(world: World, steer, error, call) -> None:
    with pytest.raises(type(error)):
        world.sample(steer(model=failing(world.model, error, call)), steps=4)
    assert comfy.model_management.in_training is False
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_while_a_basis_is_made_is_passed_on(world: World, error) -> None:
    with pytest.raises(type(error)):
        extract(model=failing(world.model, error), seed_images=2, steps=3, components=4)(world)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_while_a_structure_is_read_is_passed_on(world: World, error) -> None:
    with pytest.raises(type(error)):
        structure(model=failing(world.model, error, 2), levels=4)(world)


def test_an_interrupt_stops_making_a_basis_half_way(world: World, monkeypatch) -> None:
    from freesteer.nodes.freecontrol import previews as freecontrol_previews

    seen = []
    show = freecontrol_previews.SeedPictures.__call__

    def interrupted(self, level, clean):
        seen.append(level)
        if len(seen) == 2:
            comfy.model_management.interrupt_current_processing(True)
        show(self, level, clean)

    monkeypatch.setattr(freecontrol_previews.SeedPictures, "__call__", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        extract(seed_images=2, steps=6, components=4)(world)
    assert len(seen) == 2


@pytest.mark.parametrize("steps", [0, 1])
def test_no_or_one_step_does_what_it_does_without_steering(world: World, steer, steps) -> None:
    try:
        plain = world.sample(steps=steps)
    except Exception as error:
        with pytest.raises(type(error)):
            world.sample(steer(), steps=steps)
        return
    steered = world.sample(steer(), steps=steps)
    assert steered.shape == plain.shape
    assert torch.isfinite(steered).all()


def test_areas_are_refused_and_the_remedy_named(world: World, steer) -> None:
    area = [[world.positive[0][0], {"area": (8, 8, 0, 0), "strength": 1.0}]]
    with torch.inference_mode(), pytest.raises(RuntimeError, match="Conditioning Set Mask"):
        noise = comfy.sample.prepare_noise(world.latent["samples"], 1)
        comfy.sample.sample(
            steer(), noise, 2, 4.0, "euler", "normal", area, world.negative, world.latent["samples"], disable_pbar=True, seed=1
        )


def test_a_condition_is_not_read_with_an_area(world: World) -> None:
    area = [[world.positive[0][0], {"area": (8, 8, 0, 0), "strength": 1.0}]]
    with pytest.raises(RuntimeError, match="Conditioning Set Area"):
        run("FreeSteerStructure", model=world.model, basis=world.basis, vae=world.vae, image=world.image, positive=area)
