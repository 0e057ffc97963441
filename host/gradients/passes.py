"""The gradient of an energy of features with respect to a diffusion model's input, in a model that is prepared for it.

1. `normal` copies the few small inputs (timestep, text) that are inference tensors;
2. `differentiable` leaves inference mode, turns gradients on and asks the host for operations that have a backward;
3. `forward_with_gradient` runs the pass, keeps a graph only up to the last layer that is read, and pulls the energy's
   gradient back through it. Where that fails for a reason that has a remedy, it does so again with the remedy.
"""

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import comfy.model_management
import torch
from torch import Tensor, nn

from ..models.taps import Taps
from .copying import copied_on_change
from .preparation import NoGradientError
from .recompute import recomputed

Energy = Callable[[dict[str, Tensor]], Tensor]
SMALLER = 2.0**-10  # of a gradient that overflows in half precision: by so much it is scaled down before it is tried again
TRIES = 3
log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Settings:
    """How a pass is differentiated.

    copying: what the model changes in place is copied first if backward needs it (copying.py: the hidden states of Flux, Hunyuan Video
    and LTX Video, the skip connections of a U-Net with a ControlNet). It costs a fifth of the time, so only on demand.
    recompute: blocks are evaluated again during backward (recompute.py). scale: of the gradient while it is in the model.
    """

    copying: bool = False
    recompute: bool = False
    scale: float = 1.0


@contextmanager
def differentiable(diffusion_model: nn.Module, settings: Settings = Settings()) -> Iterator[None]:
    """Holds around a forward pass and its backward pass.

    The host then uses formulas that have a derivative instead of its fast kernels: for rotary embeddings, and for scaled
    fp8 weights, which it multiplies in full precision. The output may differ from the plain one by rounding.
    """
    before = comfy.model_management.in_training
    fast: list[Any] = [module for module in diffusion_model.modules() if getattr(module, "_full_precision_mm", True) is False]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if settings.copying:
            stack.enter_context(copied_on_change())
        if settings.recompute:
            stack.enter_context(recomputed(diffusion_model))
        try:
            comfy.model_management.in_training = True  # of the whole process: never to be left on
            for module in fast:
                module._full_precision_mm = True
            yield
        finally:
            comfy.model_management.in_training = before
            for module in fast:
                module._full_precision_mm = False


class Pass(NamedTuple):
    """A model's output; d(sum of energies)/dx, in float32 or better, of groups stacked; the energies, and the features by name. All
    detached."""

    output: Tensor
    gradient: Tensor
    energies: Tensor
    features: dict[str, Tensor]


_mutating: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # models that were seen to change in place what backward needs
_large: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # models whose graph was too large for the device


def forward_with_gradient(
    run: Callable[[Tensor], Tensor], x: Tensor, taps: Taps, energy: Energy, diffusion_model: nn.Module, recompute: bool = False
) -> Pass:
    """One forward pass, and the gradient of an energy of the features that `taps` read; these stop the gradient.

    run: evaluates the model on x, with its other inputs made `normal`; called again where a remedy is tried. x: (rows, ...).
    Both an APPLY_MODEL wrapper (x is the sampler's, without concatenated channels; every family) and a DIFFUSION_MODEL
    wrapper (not in SD 3) can call this. energy: features by name, (rows, tokens, channels) in float32 or better, to one
    number, one per sample, or several groups (groups, samples), each of which has a gradient of its own, in a backward pass of its own;
    features that do not depend on x (keys of text) are constants. recompute: spares memory.
    Raises NoGradientError where memory is too small even so, or where half precision overflows.
    """
    settings = Settings(diffusion_model in _mutating, recompute or diffusion_model in _large)
    for _ in range(TRIES):
        try:
            found = _differentiate(run, x, taps, energy, diffusion_model, settings)
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:
            settings = _remedy(error, settings, diffusion_model)
            continue
        half = any(feature.dtype.itemsize < 4 for feature in found.features.values())
        if not half or bool(found.gradient.isfinite().all()):
            return found
        settings = replace(settings, scale=settings.scale * SMALLER)
    raise NoGradientError(
        "The gradient of this model overflows in half precision, so it cannot be steered as it is: start ComfyUI with --bf16-unet or "
        "--fp32-unet, or load another version of the model."
    )


