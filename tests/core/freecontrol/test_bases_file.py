"""Bases on disk: the same bits come back, and whatever a stranger may send is refused in one sentence."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from freesteer.core.freecontrol import bases_file
from freesteer.core.freecontrol.bases_file import BasisFileError, ModelBasis
from freesteer.core.freecontrol.semantic_basis import Basis, LayerBasis

NAN, INFINITY = float("nan"), float("inf")


def layer(channels: int, shared: bool, levels: int = 3, count: int = 4) -> LayerBasis:
    generator = torch.Generator().manual_seed(channels)
    components = torch.randn(1 if shared else levels, count, channels, generator=generator).expand(levels, -1, -1)
    mean, deviation = torch.randn(levels, channels, generator=generator), torch.rand(levels, count, generator=generator) + 0.1
    return LayerBasis(mean, components, deviation)


def basis(shared: bool = True) -> ModelBasis:
    """Of two layers, of 4 and 6 channels, at three noise levels."""
    layers = {"output.0": layer(6, shared), "output.1": layer(4, shared)}
    return ModelBasis(Basis(torch.tensor([10.0, 1.0, 0.1]), layers, shared), "SD 1.5", ("a star", "ein Stern, \u661f"), (24, 16))


@pytest.mark.parametrize("shared", [True, False])
def test_a_basis_comes_back_bit_by_bit(tmp_path: Path, shared: bool) -> None:
    made = basis(shared)
    bases_file.save(tmp_path / "a.safetensors", made)
    found = bases_file.load(tmp_path / "a.safetensors")
    assert (found.family, found.prompts, found.size, found.basis.shared) == (made.family, made.prompts, made.size, shared)
    assert torch.equal(found.basis.sigmas, made.basis.sigmas)
    assert list(found.basis.layers) == list(made.basis.layers)
    for name, one in made.basis.layers.items():
        for part in bases_file.PARTS:
            assert torch.equal(getattr(found.basis.layers[name], part), getattr(one, part))


def test_shared_components_are_written_once(tmp_path: Path) -> None:
    bases_file.save(tmp_path / "a.safetensors", basis(shared=True))
    assert safetensors.torch.load_file(tmp_path / "a.safetensors")["output.0.components"].shape == (1, 4, 6)


def test_the_file_does_not_hold_the_basis_that_was_read(tmp_path: Path) -> None:
    """What has been read does not change when the file does."""
    bases_file.save(tmp_path / "a.safetensors", basis())
    found = bases_file.load(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.write(bytes(len(content)))
    assert torch.equal(found.basis.layers["output.1"].mean, basis().basis.layers["output.1"].mean)


def test_a_basis_of_one_level_and_as_many_components_as_channels_is_one(tmp_path: Path) -> None:
    made = ModelBasis(Basis(torch.tensor([1.0]), {"a": layer(4, False, levels=1)}, False), "SD 1.5", (), (1, 1))
    bases_file.save(tmp_path / "a.safetensors", made)
    assert bases_file.load(tmp_path / "a.safetensors").basis.components == 4


def test_the_largest_that_is_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = basis()
    numbers = sum(4 * (3 * one.mean.shape[1] + one.components[0].numel() + 3 * 4) for one in made.basis.layers.values()) + 4 * 3
    monkeypatch.setattr(bases_file, "LARGEST", bases_file.MARGIN + numbers)
    bases_file.save(tmp_path / "a.safetensors", made)
    assert bases_file.load(tmp_path / "a.safetensors").size == made.size
    monkeypatch.setattr(bases_file, "LARGEST", bases_file.MARGIN + numbers - 1)
    with pytest.raises(BasisFileError, match="fewer components"):
        bases_file.save(tmp_path / "b.safetensors", made)
    monkeypatch.setattr(bases_file, "LARGEST", (tmp_path / "a.safetensors").stat().st_size)
    assert bases_file.load(tmp_path / "a.safetensors").size == made.size
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_an_unfinished_file_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(bases_file.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        bases_file.save(tmp_path / "a.safetensors", basis())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("kind", "count"), [("levels", 3), ("layers", 2), ("prompts", 2), ("channels", 24)])
def test_there_may_be_as_many_as_the_limits_say_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int) -> None:
    bases_file.save(tmp_path / "a.safetensors", basis())
    monkeypatch.setitem(bases_file.MOST, kind, count + (kind == "channels"))  # a picture's side is below it
    bases_file.load(tmp_path / "a.safetensors")
    monkeypatch.setitem(bases_file.MOST, kind, count - (kind != "channels"))
    with pytest.raises(BasisFileError):
        bases_file.load(tmp_path / "a.safetensors")


def broken(values: torch.Tensor, value: float) -> torch.Tensor:
    values = values.clone()
    values.view(-1)[3] = value
    return values


def tensors_of(made: ModelBasis, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    bases_file.save(path, made)
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118


def changed_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path, ModelBasis], None]:
    def write(path: Path, made: ModelBasis) -> None:
        tensors, about = tensors_of(made, path)
        change(tensors)
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)

    return write


def changed_metadata(**changes: str | None) -> Callable[[Path, ModelBasis], None]:
    def write(path: Path, made: ModelBasis) -> None:
        tensors, about = tensors_of(made, path)
        safetensors.torch.save_file(tensors, path, {k: v for k, v in {**about, **changes}.items() if v is not None})

    return write


def raw(content: bytes) -> Callable[[Path, ModelBasis], object]:
    return lambda path, made: path.write_bytes(content)


def cut(share: float) -> Callable[[Path, ModelBasis], None]:
    def write(path: Path, made: ModelBasis) -> None:
        bases_file.save(path, made)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return write


def sparse(size: int) -> Callable[[Path, ModelBasis], None]:
    """A file of so many bytes that takes no space."""

    def write(path: Path, made: ModelBasis) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return write


def first(end: str, tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.endswith(end))


def put(end: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, ModelBasis], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = first(end, tensors)
        tensors[name] = value(tensors[name])

    return changed_tensors(change)


def with_components(count: int) -> Callable[[Path, ModelBasis], None]:
    """In the layer of four channels."""
    parts = {"output.1.components": torch.ones(1, count, 4), "output.1.deviation": torch.ones(3, count)}
    return changed_tensors(lambda tensors: tensors.update(parts))


class Evil:
    def __reduce__(self):
        return (Path("pickled.txt").write_text, ("run",))


DAMAGED = "damaged or is no safetensors"
FILES = {
    "empty": (raw(b""), DAMAGED),
    "cut in its header": (cut(0.001), DAMAGED),
    "cut in the middle": (cut(0.5), DAMAGED),
    "cut at its end": (cut(0.999), DAMAGED),
    "random bytes": (raw(torch.randint(256, (4096,), dtype=torch.uint8).numpy().tobytes()), DAMAGED),
    "a pickle": (raw(pickle.dumps(Evil())), DAMAGED),
    "a header of 2^60 bytes": (raw(struct.pack("<Q", 2**60) + b"{}"), DAMAGED),
    "offsets beyond its end": (
        raw(struct.pack("<Q", 62) + b'{"sigmas":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}  '),
        DAMAGED,
    ),
    "more than two gigabytes": (sparse(2**31 + 1), r"larger than any basis \(2 GB\)"),
    "two gigabytes of nothing": (sparse(2**31), DAMAGED),
    "other tensors, no metadata": (raw(safetensors.torch.save({"a": torch.ones(2)})), "not a FreeSteer basis"),
    "a LoRA": (changed_metadata(format="pt"), "not a FreeSteer basis"),
    "of a later version": (changed_metadata(version="2"), "version 2"),
    "without layers": (changed_metadata(layers=None), "does not say"),
    "with layers that are not JSON": (changed_metadata(layers="[a"), "does not say"),
    "with layers that are not a list": (changed_metadata(layers='{"a": 1}'), "does not say"),
    "with a layer twice": (changed_metadata(layers='["a", "a"]'), "does not say"),
    "with no layer": (changed_metadata(layers="[]"), "does not say"),
    "with deeply nested prompts": (changed_metadata(prompts="[" * 100_000), "does not say"),
    "with prompts that are numbers": (changed_metadata(prompts="[1, 2]"), "does not say"),
    "with a negative size": (changed_metadata(size="[-1, 8]"), "does not say"),
    "with a size of text": (changed_metadata(size='"8x8"'), "does not say"),
    "with another number of layers": (changed_metadata(layers=json.dumps(["output.9"])), "lacks 'output.9"),
    "without noise levels": (changed_tensors(lambda t: t.pop("sigmas") is None), "lacks 'sigmas'"),
    "without a mean": (changed_tensors(lambda t: t.pop(first("mean", t)) is None), "lacks"),
    "with a tensor too many": (changed_tensors(lambda t: t.update(more=torch.ones(2))), "holds 'more'"),
    "in half precision": (put("mean", torch.Tensor.half), "F16, not in F32"),
    "of integers": (put("deviation", torch.Tensor.long), "I64, not in F32"),
    "with NaN": (put("components", lambda t: broken(t, NAN)), "not finite"),
    "with infinity": (put("mean", lambda t: broken(t, INFINITY)), "not finite"),
    "with rising noise levels": (put("sigmas", lambda t: t.flip(0)), "do not fall"),
    "with a negative noise level": (put("sigmas", lambda t: -t.flip(0)), "do not fall"),
    "with noise levels in a table": (put("sigmas", lambda t: t[None]), "do not fall"),
    "with a mean of another width": (put("mean", lambda t: t[:, :-1]), "shapes"),
    "with a component too few": (put("components", lambda t: t[:, :-1]), "shapes"),
    "with flat components": (put("components", lambda t: t[0]), "shapes"),
    "with a level too few": (put("deviation", lambda t: t[:-1]), "shapes"),
    "with more components than channels": (with_components(5), "shapes"),
    "with no component": (with_components(0), "shapes"),
    "with a noise level of nothing": (put("sigmas", lambda t: t * torch.tensor([1, 1, 0])), "do not fall"),
    "with no noise level": (changed_tensors(lambda t: t.update(sigmas=torch.ones(0))), "do not fall"),
    "with one noise level twice": (put("sigmas", lambda t: t[[0, 1, 1]]), "do not fall"),
    "with a size of one side": (changed_metadata(size="[8]"), "does not say"),
    "with a size of nothing": (changed_metadata(size="[0, 8]"), "does not say"),
    "with a truth that is a number": (changed_metadata(shared="1"), "does not say"),
    "with a very long family": (changed_metadata(family="x" * 100_001), "does not say"),
    "with a deviation of 0": (put("deviation", lambda t: broken(t, 0.0)), "not positive"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "says"), FILES.values(), ids=FILES)
def test_a_damaged_or_hostile_file_is_refused_in_one_sentence(tmp_path: Path, write, says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "gift.safetensors", basis())
    with pytest.raises(BasisFileError, match=says) as refused:
        bases_file.load(tmp_path / "gift.safetensors")
    said = str(refused.value)
    assert said.startswith("gift.safetensors ") and said.endswith(".") and "\n" not in said and 20 < len(said) < 400
    assert not (tmp_path / "pickled.txt").exists()
