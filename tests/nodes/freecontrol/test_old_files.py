# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""Bases of earlier versions stay in use: one that version 0.1 saved is loaded, and steers.

Version 0.1 made it of the playground: "a star" and "a ball", 8 seed pictures, 6 steps, 8 components.
"""

import comfy.sample
import folder_paths
import pytest
import torch
from freesteer.nodes.freecontrol.basis import FOLDER
from freesteer.tools.load_pack import ROOT

from ..conftest import run

OLD = ROOT / "tests" / "data" / "v0_1"
PICTURES, STEPS, PROMPT = 4, 12, "a red star on grass"


@pytest.fixture
def basis(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([str(OLD)], {".safetensors"}))
    return run("FreeSteerLoadBasis", file="basis.safetensors")[0]


def test_a_basis_of_0_1_is_read_as_it_was_made(basis) -> None:
    assert (basis.family, basis.prompts, basis.size, basis.basis.shared) == ("FreeSteer playground", ("a star", "a ball"), (16, 16), True)
    widths = {name: tuple(layer.components.shape) for name, layer in basis.basis.layers.items()}
    assert widths == {f"output.{number}.attn1": (6, 8, 128 if number < 4 else 64) for number in range(6)}


@pytest.mark.slow
def test_a_basis_of_0_1_steers(basis) -> None:
    model, clip, vae = run("FreeSteerLoadPlayground")
    image, mask = run("FreeSteerPlaygroundCondition", kind="silhouette", batch_size=PICTURES, seed=7)
    subject, positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a star", PROMPT, ""))
    (structure,) = run("FreeSteerStructure", model=model, basis=basis, vae=vae, image=image, positive=subject)
    (steered,) = run("FreeSteerFreeControl", model=model, structure=structure)
    latent = torch.zeros(PICTURES, 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, 11)

    def overlap(drawing) -> float:
        with torch.inference_mode():
            drawn = comfy.sample.sample(
                drawing, noise, STEPS, 5.0, "euler", "normal", positive, negative, latent, disable_pbar=True, seed=11
            )  # fmt: skip
            pictures = vae.decode(drawn)
        return run("FreeSteerOverlap", result=pictures, condition=mask, prompt=PROMPT)[0]

    assert overlap(steered) > overlap(model) + 0.3