def _remedy(error: Exception, settings: Settings, diffusion_model: nn.Module) -> Settings:
    """Settings under which what went wrong should not happen again; raises where there are none."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        if settings.recompute:
            raise NoGradientError(
                "The GPU has too little memory for a guided step of this size: make the picture smaller or fewer at once, load the model "
                "in fp8, or close what else uses the GPU."
            ) from error
        log.warning("FreeSteer: the GPU ran out of memory in a guided step; parts of the model are now computed twice instead.")
        _large.add(diffusion_model)
        comfy.model_management.soft_empty_cache(True)
        return replace(settings, recompute=True)
    if "modified by an inplace operation" in str(error) and not settings.copying:
        _mutating.add(diffusion_model)
        return replace(settings, copying=True)
    raise error


def _differentiate(
    run: Callable[[Tensor], Tensor], x: Tensor, taps: Taps, energy: Energy, diffusion_model: nn.Module, settings: Settings
) -> Pass:
    """The energy is differentiated first, and its gradient scaled to `settings.scale` at most before it goes through the
    model, because half precision would lose it otherwise: it shrinks with the number of tokens. The scale is a power of two.
    """
    with differentiable(diffusion_model, settings):
        x = x.detach().clone().requires_grad_()
        with taps, torch.enable_grad():
            output = run(x).detach()
            taps.require_all()
            features = taps.features
            leaves = {name: _widened(feature.detach()).requires_grad_(feature.requires_grad) for name, feature in features.items()}
            torch.set_grad_enabled(True)
            energies = energy(leaves)
            groups = energies if energies.ndim == 2 else energies[None]
            pulls = [_pulls(group, {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}) for group in groups]
            energies = energies.detach()
            seen = {name: feature.detach() for name, feature in features.items()}
            read = {name: feature for name, feature in features.items() if any(name in each for each in pulls)}
            del leaves, features  # or they would take as much again while the model's graph is gone through
            last = max((i for i, pull in enumerate(pulls) if pull), default=None)
            gradients = [_pulled(pull, read, x, settings.scale, i != last) for i, pull in enumerate(pulls)]
    return Pass(output, torch.stack(gradients) if energies.ndim == 2 else gradients[0], energies, seen)


def _pulls(energies: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Derivatives of the sum of energies by those leaves that it depends on."""
    if not energies.requires_grad:
        return {}
    found = torch.autograd.grad(energies.sum(), list(leaves.values()), allow_unused=True, retain_graph=True)
    return {name: pull for name, pull in zip(leaves, found, strict=True) if pull is not None}


def _pulled(pulls: dict[str, Tensor], read: dict[str, Tensor], x: Tensor, most: float, more: bool) -> Tensor:
    """A gradient from the features back through the model to x. more: whether another one goes through the same graph."""
    if not pulls:
        return torch.zeros_like(_widened(x.detach()))
    scale = most * _power_of_two(torch.stack([pull.abs().max() for pull in pulls.values()]).max())
    features = [read[name] for name in pulls]
    outer = [(pulls.pop(name) * scale).to(feature.dtype) for name, feature in zip(list(pulls), features, strict=True)]
    (gradient,) = torch.autograd.grad(features, x, outer, retain_graph=more)
    return _widened(gradient) / scale


def _power_of_two(largest: Tensor) -> Tensor:
    """What brings a number to between 1/2 and 1; 1 for 0. Nothing is read from the device."""
    return torch.where(largest > 0, torch.exp2(-largest.log2().ceil()), 1.0)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
