"""gsplat's kernel cannot run without a GPU: here its contract does, as its CUDA source has it, in loops over tiles and Gaussians."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from freesteer.benchmarks.splats import splat_reference as reference
from freesteer.core.splats import accelerated
from freesteer.core.splats.gaussians import Gaussians
from freesteer.core.splats.rasteriser import render
from torch import Tensor

PARTS = ("positions", "scales", "rotations", "opacities", "sh")


def by_contract(means, conics, colours, opacities, width: int, height: int, side: int, offsets, ids) -> tuple[Tensor, Tensor]:
    """gsplat/cuda/csrc/RasterizeToPixels3DGSFwd.cu: shapes (1, N, ...), offsets (1, rows, columns) and ids int32."""
    assert offsets.dtype == ids.dtype == torch.int32 and offsets.shape == (1, height // side, width // side)
    starts = [*offsets.flatten().tolist(), len(ids)]
    strips = []
    for row in range(height // side):
        boxes = []
        for column in range(width // side):
            tile = row * (width // side) + column
            y, x = torch.meshgrid(row * side + torch.arange(side) + 0.5, column * side + torch.arange(side) + 0.5, indexing="ij")
            light, colour = torch.ones(side, side), torch.zeros(side, side, colours.shape[-1])
            for g in ids[starts[tile] : starts[tile + 1]].tolist():
                dx, dy = means[0, g, 0] - x, means[0, g, 1] - y
                sigma = 0.5 * (conics[0, g, 0] * dx * dx + conics[0, g, 2] * dy * dy) + conics[0, g, 1] * dx * dy
                alpha = (opacities[0, g] * torch.exp(-sigma)).clamp(max=0.999)
                alpha = torch.where((alpha < 1 / 255) | (light * (1 - alpha) <= 1e-4), 0, alpha)
                colour = colour + (light * alpha)[..., None] * colours[0, g]
                light = light * (1 - alpha)
            boxes.append(torch.cat([colour, 1 - light[..., None]], -1))
        strips.append(torch.cat(boxes, 1))
    both = torch.cat(strips)[None]
    return both[..., :-1], both[..., -1:]


def drawn() -> tuple[Tensor, ...]:
    scene, camera = reference.cloud(60, 0, 0.1, (0.5, 0.95)), reference.view((24, 37))
    leaves = {name: getattr(scene, name).clone().requires_grad_() for name in PARTS}
    focal = camera.focal.clone().requires_grad_()
    found = render(Gaussians(**leaves), replace(camera, focal=focal), reference.BACKGROUND, normals=True)
    energy = found.colour.square().sum() + found.depth.sum() + found.alpha.sum()
    return found.colour.detach(), found.depth.detach(), *torch.autograd.grad(energy, [*leaves.values(), focal])


def test_pictures_and_gradients_through_the_kernel_are_ours(monkeypatch):
    wanted = drawn()
    calls = []

    def through_the_kernel(*arguments):
        calls.append(1)
        return accelerated.blend(by_contract, *arguments)

    monkeypatch.setattr(accelerated, "composite", through_the_kernel)
    for found, of_ours in zip(drawn(), wanted, strict=True):
        torch.testing.assert_close(found, of_ours, rtol=1e-3, atol=1e-3 * float(of_ours.abs().max()))
    assert calls


@pytest.fixture
def fresh_look():
    accelerated.ready_made.cache_clear()
    yield
    accelerated.ready_made.cache_clear()


@pytest.mark.usefixtures("fresh_look")
def test_without_a_ready_made_build_no_compiler_is_called(monkeypatch):
    pytest.importorskip("gsplat")
    assert accelerated.ready_made() is None
    monkeypatch.setitem(sys.modules, "gsplat", None)  # not installed
    accelerated.ready_made.cache_clear()
    assert accelerated.ready_made() is None


@pytest.mark.usefixtures("fresh_look")
def test_a_kernel_that_fails_is_told_once_and_done_without(monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(accelerated, "ready_made", lambda: fails)
    means = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(accelerated, "blend", lambda kernel, *_: kernel())
    tiles = SimpleNamespace(gaussian=())
    for _ in range(2):
        assert accelerated.composite(means, None, None, None, tiles) is None  # pyright: ignore[reportArgumentType]
    assert caplog.text.count("no kernel image") == 1


def test_on_a_cpu_it_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(accelerated, "ready_made", lambda: pytest.fail("looked for gsplat"))
    assert render(reference.cloud(5), reference.view((8, 8))).alpha.any()
