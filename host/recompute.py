"""Memory for time: what a block computes is forgotten after the forward pass and computed again during backward.

This is torch.utils.checkpoint (not reentrant), with two differences that the host's models need: a block may change its hidden
states in place (Flux, Hunyuan Video, LTX Video), and it sees `transformer_options` as they were when it first ran, because
patches find out from them which block they are in.
"""
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from . import families


@contextmanager
def recomputed(diffusion_model: nn.Module) -> Iterator[None]:
    """Around a pass with a graph: its blocks keep only their inputs. Hooks on modules inside run a second time."""
    family = families.of_diffusion_model(diffusion_model)
    with ExitStack() as stack:
        for block in family.layout.blocks(diffusion_model):
            stack.callback(_set_forward, block, vars(block).get("forward"))
            block.forward = _forgetful(block.forward, block, family.in_place)
        yield


def _set_forward(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """Back to the class's forward, or to the one that another pack had put there."""
    if forward is None:
        del block.forward
    else:
        block.forward = forward


def _forgetful(forward: Callable[..., Any], block: nn.Module, in_place: bool) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        as_called = [dict(arg) if type(arg) is dict else arg for arg in (*args, *kwargs.values())]
        kept: dict[int, Tensor] = {}  # what autograd saves, by the order in which it saves it

        def evaluate(values: list[Any]) -> Any:
            if in_place:  # the block must not change what it will be computed from again
                values = [value.clone() if isinstance(value, Tensor) else value for value in values]
            return forward(*values[: len(args)], **dict(zip(kwargs, values[len(args) :], strict=True)))

        def remember(index: int) -> Tensor:
            if index not in kept:
                numbers = itertools.count()
                with torch.enable_grad(), saved_tensors_hooks(lambda t: kept.update({next(numbers): _copy(t, block, in_place)}), _unused):
                    evaluate(as_called)
            return kept.pop(index)

        indices = itertools.count()
        with saved_tensors_hooks(lambda _: next(indices), remember):
            return evaluate([*args, *kwargs.values()])

    return run


def _copy(tensor: Tensor, block: nn.Module, in_place: bool) -> Tensor:
    """Weights do not change, so they are never copied."""
    memory = tensor.untyped_storage().data_ptr()
    if not in_place or any(weight.untyped_storage().data_ptr() == memory for weight in block.parameters()):
        return tensor.detach()
    return tensor.detach().clone()


def _unused(_: None) -> Tensor:
    raise AssertionError("The second evaluation of a block is for its saved tensors only; nobody goes back through it.")
