"""The gradient of an energy of features with respect to a diffusion model's input, inside a ComfyUI sampling run.

ComfyUI runs every prompt in torch.inference_mode, and loads weights as inference tensors, which autograd refuses. Four
things make a gradient possible, and this file does each of them in one place:

1. `prepare` lets the host load the whole model, and then wraps its weights again as normal tensors on the same memory;
2. `normal` copies the few small inputs (timestep, text) that are inference tensors;
3. `differentiable` leaves inference mode, turns gradients on and asks the host for operations that have a backward;
4. `forward_with_gradient` runs the pass, keeps a graph only up to the last layer that is read, and pulls the energy's
   gradient back through it.
"""
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor, nn

from .taps import Taps

KEY = "freesteer_gradients"
FP8_FORMATS = ("float8_e4m3fn", "float8_e5m2")
ROOM = 16  # a pass with a graph is budgeted like this many rows without one: SDXL at 1024 then has its 4.5 GB
Energy = Callable[[dict[str, Tensor]], Tensor]


class NoGradientError(RuntimeError):
    """Written for the user: why this model cannot be steered by gradients, and what to change."""


def prepare(model: ModelPatcher) -> ModelPatcher:
    """A clone of `model` that can be differentiated while sampling. Its weights are shared with `model`, not copied.

    (They are loaded a second time where the host streams them from disk during sampling, "dynamic VRAM".)
    """
    model = _resident_clone(model)
    _require_single_device(model)
    _require_derivative(model)
    if not model.get_callbacks(CallbacksMP.ON_PRE_RUN, KEY):
        model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, _before_run)
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, _load_fully)
    return model


def _resident_clone(model: ModelPatcher) -> ModelPatcher:
    """A clone whose weights stay in place from the forward to the backward pass."""
    if not model.is_dynamic():
        return model.clone()
    if model.cached_patcher_init is None:
        raise NoGradientError(
            "This model's weights move during sampling (dynamic VRAM) and the node that loaded it cannot load it in another way. "
            "Please load it with Load Checkpoint or Load Diffusion Model, or start ComfyUI with --disable-dynamic-vram."
        )
    return model.get_non_dynamic_delegate()  # pyright: ignore[reportAttributeAccessIssue]  # loads once for all clones of `model`


def _require_single_device(model: ModelPatcher) -> None:
    if model.get_additional_models_with_key("multigpu"):
        raise NoGradientError("Steering by gradients does not work on several GPUs at once: please take the MultiGPU node off this model.")


def _require_derivative(model: ModelPatcher) -> None:
    """Weights that are cast before they are multiplied, fp8 among them, are as good as others. Quantised inputs are not:
    the model is then a stair, and its derivative says nothing."""
    for module in model.model.diffusion_model.modules():
        if getattr(module, "quant_format", None) not in (None, *FP8_FORMATS):
            raise NoGradientError("Steering by gradients needs a model in bf16, fp16 or fp8. Please load another version of this model.")
        if isinstance(module, comfy.ops.fp8_ops.Linear):
            raise NoGradientError("Steering by gradients does not work with --fast fp8_matrix_mult: please start ComfyUI without it.")


def _before_run(model: ModelPatcher) -> None:
    _require_single_device(model)  # again: the MultiGPU node may come after ours
    rewrap_weights(model.model)


def _load_fully(executor, model, noise_shape, conds, **options):
    """Weights that are streamed through a buffer would be overwritten before backward needs them; ask for room as well."""
    options["force_full_load"] = True
    return executor(model, [noise_shape[0] * ROOM, *noise_shape[1:]], conds, **options)


def rewrap_weights(module: nn.Module) -> int:
    """Replaces parameters and buffers that are inference tensors by normal ones on the same memory; returns how many."""
    count = 0
    with torch.inference_mode(False):
        for part in module.modules():
            for name, parameter in list(part._parameters.items()):
                if parameter is not None and parameter.is_inference() and type(parameter.data) is Tensor:
                    part._parameters[name] = nn.Parameter(_same_memory(parameter), requires_grad=False)
                    count += 1
            for name, buffer in list(part._buffers.items()):
                if buffer is not None and buffer.is_inference() and type(buffer) is Tensor:
                    part._buffers[name] = _same_memory(buffer)
                    count += 1
    return count


def _same_memory(tensor: Tensor) -> Tensor:
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


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
