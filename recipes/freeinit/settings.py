"""What a user may choose of FreeInit. Many short passes from a lower level of noise, as by default, steady as much in a third of the
time of whole passes from the end of the schedule, as in the paper (extra=4, early=1, restart=None, keep_variance=False,
kind="butterworth")."""

from dataclasses import dataclass

from ...core.freeinit import filters


@dataclass(frozen=True)
class FreeInitSettings:
    """extra: passes after the first. kind, spatial, temporal, order: of the filter (core/freeinit/filters.py). spatial_last,
    temporal_last: of the last pass, where they are not None; passes between have values between. restart: the noise level, of 1, that
    further passes start from (core/freeinit/levels.py); None: that of the paper, which of flow models is the level that matches it.
    early: the share of its steps that each pass but the last takes; its estimate of the clean latent is used then. keep_variance: the
    mix keeps the variance of noise, as it does not in the paper. frames: one of host.models.frames.FRAME_AXES."""

    extra: int = 8
    kind: str = "gaussian"
    spatial: float = 0.25
    temporal: float = 0.25
    spatial_last: float | None = None
    temporal_last: float | None = None
    order: int = filters.ORDER
    restart: float | None = 0.8
    early: float = 0.12
    keep_variance: bool = True
    frames: str = "auto"
