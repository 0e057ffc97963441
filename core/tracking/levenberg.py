"""Levenberg's and Marquardt's method: Gauss-Newton steps that shrink until they help (Marquardt 1963; Madsen et al. 2004)."""

from collections.abc import Callable
from typing import Protocol, TypeVar

Place = TypeVar("Place")
Step = TypeVar("Step")
Step_co = TypeVar("Step_co", covariant=True)

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-5, 1e4  # of the Hessian's diagonal
LESS, MORE = 1 / 5, 10  # times the damping after a step that helps, and after one that does not
ENOUGH = 3e-4  # of the cost: a step that gains less is the last


class System(Protocol[Step_co]):
    """A cost near one place, and its normal equations."""

    @property
    def cost(self) -> float: ...

    def step(self, damping: float) -> Step_co:
        """The Gauss-Newton step with the Hessian's whole diagonal multiplied by 1 + damping."""
        ...


def levenberg_marquardt(
    place: Place, linearise: Callable[[Place], System[Step]], retract: Callable[[Place, Step], Place], iterations: int
) -> tuple[Place, float]:
    """A better place, and its cost."""
    system, damping = linearise(place), FIRST_DAMPING
    for _ in range(iterations):
        trial = retract(place, system.step(damping))
        tried = linearise(trial)
        if tried.cost < system.cost:
            gained = system.cost - tried.cost
            place, system, damping = trial, tried, max(damping * LESS, LEAST_DAMPING)
            if gained < ENOUGH * system.cost:
                break
        else:
            damping *= MORE
            if damping > MOST_DAMPING:
                break
    return place, system.cost
