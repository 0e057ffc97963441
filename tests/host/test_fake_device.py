"""A guided step of each family on a device that is not the CPU: no tensor is left on another one, and hardly a number is read.

The device is torch's "meta" with fake tensors, which report tensors of two devices in one operation, and numbers that are read.
(Autograd needs a driver for a fake "cuda".)
"""

from collections.abc import Iterator

import comfy.model_management
import pytest
import torch
from freesteer.benchmarks.host import random_models
from freesteer.benchmarks.host.counters import Reads
from freesteer.core.freecontrol.energy import Structure
from freesteer.core.freecontrol.semantic_basis import Basis, LayerBasis
from freesteer.host.models import families
from freesteer.host.sampling.reading import Request
from freesteer.recipes.freecontrol.guide import FreeControlGuide, GuideSettings, picture_grid
from freesteer.tests.host import tiny
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = "meta"
MUTATING = ("Flux", "Hunyuan Video", "LTX Video")  # copies of what these change cannot be told apart without values: recomputed
SIGMAS = torch.tensor([2.0, 1.0])  # not fake: they decide what is done


@pytest.fixture
def fake_device(monkeypatch) -> Iterator[Reads]:
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda _=None, both=False: (1e12, 1e12) if both else 1e12)
    with FakeTensorMode(allow_non_fake_inputs=True), Reads(DEVICE) as reads, torch.no_grad():
        yield reads


def structure_of(model, shape: torch.Size) -> Structure:
    """That of some picture, on the CPU, where a MODEL that waits keeps it."""
    points = families.structure_points(model)
    grids = {p.name: picture_grid(p, shape) for p in points}
    layers, coordinates = {}, {}
    for layer in families.family_of(model).layers(model.model.diffusion_model):
        attention = model.model.diffusion_model.get_submodule(layer.key.module)
        channels = layer.key.channels[1] - layer.key.channels[0] if layer.key.channels else attention.out_features
        layers[layer.key.name] = LayerBasis(torch.zeros(2, channels), torch.zeros(2, 3, channels), torch.ones(2, 3))
        height, width = grids[layer.key.name]
        coordinates[layer.key.name] = torch.zeros(2, 1, height * width, 3)
    return Structure(Basis(SIGMAS, layers), SIGMAS, coordinates, grids, torch.ones(1, 1, 64, 64))


@pytest.mark.parametrize("paper", [False, True], ids=["ours", "paper"])
@pytest.mark.parametrize("family", list(tiny.RECIPES))
def test_a_guided_step_stays_on_its_device(family, paper, fake_device):
    recipe = tiny.RECIPES[family]
    model = random_models.assemble(recipe, torch.float16, device=DEVICE)
    model.model.requires_grad_(False)
    x = torch.zeros(1, *recipe.latent, device=DEVICE)
    guide = FreeControlGuide(structure_of(model, x.shape), families.structure_points(model), GuideSettings(paper=paper))
    session = guide.start(model, x, [], guide.range)
    request = Request(x.shape, guide.points, lambda features: session.energy(features, 1.0), recompute=family in MUTATING)
    positive = [[text.half(), options] for text, options in recipe.conditioning]
    before = fake_device.total
    denoised, readout = random_models.evaluate(model, x, positive, request)
    assert denoised.device.type == readout.gradients[0].device.type == DEVICE
    assert fake_device.total - before <= 4, fake_device.counts
