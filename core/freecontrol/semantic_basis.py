"""Semantic bases: the principal components of attention keys, in which layout can be told and copied.

FreeControl: Training-Free Spatial Control of Any Text-to-Image Diffusion Model with Any Condition, Mo et al. 2024,
https://arxiv.org/abs/2312.07536, sec. 4.1. Keys f of seed pictures, one row a spatial position, give

    s = B (f - mean),        B = the leading eigenvectors of the covariance of f.

Three differences from the paper, each measured in `bench freecontrol`:
- the covariance is streamed, batch by batch, and decomposed once, instead of an SVD of all stacked rows. Where keys have many
  more channels than there are components, what is streamed is a sketch of it (Nystroem's method: Halko, Martinsson and Tropp
  2011, https://arxiv.org/abs/0909.4061, sec. 5.4), which keeps the components that count;
- it is the covariance *within* pictures: each picture's own mean is taken off first. What differs between pictures as a
  whole (their light and colour) is appearance, and stays out of the basis of layout;
- bases belong to a sigma, not to a loop index, and one basis may serve all noise levels.
Coordinates are divided by the deviation of their component over the seed pictures, so that every component counts alike
and a coordinate of 1 means the same in every model.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-6
SKETCH = 4  # vectors of a sketch for each component: 99.8 % of the variance where it falls as slowly as 1 / rank
NOISE_FLOOR = 1e-6  # of the largest eigenvalue: below it float32 cannot tell one from nothing


@dataclass(frozen=True)
class LayerBasis:
    """Of one layer, at L noise levels. mean: (L, C); components: (L, N, C), orthonormal rows; deviation: (L, N), in key units."""

    mean: Tensor
    components: Tensor
    deviation: Tensor

    def coordinates(self, keys: Tensor, level: int) -> Tensor:
        """Keys (..., C) to whitened coordinates (..., N) with the basis of one level."""
        weight = self.components[level] / self.deviation[level][:, None]
        return (keys.to(weight.dtype) - self.mean[level]) @ weight.mT

    def leading(self, count: int) -> "LayerBasis":
        return LayerBasis(self.mean, self.components[:, :count], self.deviation[:, :count])

    def to(self, device: torch.device | str) -> "LayerBasis":
        return LayerBasis(self.mean.to(device), self.components.to(device), self.deviation.to(device))


@dataclass(frozen=True)
class Basis:
    """Bases of several layers. sigmas: (L,) noise levels, falling; layers: by tap name, in the order they run."""

    sigmas: Tensor
    layers: dict[str, LayerBasis]
    shared: bool = True  # whether all levels have the same components

    def nearest(self, sigma: float) -> int:
        """The level nearest to sigma on a log scale."""
        distances = [abs(math.log(max(level, 1e-6) / max(sigma, 1e-6))) for level in self.sigmas.tolist()]
        return distances.index(min(distances))

    @property
    def components(self) -> int:
        return min(layer.components.shape[1] for layer in self.layers.values())

    def leading(self, count: int) -> "Basis":
        """The same with fewer components."""
        if not 1 <= count <= self.components:
            raise ValueError(f"This basis has {self.components} components a layer; {count} were asked for. Choose 1 to {self.components}.")
        return replace(self, layers={name: layer.leading(count) for name, layer in self.layers.items()})

    def to(self, device: torch.device | str) -> "Basis":
        """On a device, but for the sigmas, which decide what is done and stay on the CPU."""
        return replace(self, layers={name: layer.to(device) for name, layer in self.layers.items()})


class Covariance:
    """Streaming mean and within-picture covariance A of keys, in host memory, for a number of components.

    Kept as A P, where P has SKETCH vectors for each component, or is the identity if that is no fewer than channels.
    """

    def __init__(self, channels: int, components: int):
        if not 1 <= components <= channels:
            raise ValueError(f"The keys of this layer have {channels} channels: there can be 1 to {channels} components, not {components}.")
        self.width = min(channels, SKETCH * components)
        self.probe: Tensor | None = None
        self.total = torch.zeros(channels)
        self.image = torch.zeros(channels, self.width)
        self.rows = 0

    def update(self, keys: Tensor) -> None:
        """Takes in keys (pictures, tokens, C)."""
        keys = keys.float()
        self.total += keys.sum((0, 1)).cpu()
        self.add((keys - keys.mean(1, keepdim=True)).flatten(0, 1))

    def add(self, rows: Tensor) -> None:
        """Takes in rows (n, C) that have been centred."""
        if self.width == len(self.total):
            seen = rows
        else:
            if self.probe is None:
                self.probe = _probe(rows, self.width)
            seen = rows @ self.probe.to(rows.device)
        if rows.device == self.image.device:
            self.image.addmm_(rows.mT, seen)  # without a second C x width
        else:
            self.image += (rows.mT @ seen).to(self.image.device)
        self.rows += len(rows)

    @property
    def mean(self) -> Tensor:
        return self.total / self.rows

    @property
    def factor(self) -> Tensor:
        """F (width, C) with F^T F the covariance: A P (P^T A P)^-1 P^T A."""
        image = self.image / self.rows
        if not image.sum().isfinite():
            raise ValueError("The model gave keys that are not finite (NaN or infinity), so no basis can be made of them.")
        core = image if self.probe is None else self.probe.mT.to(image) @ image
        values, vectors = torch.linalg.eigh((core + core.mT) / 2)
        scale = torch.where(values > NOISE_FLOOR * values[-1], values.clamp(min=1e-30).rsqrt(), 0)
        return (vectors * scale).mT @ image.mT


def _probe(rows: Tensor, width: int) -> Tensor:
    """Orthonormal vectors (C, width) that lie where the rows (n, C) do, as far as a random mixture of some of them tells."""
    some = rows[:: -(-len(rows) // (2 * width))]
    mixture = torch.randn(len(some), width, generator=torch.Generator().manual_seed(0)).to(rows)
    return torch.linalg.qr((some.mT @ mixture).cpu()).Q  # there, since not every device has it


def principal(factor: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` leading eigenvectors (count, C) of a covariance F^T F, and the deviations (count,) along them.

    factor: F (n, C), n >= count. Signs are fixed (the largest entry is positive), so that two builds of one basis agree.
    """
    span, factor = torch.linalg.qr(factor.mT)
    values, vectors = torch.linalg.eigh(factor @ factor.mT)
    components = (span @ vectors[:, -count:].flip(1)).mT
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    deviation = values[-count:].flip(0).clamp(min=0).sqrt().clamp(min=SMALLEST_DEVIATION)
    return (components * largest.sign()).contiguous(), deviation


