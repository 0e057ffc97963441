"""Where a model looks for the objects of a prompt, in a picture that is given."""

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...host.models import families
from ...host.models.attention_sites import text_layers
from ...host.sampling import probe
from ...host.sampling.reading import Features
from .guide import Named, maps_of_prompt, points_of


def maps_of_picture(
    model: ModelPatcher, named: Named, positive: list, latent: Tensor, sigmas: Tensor, layers: families.Choice, seed: int
) -> Tensor:
    """(levels, pictures, objects, F, h, w): how much each place of pictures, of which `latent` (B, C, [T,] h, w) are the latents as the
    VAE gives them, attends to each object, under noise of each of `sigmas`."""
    chosen = text_layers(families.family_of(model), model.model.diffusion_model, layers)
    found: list[Tensor] = []

    def visit(level: int, features: Features, clean: Tensor) -> None:
        found.append(maps_of_prompt(features, named, chosen, latent.shape)[0].cpu())

    probe.inspect(model, points_of(chosen), positive, latent, sigmas, seed, 1, visit)
    return torch.stack(found)
