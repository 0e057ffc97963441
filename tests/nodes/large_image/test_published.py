"""The published models and embeddings from files, as a user connects them."""

import folder_paths
import numpy as np
import pytest
import torch
from freesteer.nodes.common.checks import InputError
from freesteer.tests.host.models.test_representation import SEEN, autoencoder, state
from freesteer.tests.host.predicting import prediction
from safetensors.torch import save_file

from ..conftest import run

__all__ = ["autoencoder", "state"]  # fixtures
VALUES = torch.randn(2, 3, SEEN, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def folders(state, tmp_path, monkeypatch):
    """models/checkpoints and input, with a made-up checkpoint and a file of embeddings."""
    save_file(state, tmp_path / "last.safetensors")
    np.save(tmp_path / "seen.npy", VALUES.numpy())
    np.save(tmp_path / "of_another.npy", np.ones((6, SEEN + 1)))
    torch.save({"a": 1}, tmp_path / "other.ckpt")
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(tmp_path / name))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))


@pytest.fixture
def loaded(folders):
    return run("FreeSteerLoadRepresentation", checkpoint="last.safetensors")


def grid_of(loaded, **inputs):
    given = {"style_model": loaded[2], "file": "seen.npy", "entry": "", "first": 0, "rows": 2, "columns": 3}
    return run("FreeSteerGridFromEmbeddings", **{**given, **inputs})[0]


def test_windows_read_vectors_between_those_of_the_file(loaded):
    """As the authors do: raw vectors by slerp, first along rows, then made one long, then embedded."""
    model, _, style, _ = loaded
    steered, positive = run("FreeSteerGridGuidance", model=model, grid=grid_of(loaded, rows=1, columns=2), window=32, stride=16,
                            between="slerp", blending="uniform", wraps="none", together=0)  # fmt: skip
    x = torch.randn(1, 3, 8, 16, generator=torch.Generator().manual_seed(6))
    a, b = VALUES[0, :2]
    angle = torch.arccos(torch.nn.functional.cosine_similarity(a, b, dim=0))
    halfway = (torch.sin(angle / 2) / torch.sin(angle)) * (a + b)
    total, counted = torch.zeros_like(x), torch.zeros(16)
    for left, vector in ((0, a), (4, halfway), (8, b)):
        alone = [[style.model(vector[None, None]), {}]]
        total[..., left : left + 8] += prediction(model, alone, alone, x[..., left : left + 8].contiguous(), 1.0)
        counted[left : left + 8] += 1
    torch.testing.assert_close(prediction(steered, positive, positive, x, 1.0), total / counted, rtol=1e-3, atol=1e-3)


def test_a_grid_of_embeddings_is_resized_painted_and_shown(loaded):
    grid = grid_of(loaded)
    (larger,) = run("FreeSteerResizeGrid", grid=grid, rows=4, columns=6, between="slerp")
    (painted,) = run("FreeSteerPaintGrid", grid=larger, other=grid, amount=0.5, between="slerp")
    assert painted.embedder is grid.embedder and painted.words[0][0] == "0"
    assert run("FreeSteerPreviewGrid", grid=painted)[0].isfinite().all()


def test_vectors_of_a_list_are_taken_in_order(loaded):
    grid = grid_of(loaded, first=2, rows=2, columns=2)
    assert torch.equal(grid.cells[1][0][0][0, 0], VALUES.flatten(0, 1)[4]) and grid.words == (("2", "3"), ("4", "5"))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"style_model": None}, "connect that of Load Large-Image-Diffusion"),
        ({"file": "of_another.npy"}, f"vectors of {SEEN + 1} numbers"),
        ({"file": "gone.npy"}, "gone.npy is damaged, or no npy file"),
        ({"file": "../seen.npy"}, "name is"),
        ({"entry": "feat"}, "no entry 'feat'"),
        ({"rows": 3}, "too few for 3 x 3"),
        ({"first": 1}, "too few for 2 x 3 from number 1"),
        ({"first": -1}, "first is -1"),
        ({"rows": 0}, "rows is 0"),
        ({"columns": 2.5}, "columns is 2.5"),
    ],
)
def test_embeddings_that_cannot_be(loaded, inputs, says):
    with pytest.raises(InputError, match=says):
        grid_of(loaded, **inputs)


def test_a_checkpoint_that_is_another_says_so(folders):
    with pytest.raises(InputError, match=r"other.ckpt is no checkpoint of Large-Image-Diffusion"):
        run("FreeSteerLoadRepresentation", checkpoint="other.ckpt")
