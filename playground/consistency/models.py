"""The playground of pictures as a consistency model, which draws in 1 to 8 steps, and ControlNets for both, as the host has them."""

from collections.abc import Mapping
from pathlib import Path

import comfy.controlnet
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from torch import Tensor

from ...recipes.consistency.controlled import MARK
from ..image import models as pictures
from ..weights import load_compact

HERE = Path(__file__).parent
TRAINED, UNSEEN = ("edge", "depth"), "scribble"  # kinds of conditions for the adapter
KINDS = [f"{kind}{few}" for kind in (*TRAINED, UNSEEN) for few in ("", ", few steps")]
LORA, ADAPTER = HERE / "lora.safetensors", HERE / "adapter.safetensors"
CONTROLS = {name: HERE / f"{name.replace(', ', '_').replace(' ', '_')}.safetensors" for name in KINDS}


def consistent(model: ModelPatcher, lora: Mapping[str, Tensor], strength: float = 1.0) -> ModelPatcher:
    """A MODEL with a consistency LoRA, as the stock nodes put it on."""
    learnt = comfy.sd.load_lora_for_models(model, None, dict(lora), strength, 0)[0]
    return ModelSamplingDiscrete().patch(learnt, "lcm", False)[0]


def load() -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """For sampler lcm, scheduler sgm_uniform and cfg 1."""
    model, clip, vae = pictures.load()
    return consistent(model, load_compact(LORA)), clip, vae


def load_control(name: str) -> comfy.controlnet.ControlBase:
    """One of CONTROLS."""
    return comfy.controlnet.load_controlnet_state_dict({MARK: torch.zeros(0), **load_compact(CONTROLS[name])})
