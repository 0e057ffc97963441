"""A MODEL with a ControlNet, as trainers have them. The ControlNet is the host's own; at first it is a copy of the UNet's encoder (Zhang et
al. 2023, https://arxiv.org/abs/2302.05543)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_detection
import comfy.ops
import comfy.supported_models
import torch
from comfy.ldm.modules.attention import CrossAttention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...host.adapters import walks
from ...host.adapters.control_per_step import ControlPerStep
from ...host.adapters.practice import Conditioning, Practice
from ...host.gradients.attention import with_derivative
from .levels import levels_of, path_of

MARK = "lora_controlnet"  # by which the host takes the form of a control network from the MODEL that it is used with
HINT_CHANNELS = 3
SHOWN = 4  # pictures


class ControlError(ValueError):
    """Written for the user: why no ControlNet can be trained here."""


@dataclass(frozen=True)
class Pairs:
    """latents: clean (N, C, h, w), as the VAE gives them; hints: conditions (N, 3, H, W) in 0..1; prompt: of each pair, its number;
    positive: all prompts, encoded."""

    latents: Tensor
    hints: Tensor
    prompt: Sequence[int]
    positive: Sequence[Conditioning]


@dataclass(frozen=True)
class Batch:
    """chosen: numbers of pairs (B,); lower, higher: noise levels (B,), for the noise loss the same; noise (B, C, h, w)."""

    chosen: Tensor
    lower: Tensor
    higher: Tensor
    noise: Tensor


class Controlled:
    """The practice of a MODEL with one ControlNet, on pairs. pooled: see global_average_pooling of the host's ControlNet."""

    def __init__(self, practice: Practice, pairs: Pairs, network: nn.Module, pooled: bool = False) -> None:
        self.practice, self.pairs, self.network = practice, pairs, network
        self.device = next(network.parameters()).device
        self.latents = practice.base.process_latent_in(pairs.latents.float())
        self.control: Any = comfy.controlnet.ControlNet(network, pooled, load_device=self.device)
        for layer in network.modules():
            if isinstance(layer, CrossAttention):  # the host gives control networks no options of its own
                layer.register_forward_pre_hook(_with_derivative, with_kwargs=True)
        self.control.model_sampling_current = practice.sampling
        self.sigmas = levels_of(practice).to(self.device)

    def clean(self, batch: Batch) -> Tensor:
        return self.latents[batch.chosen.cpu()].to(self.device)

    def predict(self, batch: Batch, sigma: Tensor) -> Tensor:
        """Clean latents (B, ...) from those of the batch with its noise, at levels (B,)."""
        latents = self.clean(batch)
        x = self.practice.sampling.noise_scaling(sigma.view(-1, *[1] * (latents.ndim - 1)), batch.noise, latents, False)
        return self.practice.predict(self._shown(batch.chosen.cpu()), x, sigma, control=self.control)

    def consistent(self, batch: Batch) -> Tensor:
        """What a prediction from the higher levels has to be: that from the lower ones; from none, the picture itself."""
        with torch.no_grad():
            found = self.predict(batch, batch.lower.clamp(min=float(self.sigmas[1])))
        return torch.where((batch.lower == 0).view(-1, *[1] * (found.ndim - 1)), self.clean(batch), found)

    def _shown(self, chosen: Tensor) -> list[str]:
        """Puts the conditions of these pairs before the ControlNet; gives the names of their prompts."""
        self.control.cond_hint = None
        self.control.set_cond_hint(self.pairs.hints[chosen].float().to(self.device))
        return [str(self.pairs.prompt[int(i)]) for i in chosen]

    def picture(self, steps: int, seed: int, consistent: bool) -> Tensor:
        """Clean latents of the first pairs in a few steps, always from the same noise. consistent: as sampler lcm makes them."""
        names = self._shown(torch.arange(min(SHOWN, len(self.latents))))
        generator = torch.Generator().manual_seed(seed)
        noises = torch.randn(steps, len(names), *self.latents.shape[1:], generator=generator).to(self.device)
        path = path_of(self.sigmas, steps)
        if consistent:
            return walks.lcm(self.practice, names, noises, path, self.control)
        x = self.practice.sampling.noise_scaling(torch.tensor(path[0]), noises[0], torch.zeros_like(noises[0]), True)
        return walks.euler(self.practice, names, x, [*path, 0.0], self.control)


