"""Semantic bases: the principal components of attention keys, in which layout can be told and copied.

FreeControl: Training-Free Spatial Control of Any Text-to-Image Diffusion Model with Any Condition, Mo et al. 2024,
https://arxiv.org/abs/2312.07536, sec. 4.1. Keys f of seed pictures, one row a spatial position, give

    s = B (f - mean),        B = the leading eigenvectors of the covariance of f.

Three differences from the paper, each measured in benchmarks/freecontrol.py:
- the covariance is streamed, batch by batch, and decomposed once, instead of an SVD of all stacked rows;
- it is the covariance *within* pictures: each picture's own mean is taken off first. What differs between pictures as a
  whole (their light and colour) is appearance, and stays out of the basis of layout;
- bases belong to a sigma, not to a loop index, and one basis may serve all noise levels.
Coordinates are divided by the deviation of their component over the seed pictures, so that every component counts alike
and a coordinate of 1 means the same in every model.
"""
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-6
ITERATIONS = 40  # cost as much as a full decomposition
TOLERANCE = 1e-5  # of an eigenvector, |A v - value v| over the largest value; float32 itself gives about 1e-6


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


@dataclass(frozen=True)
class Basis:
    """Bases of several layers. sigmas: (L,) noise levels, falling; layers: by tap name, in the order they run."""

    sigmas: Tensor
    layers: dict[str, LayerBasis]
    shared: bool = True  # whether all levels have the same components

    def nearest(self, sigma: float) -> int:
        """The level nearest to sigma on a log scale."""
        return int((self.sigmas.clamp(min=1e-6).log() - torch.tensor(max(sigma, 1e-6)).log()).abs().argmin())

    @property
    def components(self) -> int:
        return min(layer.components.shape[1] for layer in self.layers.values())

    def leading(self, count: int) -> "Basis":
        """The same with fewer components."""
        if not 1 <= count <= self.components:
            raise ValueError(f"This basis has {self.components} components a layer; {count} were asked for. Choose 1 to {self.components}.")
        return replace(self, layers={name: layer.leading(count) for name, layer in self.layers.items()})


class Covariance:
    """Streaming mean and within-picture covariance of keys, in host memory: C x C whatever the number of pictures."""

    def __init__(self, channels: int):
        self.total = torch.zeros(channels)
        self.gram = torch.zeros(channels, channels)
        self.rows = 0

    def update(self, keys: Tensor) -> None:
        """Takes in keys (pictures, tokens, C)."""
        keys = keys.float()
        centred = (keys - keys.mean(1, keepdim=True)).flatten(0, 1)
        self.total += keys.sum((0, 1)).cpu()
        if keys.device == self.gram.device:
            self.gram.addmm_(centred.mT, centred)  # without a second C x C
        else:
            self.gram += (centred.mT @ centred).to(self.gram.device)
        self.rows += len(centred)

    @property
    def mean(self) -> Tensor:
        return self.total / self.rows

    @property
    def matrix(self) -> Tensor:
        return self.gram / self.rows


def principal(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` leading eigenvectors (count, C) of a covariance (C, C), and the deviations (count,) along them.

    Signs are fixed (the largest entry is positive), so that two builds of one basis agree.
    """
    channels = len(covariance)
    if not 1 <= count <= channels:
        raise ValueError(f"The keys of this layer have {channels} channels, so there can be 1 to {channels} components, not {count}.")
    if not covariance.sum().isfinite():
        raise ValueError("The model gave keys that are not finite (NaN or infinity), so no basis can be made of them.")
    values, vectors = _leading(covariance, count)
    components = vectors.mT
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    deviation = values.clamp(min=0).sqrt().clamp(min=SMALLEST_DEVIATION)
    return (components * largest.sign()).contiguous(), deviation


def _leading(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues, falling, and their eigenvectors (C, count).

    By subspace iteration on twice as many vectors where these are few, until all of them fulfil A v = value v; where they do
    not (a spectrum without decay, which keys do not have), or are many, by a full decomposition.
    """
    channels = len(covariance)
    if 8 * count <= channels:
        block = torch.randn(channels, 2 * count, generator=torch.Generator().manual_seed(0)).to(covariance)
        for i in range(ITERATIONS):
            block = torch.linalg.qr(covariance @ block).Q
            if i % 4 == 3:
                image = covariance @ block
                values, rotation = torch.linalg.eigh(block.mT @ image)
                values, rotation = values[-count:].flip(0), rotation[:, -count:].flip(1)
                vectors = block @ rotation
                if (image @ rotation - vectors * values).norm(dim=0).max() <= TOLERANCE * values[0]:
                    return values, vectors
    values, vectors = torch.linalg.eigh(covariance)
    return values[-count:].flip(0), vectors[:, -count:].flip(1)


def build(sigmas: Tensor, statistics: dict[str, list[Covariance]], count: int, shared: bool) -> Basis:
    """Bases from the statistics of each layer at each noise level.

    shared: one set of components for all levels (from the mean of the levels' covariances, each scaled to unit trace),
    with means and deviations of each level; else every level has its own.
    """
    layers = {name: _shared(levels, count) if shared else _separate(levels, count) for name, levels in statistics.items()}
    return Basis(sigmas, layers, shared)


def _separate(levels: list[Covariance], count: int) -> LayerBasis:
    components, deviation = zip(*(principal(level.matrix, count) for level in levels), strict=True)
    return LayerBasis(torch.stack([level.mean for level in levels]), torch.stack(components), torch.stack(deviation))


def _shared(levels: list[Covariance], count: int) -> LayerBasis:
    pooled = torch.zeros_like(levels[0].gram)
    for level in levels:
        pooled += level.gram / level.gram.trace()
    components, _ = principal(pooled, count)
    variance = torch.stack([((components @ level.matrix) * components).sum(1) for level in levels])
    deviation = variance.clamp(min=0).sqrt().clamp(min=SMALLEST_DEVIATION)
    mean = torch.stack([level.mean for level in levels])
    return LayerBasis(mean, components.expand(len(levels), -1, -1), deviation)
