"""The gradient of an energy of features with respect to a diffusion model's input, in a model that is prepared for it.

1. `normal` copies the few small inputs (timestep, text) that are inference tensors;
2. `differentiable` leaves inference mode, turns gradients on and asks the host for operations that have a backward;
3. `forward_with_gradient` runs the pass, keeps a graph only up to the last layer that is read, and pulls the energy's
   gradient back through it.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ..models.taps import Taps

Energy = Callable[[dict[str, Tensor]], Tensor]


def normal(tree: Any) -> Any:
    """The same nest of dicts, lists and tuples with copies of its inference tensors; everything else passes through."""
    if isinstance(tree, Tensor) and tree.is_inference():
        with torch.inference_mode(False):
            return tree.clone()
    if type(tree) is dict:
        return {key: normal(item) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(normal(item) for item in tree)
    return tree


_mutating: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # models that were seen to change in place what backward needs


@contextmanager
def differentiable(diffusion_model: nn.Module, copying: bool = False) -> Iterator[None]:
    """Holds around a forward pass and its backward pass.

    copying: what the host changes in place is copied first if backward needs it (the hidden states of Flux, Hunyuan Video
    and LTX Video, the skip connections of a U-Net with a ControlNet). It costs a fifth of the time, so only on demand.

    The host then uses formulas that have a derivative instead of its fast kernels: for rotary embeddings, and for scaled
    fp8 weights, which it multiplies in full precision. The output may differ from the plain one by rounding.
    """
    before = comfy.model_management.in_training
    fast: list[Any] = [module for module in diffusion_model.modules() if getattr(module, "_full_precision_mm", True) is False]
    copies = torch.autograd.graph.allow_mutation_on_saved_tensors() if copying else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), copies:
        try:
            comfy.model_management.in_training = True  # of the whole process: never to be left on
            for module in fast:
                module._full_precision_mm = True
            yield
        finally:
            comfy.model_management.in_training = before
            for module in fast:
                module._full_precision_mm = False


def forward_with_gradient(
    run: Callable[[Tensor], Tensor], x: Tensor, taps: Taps, energy: Energy, diffusion_model: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass, and the gradient of an energy of the tapped features.

    run: evaluates the model on x, with its other inputs made `normal`; called again where the model turns out to change
    in place what backward needs. x: (rows, ...). Both an APPLY_MODEL wrapper (x is
    the sampler's, without concatenated channels; every family) and a DIFFUSION_MODEL wrapper (not in SD 3) can call this.
    energy: features by name, (rows, tokens, channels) in float32 or better, to one number or one per sample.
    Returns the model's output, d(sum of energies)/dx in float32 or better, and the energies; all detached.

    The energy is differentiated first and its gradient scaled to at most 1 before it goes through the model, because
    half precision would lose it otherwise: it shrinks with the number of tokens. The scale is a power of two.
    """
    taps.afterwards = "stop_gradient"
    if diffusion_model not in _mutating:
        try:
            return _forward_with_gradient(run, x, taps, energy, diffusion_model, copying=False)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            _mutating.add(diffusion_model)
    return _forward_with_gradient(run, x, taps, energy, diffusion_model, copying=True)


def _forward_with_gradient(
    run: Callable[[Tensor], Tensor], x: Tensor, taps: Taps, energy: Energy, diffusion_model: nn.Module, copying: bool
) -> tuple[Tensor, Tensor, Tensor]:
    with differentiable(diffusion_model, copying):
        x = x.detach().clone().requires_grad_()
        with taps, torch.enable_grad():
            output = run(x).detach()
            taps.require_all()
            features = dict(taps.features)
            leaves = {name: _widened(feature.detach()).requires_grad_() for name, feature in features.items()}
            torch.set_grad_enabled(True)
            energies = energy(leaves)
            pulls = torch.autograd.grad(energies.sum(), list(leaves.values()), allow_unused=True)
            used = {name: pull for name, pull in zip(leaves, pulls, strict=True) if pull is not None}
            largest = max((float(pull.abs().max()) for pull in used.values()), default=0.0)
            if largest == 0.0:
                return output, torch.zeros_like(_widened(x.detach())), energies.detach()
            scale = 2.0 ** -torch.tensor(largest, dtype=torch.float64).log2().ceil().item()
            outer = [(pull * scale).to(features[name].dtype) for name, pull in used.items()]
            (gradient,) = torch.autograd.grad([features[name] for name in used], x, outer)
    return output, _widened(gradient) / scale, energies.detach()


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
