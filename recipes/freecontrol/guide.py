"""FreeControl as a guide of host.sampling.steering: its energy, and the look of the sibling, the same noise without structure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.freecontrol import tone
from ...core.freecontrol.energy import Energy, Grid, Structure, interpolate
from ...host.models.frames import clip_length
from ...host.models.taps import Point
from ...host.sampling.guides import Predict
from ...host.sampling.reading import Features
from ...host.sampling.sigma_range import SigmaRange

SECOND_LOOK = 0.7  # of the guided range, in powers of e: where the sibling is seen again; at first it is in the run itself
LOWEST_SIGMA = 1e-2


@dataclass(frozen=True)
class GuideSettings:
    """How a structure is followed; as the nodes offer it at first. See FreeControl for what each does.

    appearance: how much the sibling's look is kept; by the paper's energy of features, whose `components` it compares, or
    else as the share by which the ground's light and colour go back to the sibling's (core.freecontrol.tone).
    paper: that energy, and absolute coordinates instead of relative ones.
    """

    strength: float = 2.5
    start: float = 0.0
    end: float = 0.5
    background: float = 1.0
    appearance: float = 1.0
    components: int = 2
    paper: bool = False


@dataclass(frozen=True)
class FreeControlGuide:
    """One FreeControl on a MODEL. structure: on the CPU, so that a MODEL that waits holds no memory of the GPU."""

    structure: Structure
    points: list[Point]
    settings: GuideSettings
    refinements: int = 0
    fades: bool = False

    @property
    def range(self) -> SigmaRange:
        return SigmaRange(self.settings.start, self.settings.end)

    @property
    def strength(self) -> float:
        return self.settings.strength

    def start(self, model: ModelPatcher, latent: Tensor, positive: list, range: SigmaRange) -> "FreeControlSession":
        settings = self.settings
        grids = {p.name: picture_grid(p, latent.shape) for p in self.points}
        low = range.resolve(model.get_model_object("model_sampling")).low
        look = settings.appearance if settings.paper else 0.0
        structure = self.structure.to(latent.device)
        frames = latent.shape[2] if latent.ndim == 5 else clip_length(model.model, len(latent))
        energy = Energy(structure, grids, frames, not settings.paper, settings.background, look, settings.components)
        return FreeControlSession(settings, energy, max(low, LOWEST_SIGMA))


@dataclass
class FreeControlSession:
    """sigmas, grounds: where the sibling was seen, and the channel medians of its clean latent there."""

    settings: GuideSettings
    energy_of: Energy
    low: float
    sigmas: list[float] = field(default_factory=list)
    grounds: list[Tensor] = field(default_factory=list)

    def energy(self, features: Features, sigma: float) -> Tensor:
        return self.energy_of(features, sigma)

    def look_ahead(self, predict: Predict | None, x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        """Follows the sibling in one long step over most of the guided range. Where that cannot be done nothing holds the look: the ground
        that is seen through most noise is not yet that of the picture."""
        if self.settings.appearance == 0 or predict is None:
            return
        self._remember(clean, features, sigma)
        ratio = min((self.low / sigma) ** SECOND_LOOK, 1.0)
        x, sigma = clean + (x - clean) * ratio, sigma * ratio
        self._remember(*predict(x, sigma), sigma)

    def _remember(self, clean: Tensor, features: Features, sigma: float) -> None:
        self.sigmas.append(sigma)
        self.grounds.append(tone.ground(clean))
        if self.settings.paper:
            self.energy_of.remember(features, sigma)

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        if self.settings.paper or not self.grounds:
            return denoised
        return tone.toward(denoised, interpolate(self.grounds, self.sigmas, sigma), self.settings.appearance)


def picture_grid(point: Point, latent_shape: Sequence[int]) -> Grid:
    """(h, w) of a picture, or of each frame of a clip."""
    grid = point.grid(latent_shape)
    if grid is None:
        raise ValueError(f"{point.name} reads tokens that have no place in the picture.")
    return grid[-2], grid[-1]
