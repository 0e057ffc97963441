"""What a user may choose of FreeInit."""

from dataclasses import dataclass

from ...core.freeinit import filters, levels


@dataclass(frozen=True)
class FreeInitSettings:
    """extra: passes after the first. kind, spatial, temporal, order: of the filter (core/freeinit/filters.py). spatial_last,
    temporal_last: of the last pass, where they are not None; passes between have values between. restart: the noise level that passes of a
    flow model start from. early: the share of its steps that each pass but the last takes; its estimate of the clean latent is used then.
    keep_variance: the mix keeps the variance of noise, as it does not in the paper. frames: one of host.models.frames.FRAME_AXES."""

    extra: int = 1
    kind: str = "gaussian"
    spatial: float = 0.25
    temporal: float = 0.25
    spatial_last: float | None = None
    temporal_last: float | None = None
    order: int = filters.ORDER
    restart: float = levels.MATCHED
    early: float = 1.0
    keep_variance: bool = True
    frames: str = "auto"
