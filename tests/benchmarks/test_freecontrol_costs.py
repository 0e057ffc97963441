"""What the benches count is what torch allocates."""

from typing import Any

import comfy.supported_models as supported
import pytest
import torch
from freesteer.benchmarks.freecontrol import freecontrol_costs as costs
from freesteer.benchmarks.host.counters import LiveBytes, Reads
from freesteer.benchmarks.host.guided_memory import guided_step_bytes, torch_attention
from freesteer.benchmarks.host.random_models import Recipe, assemble, guided_step, randomise
from freesteer.host.models import families
from torch.profiler import ProfilerActivity, profile

UNET = {**costs.SD15, "model_channels": 32, "num_heads": 4, "num_head_channels": -1, "context_dim": 768}
SMALL = Recipe(supported.SD15, UNET, (4, 32, 32), (20, 768))


def allocated(recompute: bool) -> int:
    """Peak bytes of weights and of what torch's allocator gave out during a guided step."""
    model = assemble(SMALL, torch.float32, load=randomise)
    model.model.requires_grad_(False)
    points, x, text = families.structure_points(model), torch.zeros(1, *SMALL.latent), SMALL.conditioning
    weights = sum(weight.numel() * weight.element_size() for weight in model.model.diffusion_model.parameters())
    with torch_attention(model), torch.no_grad():
        guided_step(model, points, x, text, recompute)  # lazily made caches are not the step's
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            guided_step(model, points, x, text, recompute)
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events: list[Any] = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert events
    live = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return weights + int(live.max())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_counting_with_fake_tensors_agrees_with_what_is_allocated(recompute):
    assert guided_step_bytes(SMALL, torch.float32, recompute) == pytest.approx(allocated(recompute), rel=0.1)


def test_reads_of_the_device_are_counted():
    values = torch.arange(4.0)
    with Reads() as reads:
        chosen = values[values > 1] * float(values.sum())
        chosen = chosen * 2 + values[:2]
    assert reads.counts == {"_local_scalar_dense": 1, "index": 1}


def test_memory_is_counted_from_making_to_forgetting():
    before = torch.zeros(1000)
    with LiveBytes() as memory:
        view = before[:10]
        kept = before + 1
        assert memory.live == kept.nbytes
        for _ in range(3):
            kept = kept * 2  # the old one goes
        view = kept.reshape(10, 100)
        assert (memory.live, memory.peak) == (view.nbytes, 2 * view.nbytes)
    del kept, view
    assert memory.live == 0
