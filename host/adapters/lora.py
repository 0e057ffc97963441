"""LoRAs (Hu et al. 2021, https://arxiv.org/abs/2106.09685) in training: W x + B A x, beside a model whose own weights stay as they are.

They act by forward hooks, so the user's MODEL is the same before and after. What is trained is saved as the host's own LoRA nodes have it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOUDER = 2.0**12  # a gradient is so much larger within the model than outside: half precision would lose it otherwise


class AdapterError(ValueError):
    """Written for the user: why a layer of this model cannot be trained."""


class Lora(nn.Module):
    """A and B of each layer in `targets`, paths of linear layers and convolutions below the diffusion model. At first B is 0, and nothing
    is changed. What the loss is made of has to go through `louder`."""

    def __init__(self, diffusion_model: nn.Module, targets: Sequence[str], rank: int, seed: int = 0) -> None:
        super().__init__()
        self.targets = tuple(targets)
        generator = torch.Generator().manual_seed(seed)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for path in targets:
            narrow, *wide = _shape(path, diffusion_model.get_submodule(path))
            if rank > min(wide[0], narrow):
                raise AdapterError(f"rank is {rank}, and layer {path} is only {min(wide[0], narrow)} wide: choose a smaller one.")
            self.down.append(nn.Parameter(torch.randn(rank, *wide, generator=generator) / math.prod(wide) ** 0.5))
            self.up.append(nn.Parameter(torch.zeros(narrow, rank, *[1] * len(wide[1:]))))
        for weight in self.parameters():
            weight.register_hook(lambda gradient: gradient / LOUDER)

    @contextmanager
    def attached(self, diffusion_model: nn.Module, weights: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Around evaluations that are to be made with it. weights: a state of this module, in place of its own."""
        with ExitStack() as stack:
            for i, path in enumerate(self.targets):
                down, up = (self.down[i], self.up[i]) if weights is None else (weights[f"down.{i}"], weights[f"up.{i}"])
                stack.callback(diffusion_model.get_submodule(path).register_forward_hook(_added(down, up)).remove)
            yield

    def for_the_host(self, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Weights by the names that the host's LoRA loader knows. weights: a state of this module, in place of its own."""
        state = self.state_dict() if weights is None else weights
        found = {}
        for i, path in enumerate(self.targets):
            down, up = (state[f"{part}.{i}"].detach().float().cpu().contiguous() for part in ("down", "up"))
            name = f"diffusion_model.{path}"
            found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(float(len(down)))}
        return found


def layers_of(network: nn.Module, rank: int) -> list[str]:
    """Paths of all layers that a LoRA can be trained on: linear ones and convolutions with at least as many channels as its rank."""
    layers = ((path, layer) for path, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d)))
    found = [path for path, layer in layers if min(layer.weight.shape[:2]) >= rank]
    if not found:
        raise AdapterError(f"rank is {rank}, and no layer of this model is so wide: choose a smaller one.")
    return found


def louder(values: Tensor) -> Tensor:
    """The same float32 values, of a model with a Lora, in the same graph: their gradient is LOUDER times as large from here on."""
    values.register_hook(lambda gradient: gradient * LOUDER)
    return values


def _shape(path: str, layer: nn.Module) -> tuple[int, ...]:
    """Of the weights that a LoRA is added to."""
    narrow, wide = (getattr(layer, name, None) for name in ("out_features", "in_features"))
    if isinstance(narrow, int) and isinstance(wide, int):
        return narrow, wide
    if isinstance(layer, nn.Conv2d) and layer.groups == 1:
        return layer.out_channels, layer.in_channels, *layer.kernel_size
    raise AdapterError(f"Layer {path} of this model is neither linear nor a convolution of pictures, so no LoRA can be trained on it.")


def _added(down: Tensor, up: Tensor):
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        given = inputs[0].to(down.dtype)
        if isinstance(module, nn.Conv2d):
            low = F.conv2d(given, down, None, module.stride, module.padding, module.dilation)
            return output + F.conv2d(low, up).to(output.dtype)
        return output + (given @ down.T @ up.T).to(output.dtype)

    return hook
