"""Files of embeddings: three kinds are read, and others say what is wrong."""

import h5py
import numpy as np
import pytest
import torch
from freesteer.core.large_image.embeddings_file import EmbeddingsError, read
from safetensors.torch import save_file

VALUES = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "seen.npy", VALUES.numpy())
    save_file({"feat_patch": VALUES, "other": VALUES + 1}, tmp_path / "seen.safetensors")
    with h5py.File(tmp_path / "seen.h5", "w") as file:
        file["feat_patch"] = VALUES.half().numpy()
        file["deep/other"] = VALUES.numpy() + 1
        file["names"] = ["a", "b"]
    return tmp_path


@pytest.mark.parametrize(("name", "entry"), [("seen.npy", ""), ("seen.safetensors", "feat_patch"), ("seen.h5", "feat_patch")])
def test_each_kind_is_read(files, name, entry):
    torch.testing.assert_close(read(files / name, entry), VALUES, rtol=1e-3, atol=1e-3)


def test_an_entry_may_lie_deeper(files):
    torch.testing.assert_close(read(files / "seen.h5", "deep/other"), VALUES + 1)


@pytest.mark.parametrize("name", ["seen.safetensors", "seen.h5"])
@pytest.mark.parametrize("entry", ["", "feat"])
def test_an_entry_has_to_be_named(files, name, entry):
    with pytest.raises(EmbeddingsError, match=r"choose one of .*feat_patch"):
        read(files / name, entry)


@pytest.mark.parametrize("name", ["seen.npy", "seen.safetensors", "seen.h5"])
@pytest.mark.parametrize("content", [b"", b"not numbers at all"])
def test_damaged_files_say_so(files, name, content):
    (files / name).write_bytes(content)
    with pytest.raises(EmbeddingsError, match=f"{name} is damaged"):
        read(files / name)


def test_pickled_numbers_are_not_unpacked(tmp_path):
    np.save(tmp_path / "seen.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EmbeddingsError, match=r"seen.npy is damaged"):
        read(tmp_path / "seen.npy")


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((0, 4)), np.full((2, 4), np.nan)])
def test_numbers_that_are_no_rows_say_so(tmp_path, values):
    np.save(tmp_path / "seen.npy", values)
    with pytest.raises(EmbeddingsError, match="give a row of numbers for each place"):
        read(tmp_path / "seen.npy")
