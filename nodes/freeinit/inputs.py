"""What the FreeInit nodes ask for, and whether it can be done."""

from comfy_api.latest import io

from ...core.freeinit import filters
from ...host.models.frames import FRAME_AXES
from ...recipes.freeinit.settings import FreeInitSettings
from ..common import checks

CATEGORY = "FreeSteer/FreeInit"
ALIASES = [
    "freeinit",
    "free init",
    "video consistency",
    "temporal consistency",
    "flicker",
    "steady video",
    "noise reinitialization",
    "animatediff",
]
DEFAULTS = FreeInitSettings()
MOST_PASSES = 10
LOWEST_RESTART, HIGHEST_RESTART = 0.5, 0.99


def filter_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "filter", options=list(filters.KINDS), default=DEFAULTS.kind, tooltip="How low frequencies are told from high ones. Gaussian: "
            "softly, and steadies most. Butterworth: more sharply, so more of the motion and detail is new. Ideal and box: with a hard "
            "edge.",
        ),
        io.Float.Input(
            "spatial", default=DEFAULTS.spatial, min=0.0, max=1.0, step=0.01, tooltip="How much of the layout of each frame stays from "
            "pass to "
            "pass. Higher: the picture changes less. 0: nothing stays.",
        ),
        io.Float.Input(
            "temporal", default=DEFAULTS.temporal, min=0.0, max=1.0, step=0.01, tooltip="How quick a change over time may be to stay "
            "from pass "
            "to pass. Lower: steadier, and slower motion. 0: nothing stays.",
        ),
    ]  # fmt: skip


def advanced_filter_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "order", default=DEFAULTS.order, min=1, max=50, advanced=True, tooltip="Of the Butterworth filter: higher makes its edge "
            "harder.",
        ),
        io.Boolean.Input(
            "keep_variance", default=DEFAULTS.keep_variance, advanced=True, tooltip="On: mixed noise is as strong as plain noise at every "
            "frequency. Off: as published, with weaker noise at medium frequencies, which smooths the picture.",
        ),
    ]  # fmt: skip


def pass_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "extra_passes", default=DEFAULTS.extra, min=0, max=MOST_PASSES, tooltip="How often the clip is made again from its own low "
            "frequencies. Each costs as much time as the first. 0: plain sampling.",
        ),
        *filter_inputs(),
    ]  # fmt: skip


def advanced_pass_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "spatial_last", default=-1.0, min=-1.0, max=1.0, step=0.01, advanced=True, tooltip="What 'spatial' has come to in the last "
            "pass, "
            "in even steps. -1: the same in all passes.",
        ),
        io.Float.Input(
            "temporal_last", default=-1.0, min=-1.0, max=1.0, step=0.01, advanced=True, tooltip="What 'temporal' has come to in the last "
            "pass, "
            "in even steps. -1: the same in all passes.",
        ),
        io.Float.Input(
            "early", default=DEFAULTS.early, min=0.05, max=1.0, step=0.05, advanced=True, tooltip="The share of its steps that each pass "
            "takes, except the last; what it expects of the finished clip is used then. Lower: quicker, and a rougher guide.",
        ),
        io.Float.Input(
            "restart", default=round(DEFAULTS.restart, 3), min=LOWEST_RESTART, max=HIGHEST_RESTART, step=0.001, advanced=True,
            tooltip="Only for flow models (Wan, LTX, Hunyuan, Flux): the noise level, of 1, that each further pass starts from. Lower: "
            "nearer to the pass before, and quicker.",
        ),
        *advanced_filter_inputs(),
        io.Combo.Input(
            "frames", options=list(FRAME_AXES), default=DEFAULTS.frames, advanced=True, tooltip="What a batch of pictures is, for "
            "models whose latents have no axis of time. Auto: one clip for SVD, else single pictures. In the batch: one clip, as with "
            "AnimateDiff.",
        ),
    ]  # fmt: skip


def settings_of(
    filter, spatial, temporal, order=DEFAULTS.order, keep_variance=True, extra_passes=1, spatial_last=-1.0, temporal_last=-1.0, early=1.0,
    restart=DEFAULTS.restart, frames=DEFAULTS.frames,
) -> FreeInitSettings:  # fmt: skip
    """The settings, or in words which input cannot be."""
    checks.choice("filter", filter, filters.KINDS)
    checks.choice("frames", frames, FRAME_AXES)
    if restart == 1:
        raise checks.InputError(
            "restart is 1, where a flow model is given nothing but noise, so nothing of the pass before would stay: choose 0.5 to 0.99."
        )
    spatial, temporal = checks.number("spatial", spatial, 0, 1), checks.number("temporal", temporal, 0, 1)
    return FreeInitSettings(
        extra=checks.whole("extra_passes", extra_passes, 0, MOST_PASSES),
        kind=filter,
        spatial=spatial,
        temporal=temporal,
        spatial_last=_last("spatial_last", spatial_last, spatial),
        temporal_last=_last("temporal_last", temporal_last, temporal),
        order=checks.whole("order", order, 1, 50),
        restart=checks.number("restart", restart, LOWEST_RESTART, HIGHEST_RESTART),
        early=checks.number("early", early, 0.05, 1),
        keep_variance=bool(keep_variance),
        frames=frames,
    )


def _last(name: str, value: float, first: float) -> float:
    return first if value == -1 else checks.number(name, value, 0, 1)
