"""Memory for time: what a block computes is forgotten after the forward pass and computed again during backward.

This is torch.utils.checkpoint (not reentrant), with two differences that the host's models need: hidden states may be changed
in place, by the block (Flux, Hunyuan Video, LTX Video) or after it (a ControlNet's additions to skip connections); and a block
sees `transformer_options` as they were when it first ran, because patches find out from them which block they are in.
"""

import itertools
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
    with ExitStack() as stack:
        for block in families.of_diffusion_model(diffusion_model).layout.blocks(diffusion_model):
            stack.callback(_set_forward, block, vars(block).get("forward"))
            block.forward = _forgetful(block.forward, block)
        yield


def _set_forward(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Back to the class's forward, or to the one that another pack had put there."""
    if forward is None:
        del block.forward
    else:
        block.forward = forward


def _forgetful(forward: Callable[..., Any], block: nn.Module) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        as_called = _snapshot((*args, *kwargs.values()))
        kept: dict[int, Tensor] = {}  # what autograd saves, by the order in which it saves it

        def evaluate_again() -> None:
            numbers = itertools.count()
            with torch.enable_grad(), saved_tensors_hooks(lambda tensor: kept.update({next(numbers): _copy(tensor, block)}), _unused):
                values = _snapshot(as_called)
                forward(*values[: len(args)], **dict(zip(kwargs, values[len(args) :], strict=True)))

        def remember(index: int) -> Tensor:
            if index not in kept:
                evaluate_again()
            return kept.pop(index)

        indices = itertools.count()
        with saved_tensors_hooks(lambda _: next(indices), remember):
            return forward(*args, **kwargs)

    return run


def _snapshot(values: Iterable[Any]) -> list[Any]:
    """Copies of what may change before the block is evaluated again: tensors, and dicts of options."""
    return [value.clone() if isinstance(value, Tensor) else dict(value) if type(value) is dict else value for value in values]


def _copy(tensor: Tensor, block: nn.Module) -> Tensor:
    """A copy, because the block may change the tensor later on. Weights do not change, so they are never copied."""
    memory = tensor.untyped_storage()._cdata
    if any(weight.untyped_storage()._cdata == memory for weight in block.parameters()):
        return tensor.detach()
    return tensor.detach().clone()


def _unused(_: None) -> Tensor:
    raise AssertionError("The second evaluation of a block is for its saved tensors only; nobody goes back through it.")
