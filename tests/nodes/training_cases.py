"""What holds for every node that trains: it can be stopped, goes on, and keeps what it has."""

from types import SimpleNamespace
from typing import Any

import comfy.model_management
import pytest
import torch
from freesteer.recipes.training import Audience, TrainingError
from safetensors.torch import load_file

STEPS = 4  # of `trained`


def goes_on_to_the_same_end(trained, tmp_path, file: str) -> None:
    """trained(folder, audience) -> weights and history"""
    whole, _ = trained(tmp_path / "whole", Audience())

    def stop(progress):
        if progress.step == 2:
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        trained(tmp_path / "parts", Audience(stop))
    assert set(load_file(tmp_path / "parts" / file)) == set(whole)
    rest, history = trained(tmp_path / "parts", Audience())
    assert len(history["loss"]) == STEPS
    for name, weight in whole.items():
        assert torch.equal(rest[name], weight)


def is_interrupted(node, monkeypatch) -> None:
    """A node of three steps, in the second."""

    def update(value, total=None, preview=None):
        if value == 2 and total == 3:
            comfy.model_management.interrupt_current_processing()

    with monkeypatch.context() as patch:
        patch.setattr("comfy.utils.ProgressBar", lambda total: SimpleNamespace(update_absolute=update))
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            node()


def refuses_fewer_steps(node) -> None:
    node(steps=3)
    with pytest.raises(TrainingError, match="trained for 3 steps already"):
        node(steps=2)


def shown_last(node, monkeypatch) -> Any:
    """What a node shows at last, as (form of the picture, shape of the latents)."""
    shown: list[Any] = []
    bar = SimpleNamespace(update_absolute=lambda value, total=None, preview=None: shown.append(preview))
    monkeypatch.setattr("comfy.utils.ProgressBar", lambda total: bar)
    previewer = SimpleNamespace(decode_latent_to_preview_image=lambda form, clean: (form, tuple(clean.shape)))
    monkeypatch.setattr("latent_preview.get_previewer", lambda *_: previewer)
    node()
    return shown[-1]