def _with_derivative(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return args, {**kwargs, "transformer_options": with_derivative(kwargs.get("transformer_options") or {})}


def check_unet(base: Any) -> None:
    if not isinstance(base.diffusion_model, UNetModel):
        raise ControlError(
            "Only UNets (such as SD 1.5, SD 2 and SDXL) have ControlNets of this kind, and this model is no UNet: take such a model."
        )
    given, own = base.model_config.unet_config.get("in_channels"), base.latent_format.latent_channels
    if given != own:
        raise ControlError(
            f"This UNet takes {given} channels for latents of {own}, as those for inpainting and for clips do, and ControlNets see the "
            "latent alone: take the ordinary model."
        )


def check_consistent(model: ModelPatcher) -> None:
    if not hasattr(model.get_model_object("model_sampling"), "original_timesteps"):
        raise ControlError(
            "This needs a consistency model: put its LoRA (such as LCM-LoRA) on the model, then ModelSamplingDiscrete set to lcm."
        )


def initial(base: Any, device: torch.device) -> nn.Module:
    """The host's ControlNet for one of its UNets, with the encoder's weights, in float32."""
    check_unet(base)
    config = {**base.model_config.unet_config, "hint_channels": HINT_CHANNELS, "operations": comfy.ops.disable_weight_init}
    config.pop("out_channels", None)
    config["transformer_depth"] = list(config["transformer_depth"])
    network = comfy.cldm.cldm.ControlNet(**{**config, "dtype": torch.float32, "device": device})
    for name, weight in network.named_parameters():  # the host leaves them as they lie in memory
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        else:
            nn.init.zeros_(weight)
        if name.startswith(("zero_convs", "middle_block_out", "input_hint_block.14")):
            nn.init.zeros_(weight)
    network.load_state_dict({name: weight.float() for name, weight in base.diffusion_model.state_dict().items()}, strict=False)
    return network.requires_grad_(True)


def for_the_host(base: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the host's ControlNet loader reads them, in half precision: the form of a network that it does not know by its weights, it takes
    from the MODEL."""
    made = {name: weight.half().cpu().contiguous() for name, weight in weights.items()}
    form = comfy.model_detection.detect_unet_config(made, "")
    known = form is not None and any(kind.matches(form, made) for kind in comfy.supported_models.models)
    return made if known else {MARK: torch.zeros(0), **made}


def own_weights(control: Any) -> dict[str, Tensor]:
    """Those of a ControlNet's file."""
    if isinstance(control, ControlPerStep):
        return own_weights(control.inner)
    if isinstance(control, comfy.controlnet.ControlLora):
        return {name: weight for name, weight in control.control_weights.items() if name != MARK}
    if type(control) is not comfy.controlnet.ControlNet:
        raise ControlError(f"This is a {type(control).__name__}: only ControlNets of UNets (SD 1.5, SD 2, SDXL) can be adapted.")
    network: Any = control.control_model
    return dict(network.state_dict())


def network_of(control: Any, base: Any) -> nn.Module:
    """A ControlNet of the host for this MODEL, which has to be loaded, as a network of its own, in float32."""
    given, network = own_weights(control), initial(base, torch.device("cpu"))
    own: dict[str, Any] = dict(network.state_dict())
    weights: dict[str, Any] = {name: weight.float() for name, weight in given.items() if not name.endswith((".up", ".down"))}
    for path in (name.removesuffix(".up") for name in given if name.endswith(".up")):  # low ranks, beside its own weights or the UNet's
        added = given[f"{path}.up"].float().flatten(1) @ given[f"{path}.down"].float().flatten(1)
        plain = weights.get(f"{path}.weight", own.get(f"{path}.weight", added))
        weights[f"{path}.weight"] = plain + added.reshape(plain.shape) if plain.numel() == added.numel() else added
    wrong = next((name for name, weight in weights.items() if name not in own or own[name].shape != weight.shape), None)
    if wrong is not None:
        raise ControlError(f"This ControlNet was made for another model: its {wrong[:60]} does not fit. Take one made for this MODEL.")
    network.load_state_dict(weights, strict=False)
    return network
