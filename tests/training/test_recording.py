"""What a recording is of. That it does what it records is seen on a GPU only."""

from dataclasses import dataclass

import pytest
import torch
from freesteer.training import recording
from freesteer.training.recording import Recorded, form_of, tensors_of, with_tensors
from torch import Tensor


@dataclass
class Inner:
    noisy: Tensor
    stride: int


@dataclass
class Batch:
    words: Tensor
    inner: Inner


def batch(rows: int = 2, stride: int = 3, dtype: torch.dtype = torch.float32) -> Batch:
    return Batch(torch.arange(rows), Inner(torch.randn(rows, 4, dtype=dtype), stride))


def test_batches_of_one_form_differ_in_values_alone():
    assert form_of(batch()) == form_of(batch()) and hash(form_of(batch())) is not None
    assert len({form_of(b) for b in (batch(), batch(rows=3), batch(stride=1), batch(dtype=torch.float16))}) == 4


def test_tensors_are_taken_out_and_put_back_in_the_same_order():
    one, two = batch(), batch()
    assert [t.shape for t in tensors_of(one)] == [(2,), (2, 4)]
    other = with_tensors(one, iter(tensors_of(two)))
    assert other.words is two.words and other.inner.noisy is two.inner.noisy and other.inner.stride == 3
    assert one.inner.noisy is not two.inner.noisy


def test_each_form_is_recorded_once(monkeypatch: pytest.MonkeyPatch):
    recorded = []

    class Recording:
        def __init__(self, work, batch, trained):
            recorded.append(batch)
            self.work = work

        def __call__(self, batch):
            return self.work(batch)

    monkeypatch.setattr(recording, "_Recording", Recording)
    work: Recorded[Batch] = Recorded(lambda batch: {"loss": batch.inner.noisy.sum()}, [])
    batches = [batch(), batch(rows=3), batch(), batch(rows=3), batch(stride=1)]
    assert [float(work(b)["loss"]) for b in batches] == [float(b.inner.noisy.sum()) for b in batches]
    assert [form_of(b) for b in recorded] == [form_of(batches[i]) for i in (0, 1, 4)]
