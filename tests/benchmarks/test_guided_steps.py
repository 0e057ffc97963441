"""The benches of guided steps measure what they say, shown on small models."""

import pytest
import torch
from freesteer.benchmarks.host import full_size, gpu
from freesteer.tests.host import tiny


@pytest.mark.parametrize("family", ["SD 1.5", "Flux"])
def test_the_gpu_bench_runs_on_any_device(family, monkeypatch):
    monkeypatch.setattr(gpu, "REPEATS", 1)
    found = gpu.measure(tiny.RECIPES[family], torch.float32, gpu.Card(torch.device("cpu"), "cpu"))
    assert found["finite"] is True
    assert float(found["seconds_plain"]) > 0 and float(found["ratio"]) > 0


def test_memory_of_this_process_is_seen_while_it_is_held():
    with full_size.resident_peak() as peak:
        held = torch.ones(50_000_000)  # 200 MB
        while peak() == 0:
            pass
        del held
    assert peak() > 200e6
