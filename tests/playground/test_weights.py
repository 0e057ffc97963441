import json
import re
from typing import Any

import pytest
import torch
from freesteer.playground.image import models
from freesteer.playground.referee import referee
from freesteer.playground.weights import load_compact, quantise, save_compact
from safetensors import safe_open
from safetensors.torch import save_file

FILES = (models.WEIGHTS, referee.WEIGHTS, referee.CLIP_WEIGHTS)


def some(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels = torch.logspace(-4, 2, 12)  # of very different sizes
    return {
        "a.conv.weight": torch.randn(12, 5, 3, 3, generator=generator) * channels[:, None, None, None],
        "a.linear.weight": torch.randn(12, 7, generator=generator).mT.contiguous().mT,  # not contiguous
        "a.norm.weight": torch.randn(9, generator=generator),
        "b.conv.weight": torch.randn(4, 5, 1, 1, generator=generator),
    }


def test_each_weight_is_off_by_half_a_step_of_its_channel_at_most(tmp_path):
    state = some()
    save_compact(state, tmp_path / "w.safetensors")
    loaded = load_compact(tmp_path / "w.safetensors")
    assert loaded.keys() == state.keys() and all(w.dtype == torch.float32 for w in loaded.values())
    for name, weight in state.items():
        if weight.ndim == 1:
            assert torch.equal(loaded[name], weight.half().float())
            continue
        step = weight.flatten(1).abs().amax(1) / 127
        off = (loaded[name] - weight).flatten(1).abs().amax(1)
        assert (off <= 0.5001 * step).all() and (off > 0.2 * step).any()  # the second: it was rounded at all


def test_the_largest_weight_of_a_channel_and_a_channel_of_zeros_come_back(tmp_path):
    weight = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    weight[1] = 0
    save_compact({"w": weight}, tmp_path / "w.safetensors")
    loaded = load_compact(tmp_path / "w.safetensors")["w"]
    most = weight.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(loaded.gather(1, most), weight.gather(1, most), rtol=1e-6, atol=0)
    assert (loaded[1] == 0).all()
    assert quantise(weight)[0].abs().max() == 127


def test_matrices_are_stored_in_8_bits_and_vectors_in_16(tmp_path):
    save_compact(some(), tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        kinds = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds["a.conv.weight"] == kinds["a.linear.weight"] == torch.int8 and kinds["a.norm.weight"] == torch.float16
    assert kinds["a.conv.weight.scale"] == torch.float32 and "a.norm.weight.scale" not in kinds


def test_saving_what_was_loaded_changes_nothing_more(tmp_path):
    save_compact(some(), tmp_path / "one.safetensors")
    once = load_compact(tmp_path / "one.safetensors")
    save_compact(once, tmp_path / "two.safetensors")
    twice = load_compact(tmp_path / "two.safetensors")
    assert all(torch.allclose(once[name], twice[name], rtol=1e-6, atol=0) for name in once)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize("bad", [torch.tensor([[1.0, torch.nan]]), torch.tensor([torch.inf]), torch.tensor([1, 2])])
def test_what_is_no_finite_float_is_not_saved(tmp_path, bad):
    with pytest.raises(ValueError, match=r"The weights net\.w are not all finite"):
        save_compact({"net.w": bad}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def refused(path) -> str:
    with pytest.raises(ValueError) as error:
        load_compact(path)
    said = str(error.value)
    assert path.name in said and re.search(r"[a-z]\.$", said)
    return said


def test_a_file_that_is_something_else_is_refused_in_words(tmp_path):
    other, page, empty, newer = (tmp_path / f"{name}.safetensors" for name in ("other", "page", "empty", "newer"))
    save_file({"w": torch.zeros(2, 2)}, other)
    page.write_text("<html>404: not found</html>")
    empty.write_bytes(b"")
    save_file({"w": torch.zeros(2, 2)}, newer, {"format": "freesteer weights", "version": "2"})
    assert "no safetensors file" in refused(page) and "no safetensors file" in refused(empty)
    assert "should hold freesteer weights of version 1" in refused(other) and "'2'" in refused(newer)
    whole = models.WEIGHTS.read_bytes()
    page.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(page)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_of_the_pack_hold_8_bits_a_weight(path):
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert header.pop("__metadata__") == {"format": "freesteer weights", "version": "1"}
    sizes = {
        kind: sum(v["data_offsets"][1] - v["data_offsets"][0] for v in header.values() if v["dtype"] == kind)
        for kind in ("I8", "F16", "F32")
    }
    assert sizes["I8"] > 0.9 * sum(sizes.values())


@torch.inference_mode()
def test_what_the_host_gets_are_plain_float32_weights():
    model, _, vae = models.load()  # of a CLIP, the host chooses the type itself
    networks: list[Any] = [model.model.diffusion_model, vae.first_stage_model, referee.load()]
    for network in networks:
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
        assert not any(name.endswith(".scale") for name in network.state_dict())
