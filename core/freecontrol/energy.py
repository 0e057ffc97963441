"""FreeControl's two energies for pictures in the making: the condition's layout, and the sibling's look.

Puts `semantic_basis` (coordinates) and `feature_guidance` (energies) together; see there for the paper and its equations.
The frames of a clip are so many pictures, each with the layout of its own frame of the condition.
"""

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_guidance import SLACK, appearance, appearance_energy, background_limit, relative, resample, structure_energy
from .semantic_basis import Basis

Grid = tuple[int, int]

MARGIN = 0.1  # of a picture's shorter side


@dataclass(frozen=True)
class Structure:
    """The layout of a condition image.

    sigmas: (L,) levels at which it was read; coordinates: by layer, (L, B, tokens, N), whitened; grids: by layer.
    mask: (B, 1, H, W) in 0..1, what to place, or None for the whole picture. B is 1, or one condition a picture; for a clip, the
    conditions follow each other in time. metric: by layer, (L, B, N, N), how differences count by their direction; all alike without.
    """

    basis: Basis
    sigmas: Tensor
    coordinates: dict[str, Tensor]
    grids: dict[str, Grid]
    mask: Tensor | None = None
    metric: dict[str, Tensor] | None = None

    def to(self, device: torch.device | str) -> "Structure":
        """On a device, but for the sigmas, which decide what is done and stay on the CPU."""
        coordinates = {name: values.to(device) for name, values in self.coordinates.items()}
        mask = None if self.mask is None else self.mask.to(device)
        metric = None if self.metric is None else {name: values.to(device) for name, values in self.metric.items()}
        return replace(self, basis=self.basis.to(device), coordinates=coordinates, mask=mask, metric=metric)

    def at(self, layer: str, sigma: float) -> Tensor:
        """Coordinates (B, tokens, N) at a noise level."""
        return self._between(self.coordinates[layer], sigma)

    def metric_at(self, layer: str, sigma: float) -> Tensor | None:
        """(B, N, N) at a noise level."""
        return None if self.metric is None else self._between(self.metric[layer], sigma)

    def _between(self, levels: Tensor, sigma: float) -> Tensor:
        """Interpolated over log sigma when all levels share their components."""
        place = log_position(self.sigmas, sigma)
        low = int(place)
        if not self.basis.shared:
            return levels[round(place)].clone()  # autograd keeps nothing that was made in inference mode
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
            return i + min(max(logs[i] - wanted, 0.0) / max(logs[i] - logs[i + 1], 1e-9), 1.0)
    return float(len(logs) - 1)


def interpolate(values: list[Tensor], sigmas: list[float], sigma: float) -> Tensor:
    """Between values that were taken at falling sigmas, over log sigma; the nearest one outside of them."""
    place = log_position(torch.tensor(sigmas), sigma)
    low = int(place)
    return torch.lerp(values[low], values[min(low + 1, len(values) - 1)], place - low)


def with_margin(mask: Tensor) -> Tensor:
    """Masks (B, 1, H, W) with some of the ground around, or a thing that fills its mask has no outline to follow."""
    reach = round(MARGIN * min(mask.shape[-2:]))
    across = F.max_pool2d(mask, (1, 2 * reach + 1), 1, (0, reach))
    return F.max_pool2d(across, (2 * reach + 1, 1), 1, (reach, 0))


def repeat_to(values: Tensor, count: int) -> Tensor:
    """As many rows as there are pictures: rows again from the first when there are fewer."""
    return values if len(values) == count else values[torch.arange(count) % len(values)]


def pictures_of(features: Tensor, tokens: int) -> Tensor:
    """Of clips, each frame as a picture of so many tokens: (B, frames * tokens, C) to (B * frames, tokens, C)."""
    return features.reshape(-1, tokens, features.shape[-1])


def in_time(values: Tensor, frames: int) -> Tensor:
    """Rows that follow each other in time, brought to another number of frames, the first and the last in their places; as they are
    for pictures (1 frame)."""
    if frames == 1 or len(values) in (1, frames):
        return values
    places = torch.linspace(0, len(values) - 1, frames)
    low = places.floor().long()
    share = (places - low).to(values).view(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[low], values[(low + 1).clamp(max=len(values) - 1)], share)


@dataclass
class Energy:
    """The energy of one FreeControl.

    frames: of each clip, 1 for pictures. look: by layer and level, the sibling's appearance, (pictures, 1 + K, C); empty without one.
    """

    structure: Structure
    grids: dict[str, Grid]
    frames: int = 1
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
        for layer in self.structure.coordinates:
            if layer in features:
                keys = self._pictures(layer, features)
                v = appearance(keys, self._coordinates(layer, keys, sigma), self.components)
                self.look.setdefault(layer, []).append(v)

    def __call__(self, features: dict[str, Tensor], sigma: float) -> Tensor:
        """Features by layer, (B, tokens, C), to the energy of each picture, or of each clip that is one latent, (B,)."""
        parts = [self._layer(layer, self._pictures(layer, features), sigma) for layer in self.structure.coordinates]
        latents = len(next(iter(features.values())))
        return torch.stack(parts).mean(0).unflatten(0, (latents, -1)).mean(1)

    def _pictures(self, layer: str, features: dict[str, Tensor]) -> Tensor:
        return pictures_of(features[layer], math.prod(self.grids[layer]))

    def _layer(self, layer: str, keys: Tensor, sigma: float) -> Tensor:
        coordinates = self._coordinates(layer, keys, sigma)
        old, grid = self.structure.grids[layer], self.grids[layer]
        target = resample(self.structure.at(layer, sigma).to(coordinates), old, grid)
        target = self._conditions(target, len(keys))
        mask = self._conditions(self._mask(grid), len(keys)).to(coordinates)
        placed, slack, metric = coordinates, 0.0, None
        if self.relative:
            placed, target, slack = relative(coordinates), relative(target), SLACK
            metric = self.structure.metric_at(layer, sigma)
            metric = None if metric is None else self._conditions(metric, len(keys)).to(coordinates)
        energy = structure_energy(placed, target, mask, background_limit(target, mask), self.background, slack, metric)
        if self.appearance > 0 and self.look:
            energy = energy + self.appearance * self._look_energy(layer, keys, coordinates, sigma)
        return energy

    def _look_energy(self, layer: str, keys: Tensor, coordinates: Tensor, sigma: float) -> Tensor:
        wanted = interpolate(self.look[layer], self.look_sigmas, sigma)
        basis = self.structure.basis
        spread = basis.layers[layer].deviation[basis.nearest(sigma)].square().sum()
        return appearance_energy(appearance(keys, coordinates, self.components), wanted.to(keys.dtype), spread)

    def _conditions(self, values: Tensor, count: int) -> Tensor:
        """One row for each of `count` pictures: their own, if there are so many, or else those of one clip for all."""
        return repeat_to(values if len(values) == count else in_time(values, self.frames), count)

    def _mask(self, grid: Grid) -> Tensor:
        """(1, tokens) on a token grid."""
        if self.structure.mask is None:
            return torch.ones(1, grid[0] * grid[1])
        return F.interpolate(self.structure.mask, grid, mode="area").flatten(1)
