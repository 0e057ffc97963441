"""A LoRA on one of the host's ControlNets, as any of its nodes can use it."""

from collections.abc import Mapping
from typing import Any

import comfy.lora
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet
from torch import Tensor

from .control_per_step import ControlPerStep
from .lora import AdapterError

PREFIX = "control_model."


def with_adapter(control: ControlBase, adapter: Mapping[str, Tensor], strength: float) -> ControlBase:
    """A copy of a ControlNet to whose layers a LoRA is added; at strength 0, only a copy. adapter: as of Lora.for_the_host, its layers by
    their paths below `PREFIX`. The ControlNet given stays as it is."""
    made: Any = control
    made = made.copy()
    if isinstance(made, ControlPerStep):
        made.inner = with_adapter(made.inner, adapter, strength)
        return made
    paths = [name.removeprefix(PREFIX).removesuffix(".lora_down.weight") for name in adapter if name.endswith(".lora_down.weight")]
    if isinstance(made, ControlLora):
        check(paths, adapter, {name: tuple(weight.shape) for name, weight in made.control_weights.items()}, False)
        made.control_weights = _with_low_ranks(made.control_weights, paths, adapter, strength)
        return made
    if type(made) is not ControlNet:
        raise AdapterError(f"This is a {type(made).__name__}, and adapters are for ControlNets of UNets (SD 1.5, SD 2, SDXL).")
    patcher = made.control_model_wrapped.clone()
    check(paths, adapter, {name: tuple(weight.shape) for name, weight in patcher.model.state_dict().items()}, True)
    if strength:
        loaded = comfy.lora.load_lora(dict(adapter), {f"{PREFIX}{path}": f"{path}.weight" for path in paths}, log_missing=False)
        patcher.add_patches(loaded, strength)
    made.control_model_wrapped = patcher
    return made


def check(paths: list[str], adapter: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], whole: bool) -> None:
    """Raises an AdapterError where layers are missing or of another width. whole: whether `shapes` are of all layers."""
    for path in paths:
        shape, down = shapes.get(f"{path}.weight"), adapter[f"{PREFIX}{path}.lora_down.weight"]
        if shape is None and not whole:
            continue
        if shape is None or shape[1:] != tuple(down.shape[1:]) or shape[0] != len(adapter[f"{PREFIX}{path}.lora_up.weight"]):
            raise AdapterError(
                f"The adapter was trained for ControlNets of another model: layer {path} is "
                f"{'missing' if shape is None else 'of another size'} here. Take the adapter of this model."
            )


def _with_low_ranks(
    weights: Mapping[str, Tensor], paths: list[str], adapter: Mapping[str, Tensor], strength: float
) -> Mapping[str, Tensor]:
    """Those of a ControlLora, which may have low ranks on their own."""
    if not strength:
        return weights
    found = dict(weights)
    for path in paths:
        down, up = (adapter[f"{PREFIX}{path}.lora_{part}.weight"].float().flatten(1) for part in ("down", "up"))
        own = [weights[name].float().flatten(1) for name in (f"{path}.down", f"{path}.up") if name in weights]
        down, up = (torch.cat([own[0], down]), torch.cat([own[1], strength * up], 1)) if own else (down, strength * up)
        found |= {f"{path}.down": down, f"{path}.up": up}
    return found
