"""Memory for time: what a block computes is forgotten after the forward pass and computed again during backward.

This is torch.utils.checkpoint (not reentrant), with two differences that the host's models need: hidden states may be changed
in place, by the block (Flux, Hunyuan Video, LTX Video) or after it (a ControlNet's additions to skip connections); and a block
sees `transformer_options` as they were when it first ran, because patches find out from them which block they are in.
"""

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..models import families


@contextmanager
def recomputed(diffusion_model: nn.Module) -> Iterator[None]:
    """Around a pass with a graph: its blocks keep only their inputs. Hooks on modules inside run a second time."""
    snapshots = Snapshots()
    with ExitStack() as stack:
        for each in families.of_diffusion_model(diffusion_model).layout.blocks(diffusion_model):
            block = diffusion_model.get_submodule(each.path)
            stack.callback(_set_forward, block, vars(block).get("forward"))
            block.forward = _forgetful(block.forward, block, snapshots)
        yield


def _set_forward(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Back to the class's forward, or to the one that another pack had put there."""
    if forward is None:
        del block.forward
    else:
        block.forward = forward


class Snapshots:
    """Copies of what may change before a block is evaluated again; one copy of what all blocks are given, such as positions."""

    def __init__(self):
        self._copies: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}

    def of(self, values: Iterable[Any]) -> list[Any]:
        """Copies of tensors and of dicts of options; everything else as it is."""
        return [self._copy(v) if isinstance(v, Tensor) else dict(v) if type(v) is dict else v for v in values]

    def _copy(self, tensor: Tensor) -> Tensor:
        if tensor.requires_grad:  # a hidden state, which each block is given anew
            return tensor.detach().clone().requires_grad_()
        known, version, copy = self._copies.get(id(tensor), (None, 0, tensor))
        if known is None or known() is not tensor or version != tensor._version:
            copy = tensor.clone()
            self._copies[id(tensor)] = weakref.ref(tensor), tensor._version, copy
        return copy


def _forgetful(forward: Callable[..., Any], block: nn.Module, snapshots: Snapshots) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        as_called, count, names = snapshots.of((*args, *kwargs.values())), len(args), tuple(kwargs)
        kept: dict[int, Tensor] = {}  # what autograd saves, by the order in which it saves it

        def evaluate_again() -> None:
            numbers = itertools.count()
            with torch.enable_grad(), saved_tensors_hooks(lambda tensor: kept.update({next(numbers): _copy(tensor, block)}), _unused):
                values = [v.clone() if isinstance(v, Tensor) else dict(v) if type(v) is dict else v for v in as_called]
                forward(*values[:count], **dict(zip(names, values[count:], strict=True)))

        def remember(index: int) -> Tensor:
            if index not in kept:
                evaluate_again()
            return kept.pop(index)

        indices = itertools.count()
        with saved_tensors_hooks(lambda _: next(indices), remember):
            return forward(*args, **kwargs)

    return run


def _copy(tensor: Tensor, block: nn.Module) -> Tensor:
    """A copy, because the block may change the tensor later on. Weights do not change, so they are never copied."""
    memory = tensor.untyped_storage()._cdata
    if any(weight.untyped_storage()._cdata == memory for weight in block.parameters()):
        return tensor.detach()
    return tensor.detach().clone()


def _unused(_: None) -> Tensor:
    raise AssertionError("The second evaluation of a block is for its saved tensors only; nobody goes back through it.")
