"""The three steps of FreeControl on the host's objects: a basis from seed pictures, a structure from a picture, a guide."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.freecontrol import semantic_basis, tints
from ...core.freecontrol.energy import Structure, pictures_of, with_margin
from ...core.freecontrol.feature_guidance import layout_metric
from ...core.freecontrol.semantic_basis import Basis, Covariance
from ...host.models import families
from ...host.models.pictures import encode_pictures
from ...host.models.taps import Point
from ...host.sampling import probe, steering
from ...host.sampling.reading import Features
from .guide import FreeControlGuide, GuideSettings, picture_grid

Conditioning = list
Progress = Callable[[int, Tensor], None]
LOWEST_PERCENT = 0.75  # of sampling; what comes later is detail, which no basis needs
ONE_PERCENT = 0.65  # of sampling, where a condition is read that is read only once (RichControl, https://arxiv.org/abs/2507.02792)

METHODS = ("noise", "inversion")
INVERSION_STEPS = 60
DRAWS = 2  # noises with which a condition is read


@dataclass(frozen=True)
class BasisSettings:
    """How a basis is made; as the nodes offer it at first. See Extract Basis for what each does.

    seed_images: how many; steps: of each, and noise levels; shared: one set of components for all levels.
    """

    seed_images: int = 20
    steps: int = 12
    cfg: float = 5.0
    components: int = 32
    layers: families.Choice = "default"
    shared: bool = True
    seed: int = 0


@dataclass(frozen=True)
class ReadingSettings:
    """How a condition is read. levels: of noise; colourings: in which it is read by noise (see core.freecontrol.tints)."""

    method: str = METHODS[0]
    levels: int = 1
    colourings: int = 6


def build_basis(
    model: ModelPatcher, positives: list[Conditioning], negative: Conditioning, latent: Tensor, settings: BasisSettings,
    progress: Progress | None = None, batch: int = 10,
) -> Basis:  # fmt: skip
    """Makes seed pictures with the prompts in turn, `batch` at once, and analyses their keys at every noise level.

    latent: of any content, (B, C, h, w) or (B, C, T, h, w), as large as the pictures; of clips, each frame is one. Raises
    UnknownModelError, and ValueError for keys that are not finite or have fewer channels than `components`.
    """
    points = families.structure_points(model, settings.layers)
    cells = {p.name: math.prod(picture_grid(p, latent.shape)) for p in points}
    sigmas = probe.levels(model, settings.steps, 0.0, LOWEST_PERCENT)
    statistics: dict[str, list[Covariance]] = {}

    def visit(level: int, features: Features, clean: Tensor) -> None:
        for name, keys in features.items():
            seen = statistics.setdefault(name, [])
            if level == len(seen):
                seen.append(Covariance(keys.shape[-1], settings.components))
            seen[level].update(pictures_of(keys, cells[name]))
        if progress is not None:
            progress(level, clean)

    done, count = 0, settings.seed_images
    for i, positive in enumerate(positives):
        share = (count * (i + 1)) // len(positives) - (count * i) // len(positives)
        while share > 0:
            size = min(batch, share)
            empty = latent.new_zeros(size, *latent.shape[1:])
            noise: Any = comfy.sample.prepare_noise(empty, settings.seed + done)
            probe.generate(model, points, probe.Prompts(positive, negative, settings.cfg), noise, empty, sigmas, visit)
            done, share = done + size, share - size
    return semantic_basis.build(sigmas, statistics, settings.components, settings.shared)


def read_structure(
    model: ModelPatcher, basis: Basis, latent: Tensor, positive: Conditioning, settings: ReadingSettings, mask: Tensor | None = None,
    draws: int = DRAWS, seed: int = 0,
) -> Structure:  # fmt: skip
    """Coordinates of encoded pictures at some noise levels, by forward noising or by DDIM inversion, one of METHODS.

    latent: (B, C, h, w) or (B, C, T, h, w), as the VAE gives it; of clips, each frame is a picture. mask: (1 or B, 1, H, W), of any
    size; it is followed with some of the ground around it. The structure is on the model's device.
    """
    points = [p for p in families.structure_points(model, "all decoder") if p.name in basis.layers]
    basis = basis.to(model.load_device)
    method, count = settings.method, settings.levels
    sigmas = probe.levels(model, count, *((ONE_PERCENT, ONE_PERCENT) if count == 1 else (0.0, LOWEST_PERCENT)))
    grids = {p.name: picture_grid(p, latent.shape) for p in points}
    coordinates: dict[str, list[Tensor]] = {}

    def visit(level: int, features: Features, clean: Tensor) -> None:
        index = basis.nearest(float(sigmas[level]))
        for name, keys in features.items():
            pictures = pictures_of(keys, math.prod(grids[name]))
            coordinates.setdefault(name, []).append(basis.layers[name].coordinates(pictures, index))

    if method == "inversion":
        probe.invert(model, points, positive, latent, sigmas, INVERSION_STEPS, visit)
    else:
        probe.inspect(model, points, positive, latent, sigmas, seed, draws, visit)
    order = slice(None, None, -1 if method == "inversion" else 1)  # inversion climbs
    stacked = {name: torch.stack(found[order]) for name, found in coordinates.items()}
    return Structure(basis, sigmas, stacked, grids, None if mask is None else with_margin(mask))


def guide(model: ModelPatcher, structure: Structure, points: list[Point], settings: GuideSettings) -> ModelPatcher:
    """A clone of `model` that follows a structure."""
    if settings.strength == 0:
        return model.clone()
    return steering.attach(model, FreeControlGuide(structure, points, settings))


def pictures_at_once(latent: Tensor) -> int:
    """As many as have the tokens of four pictures of 512 x 512, at most 16."""
    return max(1, min(16, 4 * 64 * 64 // math.prod(latent.shape[2:])))


def empty_latent(model: ModelPatcher, size: tuple[int, int]) -> Tensor:
    """For one picture of `size` (h, w) cells."""
    zeros = torch.zeros(1, 4, *size, device=comfy.model_management.intermediate_device())
    return comfy.sample.fix_empty_latent_channels(model, zeros)


def encode_text(clip, text: str) -> Conditioning:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def read_condition(
    model: ModelPatcher, basis: Basis, vae, pictures: Tensor, size: tuple[int, int], positive: Conditioning,
    settings: ReadingSettings, mask: Tensor | None = None,
) -> Structure:  # fmt: skip
    """The structure of pictures (B, H, W, 3), on the CPU, where it waits until it is used.

    By noise they are read in several colourings, whose mean is layout without colour.
    """
    tinted = tints.tinted(pictures, settings.colourings if settings.method == "noise" else 1)
    latents = [encode_pictures(vae, colouring, size) for colouring in tinted]  # all at first, so that the VAE is loaded once
    read = [read_structure(model, basis, latent, positive, settings, mask, seed=seed) for seed, latent in enumerate(latents)]
    seen = {name: torch.stack([one.coordinates[name] for one in read]) for name in read[0].coordinates}
    mean = {name: values.mean(0) for name, values in seen.items()}
    weights = {name: tints.signal_to_noise(values).cpu() for name, values in seen.items()} if len(read) > 1 else {}
    metric = {name: layout_metric(values.cpu(), weights.get(name)) for name, values in mean.items()}
    return replace(read[0], coordinates=mean, metric=metric).to("cpu")
