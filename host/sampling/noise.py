"""How noise, signal and the length of a guide's step go together, in models that predict noise and in flow models alike."""

from typing import Any

import comfy.model_sampling

LOUDEST = 15.0  # noise to signal that counts: where the schedule of SD begins; with zero terminal SNR it begins at 4500


def signal_in_x(sigma: float, model_sampling: Any) -> float:
    """The share of the clean latent in x: by so much less does x move, and with it the energy."""
    return max(1 - sigma, 1 / (1 + LOUDEST)) if isinstance(model_sampling, comfy.model_sampling.CONST) else 1.0


def noise_to_signal(sigma: float, model_sampling: Any) -> float:
    """How much stronger the noise is than the clean latent; flow models count it from 0 to 1, as noise / (noise + signal)."""
    flow = isinstance(model_sampling, comfy.model_sampling.CONST)
    return min(sigma / max(1 - sigma, 1e-3) if flow else sigma, LOUDEST)


def longest(noise: float) -> float:
    """How far a step of strength 1 may move the predicted clean latent, RMS, in units of the latent's own deviation.

    As far as the noise reaches while there is little of it. Above, where it hides the picture, like its square root: things
    find their places there, and have to be moved against the noise (measured in `bench freecontrol_front`).
    """
    return noise / (1 + noise**2) ** 0.25
