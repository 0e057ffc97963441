"""What a guide is, and what it is in one run: a method that steers by the gradient of an energy offers these two."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..models.taps import Readable
from .reading import Features
from .sigma_range import SigmaRange

Predict = Callable[[Tensor, float], tuple[Tensor, Features]]


class Session(Protocol):
    """One guide in one run; may keep what it learns on the way."""

    def energy(self, features: Features, sigma: float) -> Tensor:
        """Features (latents, tokens, channels) of the conditional rows to one energy a latent.

        Features that do not depend on the latent, such as keys of text, are constants.
        """
        ...

    def look_ahead(self, predict: Predict | None, x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        """Called once, at the first guided step: with what the model predicts from x and reads there without this guide, and
        a way to predict from elsewhere, if there is one."""
        ...

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        """The predicted clean latents (B, C, ...) after the guides' step, as they are or changed without a gradient."""
        ...


class Guide(Protocol):
    """strength: the most that the predicted clean latent is moved, in units of `longest`. refinements: how many steps are
    taken one after the other at each noise level, each with a gradient of its own and the same share of that length; 1 costs
    one backward pass, 0 takes as many as the sampler's own steps are long. fades: whether the strength goes down
    over the last steps of its range: a solver of several steps would carry on against a guide that ends at once."""

    @property
    def points(self) -> Sequence[Readable]: ...
    @property
    def range(self) -> SigmaRange: ...
    @property
    def strength(self) -> float: ...
    @property
    def refinements(self) -> int: ...
    @property
    def fades(self) -> bool: ...

    def start(self, model: ModelPatcher, latent: Tensor, positive: list[dict[str, Any]], range: SigmaRange) -> Session:
        """latent: the sampler's noisy x, (B, C, ...), at the first guided step. positive: the conditions it is guided at, as the host has
        processed them. range: that of this guide, as it lies in this run."""
        ...
