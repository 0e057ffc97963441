"""What backward needs is copied before the model changes it in place.

torch.autograd.graph.allow_mutation_on_saved_tensors does the same, but knows tensors by their address: in torch 2.14 a tensor
at a freed address may get another's copy, and a view that begins elsewhere in the same memory is missed. Both give a wrong
gradient without a word. Here tensors are known by the memory that they keep alive.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def copied_on_change() -> Iterator[None]:
    """Around a forward pass and its backward pass, of which the forward may change in place what was saved for backward."""
    saved = _Saved()
    with saved_tensors_hooks(saved.keep, _tensor_of), _CopyBeforeChange(saved):
        yield


class _Holder:
    """One tensor as backward will see it; autograd's graph owns the holder."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def _tensor_of(holder: _Holder) -> Tensor:
    return holder.tensor


class _Saved:
    """Holders by the memory of their tensors, which cannot be used anew as long as one of them lives."""

    def __init__(self):
        self._holders: dict[int, weakref.WeakSet[_Holder]] = {}

    def keep(self, tensor: Tensor) -> _Holder:
        holder = _Holder(tensor)
        self._holders.setdefault(_memory(tensor), weakref.WeakSet()).add(holder)
        return holder

    def copy(self, changing: Tensor) -> None:
        copies: dict[Any, Tensor] = {}
        for holder in self._holders.pop(_memory(changing), ()):
            seen = holder.tensor
            view = seen.dtype, seen.storage_offset(), seen.shape, seen.stride()
            holder.tensor = copies[view] = copies[view] if view in copies else seen.clone()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _CopyBeforeChange(TorchDispatchMode):
    def __init__(self, saved: _Saved):
        super().__init__()
        self._saved = saved

    def __torch_dispatch__(self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                changing = args[index] if index < len(args) else kwargs.get(argument.name)
                for tensor in changing if isinstance(changing, list | tuple) else [changing]:
                    if isinstance(tensor, Tensor):
                        self._saved.copy(tensor)
        return func(*args, **kwargs)
