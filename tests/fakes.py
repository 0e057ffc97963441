"""A graphics card that is not there: tensors that say they are on cuda:0, and compute on the CPU.

What a GPU refuses is refused here (a tensor of the CPU among those of the card), and what makes the CPU wait for a GPU is counted:
numbers that are read back, shapes that depend on values, copies from one to the other. torch's own FakeTensorMode has no values to
read, and its autograd does not run on cuda in a build without CUDA.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
READS = {  # what cannot go on before the card is done, whether for a number, for the size of its result or for an error's number
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "unique_dim", "unique_consecutive",
    "linalg_solve_ex", "_linalg_solve_ex", "_linalg_svd", "_linalg_eigh", "linalg_lstsq",
}  # fmt: skip
MADE_OF_NUMBERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


@contextmanager
def fake_cuda() -> Iterator[Counter[str]]:
    """Inside, `device="cuda"` works; what is given counts by its name how often the CPU had to wait, until the `with` ends."""
    waits, bridge = Counter(), _Bridge()
    before, _Card.waits = _Card.waits, waits
    run_backward = torch.autograd._engine_run_backward  # pyright: ignore[reportPrivateImportUsage]

    def within(*args: Any, **kwargs: Any) -> Any:  # torch calls it with the bridge taken off
        with bridge, _Unused():
            return run_backward(*args, **kwargs)

    try:
        with bridge, patch.object(torch.autograd, "_engine_run_backward", within):
            yield waits
    finally:
        _Card.waits = before


class _Card(Tensor):
    """A tensor on the card. values: the same one on the CPU."""

    values: Tensor
    waits: ClassVar[Counter[str]] = Counter()
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]
    device = property(lambda self: CUDA)  # pyright: ignore[reportAssignmentType]
    is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, values: Tensor) -> "_Card":
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = Tensor._make_wrapper_subclass(cls, values.shape, **layout)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        foreign = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and not isinstance(t, _Card) and t.ndim > 0]
        indexes = name in ("index", "index_put", "index_put_", "_index_put_impl_")
        if foreign and not (indexes or name == "copy_"):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu.")
        masked = indexes and any(isinstance(t, Tensor) and t.dtype == torch.bool for t in args[1])
        if foreign or masked or name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            cls.waits[name] += 1
        on_cpu, named = tree_map(_values, (args, kwargs))
        result = tree_map(_on_card, function(*on_cpu, **named))
        return return_and_correct_aliasing(function, args, kwargs, result)


def _values(value: Any) -> Any:
    return value.values if isinstance(value, _Card) else value


def _on_card(value: Any) -> Any:
    return _Card(value) if isinstance(value, Tensor) and not isinstance(value, _Card) else value


class _Bridge(TorchFunctionMode):
    """What makes a tensor on the card, or takes it from there: torch's own would look for CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(function, args, kwargs)
        if function is Tensor.tolist and isinstance(args[0], _Card):
            _Card.waits["tolist"] += 1
            return args[0].values.tolist()
        like = args[0].device if function is Tensor.new_tensor else "cpu"
        if torch.device(kwargs.get("device") or like).type != "cuda":
            return function(*args, **kwargs)
        kwargs.pop("device", None)
        if function in MADE_OF_NUMBERS:
            _Card.waits["from numbers"] += 1
        wanted = kwargs.pop("requires_grad", False)
        return _Card(_values(function(*map(_values, args), **kwargs))).requires_grad_(wanted)


class _Unused(TorchDispatchMode):
    """The derivatives by what was not used, which torch's C++ fills with zeros, where it believes the tensor to be."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return _on_card(result) if function is torch.ops.aten.zeros.default else result


def _moved(function: Any, args: tuple, kwargs: dict) -> Tensor:
    tensor, rest = args[0], [*args[1:], *kwargs.values()]
    places = [part.device if isinstance(part, Tensor) else part for part in rest if isinstance(part, Tensor | str | torch.device)]
    wanted = torch.device({Tensor.cpu: "cpu", Tensor.cuda: "cuda"}.get(function) or (places or [tensor.device])[0])
    kinds = [part.dtype if isinstance(part, Tensor) else part for part in rest if isinstance(part, Tensor | torch.dtype)]
    if wanted.type != tensor.device.type:
        _Card.waits["from the CPU" if wanted.type == "cuda" else "to the CPU"] += 1
        tensor = _Across.apply(tensor)
    return tensor.type(kinds[0]) if kinds and kinds[0] != tensor.dtype else tensor  # pyright: ignore[reportReturnType]


class _Across(torch.autograd.Function):
    """A copy on the other side."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.values.clone() if isinstance(tensor, _Card) else _Card(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.values if isinstance(gradient, _Card) else _Card(gradient)
