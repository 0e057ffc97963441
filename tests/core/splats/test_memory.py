"""Bytes that are said beforehand against bytes that were live at most, autograd's included."""

from collections.abc import Callable

import pytest
import torch
from freesteer.benchmarks.host.counters import LiveBytes
from freesteer.benchmarks.splats import splat_reference as reference
from freesteer.core.splats import compositing, memory
from freesteer.core.splats.clip import Clip
from freesteer.core.splats.fitting import difference
from freesteer.core.splats.gaussians import Gaussians
from freesteer.core.splats.rasteriser import render
from freesteer.core.splats.reconstruction import Preset, reconstruct
from freesteer.core.tracking import fusion, normal_equations, tracking
from freesteer.core.tracking.fusion import fused
from freesteer.core.tracking.pyramid import Level
from freesteer.core.tracking.state import State
from freesteer.core.tracking.tracking import between
from freesteer.playground.rooms import clips
from torch._subclasses.fake_tensor import FakeTensorMode

CPU = torch.device("cpu")
GENEROUS = 5  # times what was used


def peak(work: Callable[[], object]) -> int:
    with LiveBytes() as counted:
        work()
    return counted.peak


def within(used: int, said: int) -> bool:
    return used <= said <= GENEROUS * used


@pytest.mark.parametrize(("count", "side", "blended", "degree"), [(8000, 32, 2**17, 0), (200, 192, 2**18, 0), (4000, 64, 2**18, 3)])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_picture(monkeypatch, count: int, side: int, blended: int, degree: int, gradients: bool):
    monkeypatch.setattr(compositing, "AT_ONCE", {"cpu": blended})
    scene, camera = reference.cloud(count, degree=degree), reference.view((side, side))
    parts = {name: getattr(scene, name).requires_grad_(gradients) for name in ("positions", "scales", "rotations", "opacities", "sh")}
    picture = torch.zeros(side, side, 3)

    def work() -> None:
        shown = render(Gaussians(**parts), camera)
        if gradients:
            difference(shown, picture, picture[..., 0], torch.zeros(2)).backward()

    said = memory.of_rendering(count, (degree + 1) ** 2, camera.size, CPU, gradients)
    used = peak(work)
    assert within(used, said), f"{used:.3g} {said:.3g}"


def test_a_clip(monkeypatch):
    """As few frames at once for a small clip as for a large one."""
    drawn, pixels = clips.draw("sideways", 3, (24, 32)), 24 * 32
    for module in (normal_equations, fusion, memory):
        monkeypatch.setattr(module, "PIXELS_AT_ONCE", 2 * pixels)
    monkeypatch.setattr(compositing, "AT_ONCE", {"cpu": 2**16})
    for steps in ("STEPS", "LOCAL_STEPS", "GLOBAL_STEPS"):
        monkeypatch.setattr(tracking, steps, 1)
    clip = Clip(drawn.frames, drawn.depth, drawn.depth > 0, float(drawn.path.focal[0]) / 32, True, False)
    used = []
    with LiveBytes() as counted:
        reconstruct(clip, Preset(1, 1), check=lambda tracked: used.append(counted.peak))
    used.append(counted.peak)
    said = [memory.of_tracking(3, clip.size), memory.of_reconstruction(3, clip.size, CPU)]
    assert all(map(within, used, said)), (used, said)


def test_fusion_at_1080p():
    frames, height, width = 12, 1080, 1920
    with FakeTensorMode():
        level = Level(*torch.zeros(7, frames, height, width))
        zero, focal = torch.zeros(frames), torch.tensor(1.0)
        state = State(torch.eye(4).repeat(frames, 1, 1), zero, zero, zero, zero, focal, focal, 1.0)
        used = peak(lambda: fused(level, state, between(range(frames), (1, 2, 3, 4))))
    assert used < 20 * frames * height * width + memory.WARPED * height * width
