"""What the benchmark of costs counts is what torch allocates; and what makes bases cheap keeps them exact."""

from typing import Any

import comfy.ops
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from freesteer.benchmarks.freecontrol import freecontrol_costs as costs
from freesteer.host.models import families
from torch.profiler import ProfilerActivity, profile

UNET = {**costs.SD15, "model_channels": 32, "num_heads": 4, "num_head_channels": -1, "context_dim": 64}


def small() -> costs.Inputs:
    """A U-Net and the input of one row."""
    unet = UNetModel(**UNET, dtype=torch.float32, device=torch.device("cpu"), operations=comfy.ops.disable_weight_init)
    unet.requires_grad_(False).eval()
    costs.randomise(unet)
    points = [layer.key for layer in families.of_diffusion_model(unet).layers(unet, "coarse")]
    return unet, points, torch.zeros(1, 4, 32, 32), torch.zeros(1, 20, 64), None


def allocated(recompute: bool) -> int:
    """Peak bytes of weights and of what torch's allocator gave out during a guided step."""
    unet, points, x, words, y = small()
    weights = sum(weight.numel() * weight.element_size() for weight in unet.parameters())
    costs.guided_step(unet, points, x, words, y, recompute)  # lazily made caches are not the step's
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, torch.no_grad():
        costs.guided_step(unet, points, x, words, y, recompute)
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events: list[Any] = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert events
    live = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return weights + int(live.max())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_counting_with_fake_tensors_agrees_with_what_is_allocated(recompute):
    assert costs.guided_step_bytes(small, recompute) == pytest.approx(allocated(recompute), rel=0.1)


def test_memory_is_counted_from_making_to_forgetting():
    before = torch.zeros(1000)
    with costs.LiveBytes() as memory:
        view = before[:10]
        kept = before + 1
        assert memory.live == kept.nbytes
        for _ in range(3):
            kept = kept * 2  # the old one goes
        view = kept.reshape(10, 100)
        assert (memory.live, memory.peak) == (view.nbytes, 2 * view.nbytes)
    del kept, view
    assert memory.live == 0
