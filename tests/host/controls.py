"""ControlNets of the host for tiny models, and what they draw."""

import dataclasses
import importlib
from typing import Any

import comfy.controlnet
import comfy.sample
import torch
from freesteer.recipes.consistency.controlled import Pairs, for_the_host, initial

UNETS = ["SD 1.5", "SDXL", "FreeSteer playground"]


def pairs_of(made) -> Pairs:
    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(made.model, made.latent)
    generator = torch.Generator().manual_seed(0)
    h, w = latent.shape[-2:]
    hints = torch.rand(3, 3, 8 * h, 8 * w, generator=generator)
    return Pairs(torch.randn(3, *latent.shape[1:], generator=generator), hints, [0, 1, 0], [made.positive, made.negative])


def weights_of(made, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of a ControlNet that does something, as in a file."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        network = initial(made.model.model, torch.device("cpu"))
        weights = {n: weight + 0.05 * torch.randn(weight.shape, generator=generator) for n, weight in network.state_dict().items()}
        return for_the_host(made.model.model, weights)


def control_of(made, seed: int = 0) -> Any:
    return comfy.controlnet.load_controlnet_state_dict(weights_of(made, seed))


def drawn(made, control, strength: float = 1.0, previous=None, steps: int = 4, end: float = 1.0) -> torch.Tensor:
    """With ControlNets as the stock nodes apply them."""
    host: Any = importlib.import_module("nodes")
    given = made.positive, made.negative
    with torch.inference_mode():
        hint = pairs_of(made).hints[:1].movedim(1, -1)
        for each in (previous, control):
            if each is not None:
                given = host.ControlNetApplyAdvanced().apply_controlnet(*given, each, hint, strength, 0.0, end)
        return dataclasses.replace(made, positive=given[0], negative=given[1]).sample(steps=steps)
