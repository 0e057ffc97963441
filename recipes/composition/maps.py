"""Where a model looks for the objects of a prompt, in a picture that is given."""

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.composition import losses
from ...host.models import families
from ...host.models.attention_sites import text_layers
from ...host.sampling import probe
from ...host.sampling.reading import Features
from .guide import PROMPT, Named, attention_to


def maps_of_picture(
    model: ModelPatcher, named: Named, positive: list, latent: Tensor, sigmas: Tensor, layers: families.Choice, seed: int
) -> Tensor:
    """(levels, pictures, objects, F, h, w): how much each place of pictures, of which `latent` (B, C, [T,] h, w) are the latents as the
    VAE gives them, attends to each object, under noise of each of `sigmas`."""
    chosen = text_layers(families.family_of(model), model.model.diffusion_model, layers)
    points = [PROMPT, *(point for layer in chosen for point in layer.points)]
    found: list[Tensor] = []

    def visit(level: int, features: Features, clean: Tensor) -> None:
        rows, device = len(features[PROMPT.name]), features[PROMPT.name].device
        words = losses.means(named.phrases[None]).expand(rows, -1, -1).to(device)
        found.append(attention_to(features, chosen, latent.shape, words).cpu())

    probe.inspect(model, points, positive, latent, sigmas, seed, 1, visit)
    return torch.stack(found)
