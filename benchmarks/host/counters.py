"""Counting what cannot be seen from outside: memory of live tensors, and numbers that are read from the device."""

import weakref
from collections import Counter

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal")  # for the device


class LiveBytes(TorchDispatchMode):
    """Counts the memory of tensors from their making until nothing refers to them, autograd included.

    `peak` is in bytes. Tensors that were there before are counted only if `include` is told of them. Fake tensors
    (torch's FakeTensorMode: shapes without values) count as real ones do; a number that is read from one is 1.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def include(self, tensor: Tensor, counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes() if counted else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.include(leaf, counted=False)
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1.0
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.include(leaf)
        return result


class Reads(TorchDispatchMode):
    """Counts operations at which the CPU waits for the device, by name: those of `device` only, "any" for all."""

    def __init__(self, device: str = "any"):
        super().__init__()
        self.device = device
        self.counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = self.device == "any" or any(tensor.device.type == self.device for tensor in tensors)
        masked = name in ("index", "index_put_") and any(tensor.dtype == torch.bool for tensor in tensors[1:])
        if there and (name in WAITING or masked or (name == "_to_copy" and _to_the_cpu(tensors, kwargs))):
            self.counts[name] += 1
        if name == "_local_scalar_dense" and isinstance(args[0], FakeTensor):
            return 1.0
        return function(*args, **(kwargs or {}))


def _to_the_cpu(tensors: list[Tensor], options: dict | None) -> bool:
    device = (options or {}).get("device")
    return device is not None and torch.device(device).type == "cpu" and any(tensor.device.type != "cpu" for tensor in tensors)
