# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""Bases on disk: the same bits come back, nothing is overwritten, and the user's own folders count."""

import os
from pathlib import Path

import folder_paths
import pytest
import torch
from freesteer.nodes.common.files import register_folder
from freesteer.nodes.freecontrol.basis import FOLDER

from ..conftest import CLASSES, World, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], {".safetensors"}))
    return tmp_path


def test_a_loaded_basis_gives_the_same_structure(world: World, folder: Path) -> None:
    run("FreeSteerSaveBasis", basis=world.basis, name="stars")
    (loaded,) = run("FreeSteerLoadBasis", file="stars_00001_.safetensors")
    given = {"model": world.model, "vae": world.vae, "image": world.image, "positive": world.positive, "levels": 3}
    (structure,) = run("FreeSteerStructure", basis=loaded, **given)
    for layer, values in world.structure.structure.coordinates.items():
        assert torch.equal(structure.structure.coordinates[layer], values)


def test_a_name_that_is_taken_gets_the_next_number(world: World, folder: Path) -> None:
    for _ in range(3):
        run("FreeSteerSaveBasis", basis=world.basis, name="people/sd15")
    assert sorted(os.listdir(folder / "people")) == [f"sd15_0000{i}_.safetensors" for i in (1, 2, 3)]
    assert os.path.join("people", "sd15_00002_.safetensors") in CLASSES["FreeSteerLoadBasis"].GET_SCHEMA().inputs[0].options


def test_a_changed_file_is_read_again(world: World, folder: Path) -> None:
    run("FreeSteerSaveBasis", basis=world.basis, name="stars")
    name = "stars_00001_.safetensors"
    load = CLASSES["FreeSteerLoadBasis"]
    before = load.fingerprint_inputs(file=name)
    assert load.fingerprint_inputs(file=name) == before
    os.utime(folder / name, ns=(1, 1))
    assert load.fingerprint_inputs(file=name) != before
    assert load.fingerprint_inputs(file="gone.safetensors") != before


def test_folders_of_extra_model_paths_stay_first(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.path.join(folder_paths.models_dir, FOLDER)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, (["/elsewhere"], set()))
    for _ in range(2):
        register_folder(FOLDER)
        assert folder_paths.folder_names_and_paths[FOLDER] == (["/elsewhere", own], {".safetensors"})


def test_no_file_is_no_error(folder: Path) -> None:
    assert CLASSES["FreeSteerLoadBasis"].GET_SCHEMA().inputs[0].options == []
