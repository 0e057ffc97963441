"""FreeControl's two energies for one picture in the making: the condition's layout, and the sibling's look.

Puts `semantic_basis` (coordinates) and `feature_guidance` (energies) together; see there for the paper and its equations.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .feature_guidance import SLACK, appearance, appearance_energy, background_limit, relative, resample, structure_energy
from .semantic_basis import Basis

Grid = tuple[int, int]


@dataclass(frozen=True)
class Structure:
    """The layout of a condition image.

    sigmas: (L,) levels at which it was read; coordinates: by layer, (L, B, tokens, N), whitened; grids: by layer.
    mask: (B, 1, H, W) in 0..1, what to place, or None for the whole picture. B is 1, or one condition a picture.
    """

    basis: Basis
    sigmas: Tensor
    coordinates: dict[str, Tensor]
    grids: dict[str, Grid]
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> "Structure":
        """On a device, but for the sigmas, which decide what is done and stay on the CPU."""
        coordinates = {name: values.to(device) for name, values in self.coordinates.items()}
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, basis=self.basis.to(device), coordinates=coordinates, mask=mask)

    def at(self, layer: str, sigma: float) -> Tensor:
        """Coordinates (B, tokens, N) at a noise level, interpolated over log sigma when all levels share their components."""
        levels = self.coordinates[layer]
        place = log_position(self.sigmas, sigma)
        low = int(place)
        if not self.basis.shared:
            return levels[round(place)]
        high = min(low + 1, len(levels) - 1)
        return torch.lerp(levels[low], levels[high], place - low)


def log_position(sigmas: Tensor, sigma: float) -> float:
    """Where sigma lies among falling `sigmas`: 0 at the first or above it, L - 1 at the last or below it."""
    if len(sigmas) == 1:
        return 0.0
    logs = [math.log(max(each, 1e-6)) for each in sigmas.tolist()]
    wanted = math.log(max(sigma, 1e-6))
    for i in range(len(logs) - 1):
        if wanted >= logs[i + 1]:
            return i + min(max((logs[i] - wanted) / (logs[i] - logs[i + 1]), 0.0), 1.0)
    return float(len(logs) - 1)


def interpolate(values: list[Tensor], sigmas: list[float], sigma: float) -> Tensor:
    """Between values that were taken at falling sigmas, over log sigma; the nearest one outside of them."""
    place = log_position(torch.tensor(sigmas), sigma)
    low = int(place)
    return torch.lerp(values[low], values[min(low + 1, len(values) - 1)], place - low)


def repeat_to(values: Tensor, count: int) -> Tensor:
    """As many rows as there are pictures: rows again from the first when there are fewer."""
    return values if len(values) == count else values[torch.arange(count) % len(values)]


@dataclass
class Energy:
    """The energy of one FreeControl. `look`: by layer and level, the sibling's appearance, (B, 1 + K, C); empty without one."""

    structure: Structure
    grids: dict[str, Grid]
    relative: bool = True
    background: float = 1.0
    appearance: float = 0.1
    components: int = 2
    look_sigmas: list[float] = field(default_factory=list)
    look: dict[str, list[Tensor]] = field(default_factory=dict)

    def _coordinates(self, layer: str, keys: Tensor, sigma: float) -> Tensor:
        basis = self.structure.basis
        if not basis.shared:  # the components that the condition was read with
            sigma = float(self.structure.sigmas[round(log_position(self.structure.sigmas, sigma))])
        return basis.layers[layer].coordinates(keys, basis.nearest(sigma))

    def remember(self, features: dict[str, Tensor], sigma: float) -> None:
        """Takes the sibling's look from its features."""
        self.look_sigmas.append(sigma)
        for layer, keys in features.items():
            if layer in self.structure.coordinates:
                v = appearance(keys, self._coordinates(layer, keys, sigma), self.components)
                self.look.setdefault(layer, []).append(v)

    def __call__(self, features: dict[str, Tensor], sigma: float) -> Tensor:
        """Features by layer, (B, tokens, C), to the energy of each picture, (B,)."""
        parts = [self._layer(layer, features[layer], sigma) for layer in self.structure.coordinates]
        return torch.stack(parts).mean(0)

    def _layer(self, layer: str, keys: Tensor, sigma: float) -> Tensor:
        coordinates = self._coordinates(layer, keys, sigma)
        old, grid = self.structure.grids[layer], self.grids[layer]
        target = resample(self.structure.at(layer, sigma).to(coordinates), old, grid)
        target = repeat_to(target, len(keys))
        mask = repeat_to(self._mask(grid), len(keys)).to(coordinates)
        placed, slack = coordinates, 0.0
        if self.relative:
            placed, target, slack = relative(coordinates), relative(target), SLACK
        energy = structure_energy(placed, target, mask, background_limit(target, mask), self.background, slack)
        if self.appearance > 0 and self.look:
            energy = energy + self.appearance * self._look_energy(layer, keys, coordinates, sigma)
        return energy

    def _look_energy(self, layer: str, keys: Tensor, coordinates: Tensor, sigma: float) -> Tensor:
        wanted = interpolate(self.look[layer], self.look_sigmas, sigma)
        basis = self.structure.basis
        spread = basis.layers[layer].deviation[basis.nearest(sigma)].square().sum()
        return appearance_energy(appearance(keys, coordinates, self.components), wanted.to(keys.dtype), spread)

    def _mask(self, grid: Grid) -> Tensor:
        """(1, tokens) on a token grid."""
        if self.structure.mask is None:
            return torch.ones(1, grid[0] * grid[1])
        return torch.nn.functional.interpolate(self.structure.mask, grid, mode="area").flatten(1)
