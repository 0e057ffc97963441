"""Reading a model's features outside of anybody's sampling run: of pictures it makes, and of a picture it is given.

Each is a SAMPLER of the host, so that loading, LoRAs, ControlNets, prompts and interrupts work as in any other run.
Features are those of the conditional rows, (pictures, tokens, channels).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..models.taps import Readable, TapError
from . import reading, steering

Conditioning = list
Visit = Callable[[int, dict[str, Tensor], Tensor], None]
Predict = Callable[[Tensor, Tensor | float], tuple[Tensor, dict[str, Tensor]]]


class Probe(comfy.samplers.Sampler):
    """Runs `walk` with a function that predicts and reads at once; what `walk` returns is the sample."""

    def __init__(self, points: Sequence[Readable], walk: Callable[..., Tensor]):
        self.points, self.walk = points, walk

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *_mask_and_bar):
        def predict(x: Tensor, sigma: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
            options, readout = reading.asking(extra_args["model_options"], reading.Request(x.shape, self.points))
            clean = model_wrap(x, x.new_full((len(x),), float(sigma)), **{**extra_args, "model_options": options})
            if not readout.passes:
                raise TapError(
                    "The picture could not be read: its prompt does not cover the whole of it. Connect a prompt without an area "
                    "(Conditioning Set Area), and take context windows off the model."
                )
            return clean, readout.features

        return self.walk(predict, model_wrap.inner_model.model_sampling, sigmas, noise, latent_image)


class Prompts(NamedTuple):
    """What pictures are made of, with classifier-free guidance."""

    positive: Conditioning
    negative: Conditioning
    cfg: float


def _sample(model, probe: Probe, noise, prompts: Prompts, latent, sigmas) -> Tensor:
    positive, negative, cfg = prompts
    ending = torch.cat([sigmas, torch.zeros(1)])  # as every schedule of the host has it
    plain = reading.readable(steering.without_guides(model))  # the user's own FreeControl, if any, is not part of what is read
    return comfy.sample.sample_custom(plain, noise, cfg, probe, ending, positive, negative, latent, disable_pbar=True, seed=0)


def generate(
    model: ModelPatcher, points: Sequence[Readable], prompts: Prompts, noise: Tensor, latent: Tensor, sigmas: Tensor, visit: Visit
) -> Tensor:
    """Makes pictures by Euler steps over falling `sigmas` and then to 0, and shows `visit` what it finds at each of them:
    its number, the features, and the clean latents that are predicted, in the model's own scale. Gives the latents.
    """

    def walk(predict: Predict, sampling, sigmas: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        x = sampling.noise_scaling(sigmas[0], noise, latent, True)
        clean = x
        for i in range(len(sigmas) - 1):
            clean, features = predict(x, sigmas[i])
            visit(i, features, clean)
            x = clean + (x - clean) * (sigmas[i + 1] / sigmas[i])
        return clean

    return _sample(model, Probe(points, walk), noise, prompts, latent, sigmas)


def inspect(
    model: ModelPatcher, points: Sequence[Readable], positive: Conditioning, latent: Tensor, sigmas: Tensor,
    seed: int, draws: int, visit: Visit,
) -> None:  # fmt: skip
    """Shows `visit` the features of a given picture at each of `sigmas`, noised forward; `draws` noises are averaged."""

    def walk(predict: Predict, sampling, sigmas: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noises = torch.randn((draws, *latent.shape), generator=generator).to(latent)
        for i, sigma in enumerate(sigmas[:-1]):
            x = sampling.noise_scaling(sigma, noises.flatten(0, 1), latent.repeat(draws, *[1] * (latent.ndim - 1)), False)
            clean, features = predict(x, sigma)
            visit(i, {k: f.unflatten(0, (draws, -1)).mean(0) for k, f in features.items()}, clean[: len(latent)])
        return latent

    _sample(model, Probe(points, walk), torch.zeros_like(latent), Prompts(positive, positive, 1.0), latent, sigmas)


def invert(
    model: ModelPatcher, points: Sequence[Readable], positive: Conditioning, latent: Tensor, sigmas: Tensor, steps: int, visit: Visit
) -> None:
    """Shows `visit` the features of a given picture at each of `sigmas` along its DDIM inversion, which takes about `steps` steps."""

    def walk(predict: Predict, sampling, sigmas: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        wanted = sigmas[:-1]
        path = torch.cat([_upwards(sampling, float(wanted[0]), steps).to(wanted), wanted]).unique()
        x = sampling.noise_scaling(path[0], torch.zeros_like(latent), latent, False)
        for i, sigma in enumerate(path):
            clean, features = predict(x, sigma)
            for level in torch.nonzero(wanted == sigma)[:, 0].tolist():
                visit(level, features, clean)
            if i + 1 < len(path):
                x = clean + (x - clean) * (path[i + 1] / sigma)
        return latent

    _sample(model, Probe(points, walk), torch.zeros_like(latent), Prompts(positive, positive, 1.0), latent, sigmas)


def _upwards(sampling, high: float, steps: int) -> Tensor:
    """Sigmas from the model's lowest to `high`, evenly spaced in its own time: for flow models that is sigma itself."""
    low = float(sampling.sigma_min)
    if isinstance(sampling, comfy.model_sampling.CONST):
        return torch.linspace(low, high, steps)
    first, last = (float(sampling.timestep(torch.tensor(sigma))) for sigma in (low, high))
    return torch.stack([sampling.sigma(time) for time in torch.linspace(first, last, steps)]).clamp(low, high)


def levels(model: ModelPatcher, count: int, first: float, last: float) -> Tensor:
    """`count` falling sigmas, evenly spaced in percent of the model's schedule, from 0 to 1."""
    sampling: Any = model.get_model_object("model_sampling")
    percents = torch.linspace(first, last, count).tolist()
    highest = float(sampling.sigma_max)
    return torch.tensor([min(float(sampling.percent_to_sigma(p)), highest) for p in percents])
