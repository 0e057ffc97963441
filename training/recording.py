"""A step's forward and backward pass on a GPU as one recording (a CUDA graph): small networks spend most of a step on being told what to do
next, and a recording is told once."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
Work = Callable[[Batch], dict[str, Tensor]]  # fills the gradients; gives figures
WARM_UP = 3  # passes before one is recorded, in which libraries choose what they use


class Recorded(Generic[Batch]):
    """Does `work`, recorded for each form of batch that comes: a dataclass of tensors, other dataclasses, and what else has to be equal.
    What `work` does must depend on nothing else, it must not wait for the GPU, and buffers that it changes (running means) are changed by
    the warm-up, too."""

    def __init__(self, work: Work[Batch], trained: Sequence[Tensor]) -> None:
        self.work, self.trained = work, trained
        self.recordings: dict[Any, _Recording] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        form = form_of(batch)
        if form not in self.recordings:
            self.recordings[form] = _Recording(self.work, batch, self.trained)
        return self.recordings[form](batch)


class _Recording:
    def __init__(self, work: Work, batch: Any, trained: Sequence[Tensor]) -> None:
        self.tensors = [tensor.clone() for tensor in tensors_of(batch)]
        static = with_tensors(batch, iter(self.tensors))
        self.graph, self.trained = torch.cuda.CUDAGraph(), trained
        aside = torch.cuda.Stream()
        with torch.device(trained[0].device):  # nothing can be brought from the CPU into a recording
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    work(static)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.figures = work(static)
        self.gradients = [weight.grad for weight in trained]  # each recording fills its own

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        for own, given in zip(self.tensors, tensors_of(batch), strict=True):
            own.copy_(given)
        self.graph.replay()
        for weight, gradient in zip(self.trained, self.gradients, strict=True):
            weight.grad = gradient
        return dict(self.figures)


def form_of(value: Any) -> Any:
    """What has to be equal for one recording to do for two batches."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if is_dataclass(value):
        return tuple(form_of(getattr(value, field.name)) for field in fields(value))
    return value


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        return [tensor for field in fields(value) for tensor in tensors_of(getattr(value, field.name))]
    return []


def with_tensors(value: Any, tensors: Any) -> Any:
    """The same with others in place of its tensors, taken from an iterator in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value):
        return type(value)(*(with_tensors(getattr(value, field.name), tensors) for field in fields(value)))
    return value
