"""A LoRA on one of the host's ControlNets, as any of its nodes can use it."""

import copy
from collections.abc import Mapping
from typing import Any

import comfy.model_management
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor, nn

from .control_per_step import ControlPerStep
from .lora import AdapterError

PREFIX = "control_model."


def with_adapter(control: ControlBase, adapter: Mapping[str, Tensor], strength: float) -> ControlBase:
    """A copy of a ControlNet to whose layers a LoRA is added; at strength 0, only a copy. adapter: of each layer, by its path below
    `PREFIX`, `.lora_down.weight` and `.lora_up.weight`. The copy has weights of its own: both can be used in one run, on several GPUs."""
    made: Any = control
    made = made.copy()
    layers = {name.removesuffix(".lora_down.weight"): weight for name, weight in adapter.items() if name.endswith(".lora_down.weight")}
    parts = {path.removeprefix(PREFIX): (down.float(), adapter[f"{path}.lora_up.weight"].float()) for path, down in layers.items()}
    if isinstance(made, ControlPerStep):
        made.inner = with_adapter(made.inner, adapter, strength)
    elif isinstance(made, ControlLora):
        made.control_weights = _beside_low_ranks(made.control_weights, parts, strength)
    elif type(made) is ControlNet:
        network: Any = made.control_model
        made.control_model = _added(network, parts, strength)
        offload = comfy.model_management.unet_offload_device()
        made.control_model_wrapped = CoreModelPatcher(made.control_model, load_device=made.load_device, offload_device=offload)
    else:
        raise AdapterError(f"This is a {type(made).__name__}, and adapters are for ControlNets of UNets (SD 1.5, SD 2, SDXL).")
    return made


def _check(path: str, down: Tensor, up: Tensor, wide: tuple[int, ...] | None, narrow: int | None) -> None:
    """wide, narrow: sizes of the layer's inputs and outputs; None: there is no such layer."""
    if wide != tuple(down.shape[1:]) or narrow != len(up):
        raise AdapterError(
            f"The adapter was trained for ControlNets of another model: layer {path[:60]} is "
            f"{'missing' if wide is None else 'of another size'} here. Take the adapter of this model."
        )


def _added(network: nn.Module, parts: Mapping[str, tuple[Tensor, Tensor]], strength: float) -> nn.Module:
    weights = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    for path, (down, up) in parts.items():
        shape = weights.get(f"{path}.weight")
        _check(path, down, up, shape[1:] if shape else None, shape[0] if shape else None)
    made = copy.deepcopy(network).to(comfy.model_management.unet_offload_device())
    for path, (down, up) in parts.items() if strength else ():
        layer: Any = made.get_submodule(path)
        added = strength * (up.flatten(1) @ down.flatten(1)).reshape(layer.weight.shape)
        layer.weight = nn.Parameter((layer.weight.float() + added.to(layer.weight.device)).to(layer.weight.dtype), requires_grad=False)
    return made


def _beside_low_ranks(weights: Mapping[str, Tensor], parts: Mapping[str, tuple[Tensor, Tensor]], strength: float) -> Mapping[str, Tensor]:
    """Weights of a ControlLora, which may have low ranks on their own; of layers that are not there, it takes the UNet's."""
    found, known = dict(weights), 0
    for path, (down, up) in parts.items():
        own = [weights[name].float() for name in (f"{path}.down", f"{path}.up") if name in weights]
        if f"{path}.weight" in weights:
            shape = tuple(weights[f"{path}.weight"].shape)
            _check(path, down, up, shape[1:], shape[0])
        elif own:
            _check(path, down, up, tuple(own[0].shape[1:]), len(own[1]))
        else:
            continue
        known += 1
        high = strength * up
        found |= {f"{path}.down": torch.cat([own[0], down]) if own else down, f"{path}.up": torch.cat([own[1], high], 1) if own else high}
    if parts and not known:
        _check(next(iter(parts)), *next(iter(parts.values())), None, None)
    return found if strength else weights