def build(sigmas: Tensor, statistics: dict[str, list[Covariance]], count: int, shared: bool) -> Basis:
    """Bases from the statistics of each layer at each noise level.

    shared: one set of components for all levels (from the mean of the levels' covariances, each scaled to unit trace),
    with means and deviations of each level; else every level has its own.
    """
    layers = {name: _shared(levels, count) if shared else _separate(levels, count) for name, levels in statistics.items()}
    return Basis(sigmas, layers, shared)


def _separate(levels: list[Covariance], count: int) -> LayerBasis:
    components, deviation = zip(*(principal(level.factor, count) for level in levels), strict=True)
    return LayerBasis(torch.stack([level.mean for level in levels]), torch.stack(components), torch.stack(deviation))


def _shared(levels: list[Covariance], count: int) -> LayerBasis:
    factors = [level.factor for level in levels]
    pooled = Covariance(factors[0].shape[1], count)
    pooled.add(torch.cat([factor / factor.norm().clamp(min=SMALLEST_DEVIATION) for factor in factors]))
    components, _ = principal(pooled.factor, count)
    variance = torch.stack([(factor @ components.mT).square().sum(0) for factor in factors])
    deviation = variance.sqrt().clamp(min=SMALLEST_DEVIATION)
    mean = torch.stack([level.mean for level in levels])
    return LayerBasis(mean, components.expand(len(levels), -1, -1), deviation)
