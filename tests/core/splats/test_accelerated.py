"""gsplat's kernels cannot run without a GPU: here their contracts do, as in their CUDA sources, in loops over tiles and Gaussians."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from freesteer.benchmarks.splats import splat_reference as reference
from freesteer.core.geometry.cameras import Camera
from freesteer.core.splats import accelerated, compositing
from freesteer.core.splats.gaussians import Gaussians
from freesteer.core.splats.rasteriser import render
from freesteer.tests.fakes import fake_cuda
from torch import Tensor

PARTS = ("positions", "scales", "rotations", "opacities", "sh")


class Release:
    """rasterize_to_pixels of a release: its greatest alpha, and the sides of tiles and numbers of channels that it takes."""

    def __init__(self, opaque: float, sides: tuple[int, ...], channels: tuple[int, ...]):
        self.opaque, self.sides, self.channels = opaque, sides, channels
        self.drawn_in: list[int] = []

    def __call__(self, means, conics, colours, opacities, width: int, height: int, side: int, offsets, ids) -> tuple[Tensor, Tensor]:
        """gsplat/cuda/csrc/RasterizeToPixels3DGS*Fwd.cu: shapes (1, N, ...), offsets (1, rows, columns) and ids int32."""
        if side not in self.sides:
            raise RuntimeError(f"Only tile_size in {self.sides} is supported for 3DGS rasterization, got {side}")
        if colours.shape[-1] not in self.channels:
            raise ValueError(f"Unsupported number of channels: {colours.shape[-1]}")
        self.drawn_in.append(side)
        assert offsets.dtype == ids.dtype == torch.int32 and offsets.shape == (1, height // side, width // side)
        starts = [*offsets.flatten().tolist(), len(ids)]
        strips = []
        for row in range(height // side):
            boxes = []
            for column in range(width // side):
                tile = row * (width // side) + column
                y, x = torch.meshgrid(*(torch.arange(side, device=means.device) + 0.5 for _ in range(2)), indexing="ij")
                x, y = x + column * side, y + row * side
                light, colour = torch.ones_like(x), torch.zeros(side, side, colours.shape[-1], device=means.device)
                for g in ids[starts[tile] : starts[tile + 1]].tolist():
                    dx, dy = means[0, g, 0] - x, means[0, g, 1] - y
                    sigma = 0.5 * (conics[0, g, 0] * dx * dx + conics[0, g, 2] * dy * dy) + conics[0, g, 1] * dx * dy
                    alpha = (opacities[0, g] * torch.exp(-sigma)).clamp(max=self.opaque)
                    alpha = torch.where((alpha < 1 / 255) | (light * (1 - alpha) <= 1e-4), 0, alpha)
                    colour = colour + (light * alpha)[..., None] * colours[0, g]
                    light = light * (1 - alpha)
                boxes.append(torch.cat([colour, 1 - light[..., None]], -1))
            strips.append(torch.cat(boxes, 1))
        both = torch.cat(strips)[None]
        return both[..., :-1], both[..., -1:]


def release_1_5() -> Release:
    return Release(0.999, tuple(range(1, 33)), tuple(range(1, 514)))


def release_1_6() -> Release:
    return Release(0.99, (4, 16), (1, 2, 3, 4, 5, 6, 8, 9, 16, 17))


def view(device: str) -> Camera:
    camera = reference.view((20, 28))
    return Camera(camera.pose.to(device), camera.focal.to(device), camera.centre.to(device), camera.size)


def drawn(device: str, scales: float = 0.1) -> tuple[Tensor, ...]:
    scene, camera = reference.cloud(25, 0, scales, (0.5, 1.0)), view(device)
    leaves = {name: getattr(scene, name).to(device).clone().requires_grad_() for name in PARTS}
    focal = camera.focal.clone().requires_grad_()
    found = render(Gaussians(**leaves), replace(camera, focal=focal), reference.BACKGROUND.to(device), normals=True)
    energy = found.colour.square().sum() + found.depth.sum() + found.alpha.sum()
    gradients = torch.autograd.grad(energy, [*leaves.values(), focal])
    return tuple(part.detach().cpu() for part in (found.colour, found.depth, *gradients))


@pytest.fixture(autouse=True)
def fresh_look() -> Iterator[None]:
    caches = (accelerated.ready_made, accelerated.kernel_for)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, blend: accelerated.Blend) -> None:
    monkeypatch.setattr(accelerated, "ready_made", lambda: blend)


@pytest.mark.parametrize(
    ("release", "scales", "side"), [(release_1_5(), 0.4, 16), (release_1_5(), 0.1, 8), (release_1_6(), 0.4, 16), (release_1_6(), 0.1, 16)]
)
def test_pictures_and_gradients_through_a_release_are_ours(monkeypatch, release: Release, scales: float, side: int):
    with monkeypatch.context() as patch:
        patch.setattr(compositing, "OPAQUE", release.opaque)
        wanted = drawn("cpu", scales)
    install(monkeypatch, release)
    with fake_cuda():
        found = drawn("cuda", scales)
    assert release.drawn_in[-1] == side
    for ours, theirs in zip(wanted, found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max()))


@pytest.mark.parametrize(("release", "limit"), [(release_1_5(), 0.999), (release_1_6(), 0.99)])
def test_the_greatest_alpha_is_measured(release: Release, limit: float):
    assert accelerated.greatest_alpha(release, 16, torch.device("cpu")) == pytest.approx(limit, abs=1e-5)


def no_kernel_image(*_: object) -> tuple[Tensor, Tensor]:
    raise RuntimeError("no kernel image is available for execution on the device")


def squared(*arguments) -> tuple[Tensor, Tensor]:
    picture, alpha = release_1_5()(*arguments)
    return picture, alpha.square()


def only_32(*arguments) -> tuple[Tensor, Tensor]:
    return Release(0.999, (32,), (4, 8))(*arguments)


@pytest.mark.parametrize(
    ("build", "says"), [(no_kernel_image, "no kernel image"), (squared, "tiles of 16 it is off by 0."), (only_32, "Only tile_size in")]
)
def test_a_build_that_does_not_work_is_told_once_and_done_without(monkeypatch, caplog, build: accelerated.Blend, says: str):
    install(monkeypatch, build)
    with fake_cuda():
        found = [drawn("cuda") for _ in range(2)]
    for ours, theirs in zip(drawn("cpu"), found[1], strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and says in warnings[0]


@pytest.mark.parametrize("trial", [True, False])
def test_memory_that_runs_out_is_not_taken_for_a_missing_kernel(monkeypatch, trial: bool):
    release = release_1_5()

    def full(means, *rest) -> tuple[Tensor, Tensor]:
        if trial or means.shape[1] > 1:
            raise torch.OutOfMemoryError("simulated")
        return release(means, *rest)

    install(monkeypatch, full)
    with fake_cuda(), pytest.raises(torch.OutOfMemoryError):
        drawn("cuda")


def test_nothing_to_draw_does_not_ask_the_kernel(monkeypatch):
    release = release_1_5()
    install(monkeypatch, release)
    with fake_cuda():
        nothing = reference.cloud(5)[torch.zeros(5, dtype=torch.bool)].to("cuda")
        assert not render(nothing, view("cuda")).alpha.any()
    assert len(release.drawn_in) == 2  # the trial of two sides


def test_without_a_ready_made_build_no_compiler_is_called(monkeypatch):
    assert find_spec("gsplat")  # its release on PyPI, which has no kernels built
    assert accelerated.ready_made() is None
    monkeypatch.setitem(sys.modules, "gsplat", None)  # not installed
    accelerated.ready_made.cache_clear()
    assert accelerated.ready_made() is None


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.float64)])
def test_where_it_cannot_run_it_is_not_looked_for(monkeypatch, device: str, dtype: torch.dtype):
    monkeypatch.setattr(accelerated, "ready_made", lambda: pytest.fail("looked for gsplat"))
    with fake_cuda():
        camera = view(device)
        camera = Camera(camera.pose.to(dtype), camera.focal.to(dtype), camera.centre.to(dtype), camera.size)
        assert render(reference.cloud(5).to(dtype).to(device), camera).alpha.any()
