"""A MODEL that can be differentiated while it samples.

ComfyUI runs every prompt in torch.inference_mode, and loads weights as inference tensors, which autograd refuses. So the host is
asked to load the whole model, and its weights are wrapped again as normal tensors on the same memory. What cannot have a gradient is
refused in words.
"""

import math

import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor, nn

from . import memory

KEY = "freesteer_gradients"
FP8_FORMATS = ("float8_e4m3fn", "float8_e5m2")


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
    _require_in_place(model)
    rewrap_weights(model.model)


def _require_in_place(model: ModelPatcher) -> None:
    """Weights that come to the device one by one are gone, or overwritten, when the backward pass needs them."""
    elsewhere = (weight for weight in model.model.diffusion_model.parameters() if weight.device.type != model.load_device.type)
    if next(elsewhere, None) is not None:
        raise NoGradientError(
            "Steering by gradients needs the whole model on the GPU, and ComfyUI keeps a part of it elsewhere: start it without --novram, "
            "or load a smaller version of the model, such as fp8."
        )


def _load_fully(executor, model, noise_shape, conds, **options):
    """Asks the host for the whole model, and for room for the graph: in rows of a plain pass, as the host counts."""
    needed = memory.footprint(model, (), noise_shape)
    free = comfy.model_management.get_total_memory(model.load_device) - model.model_size()
    room = needed.recomputed if needed.recompute(free) else needed.whole
    rows = math.ceil(room / model.memory_required([1, *noise_shape[1:]]))
    options["force_full_load"] = True
    try:
        return executor(model, [max(rows, noise_shape[0]), *noise_shape[1:]], conds, **options)
    except torch.cuda.OutOfMemoryError as error:
        size = model.model_size() / 1e9
        raise NoGradientError(
            f"Steering by gradients needs the whole model on the GPU ({size:.1f} GB), and it does not fit: load a smaller version of the "
            "model, such as fp8, or close what else uses the GPU."
        ) from error


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
