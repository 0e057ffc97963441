"""What the FreeInit nodes ask for, and whether it can be done."""

from typing import Any

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
SAME = -1.0  # as in the pass before
PAPER = 0.0  # restart as the paper does
NUMBERS = {"spatial": (0, 1), "temporal": (0, 1), "restart": (0.3, 0.99), "early": (0.01, 1)}
WHOLE = {"extra_passes": (0, MOST_PASSES), "order": (1, 50)}
FIELDS = {"extra_passes": "extra"}  # of the settings, where it is not named as the input


def filter_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "filter", options=list(filters.KINDS), default=DEFAULTS.kind, tooltip="How low frequencies are told from high ones. Gaussian: "
            "softly, and steadies most. Butterworth: more sharply, so more of the motion and detail is new. Ideal and box: with a hard "
            "edge.",
        ),
        io.Float.Input(
            "spatial", default=DEFAULTS.spatial, min=0.0, max=1.0, step=0.01, tooltip="How much of the layout of each frame stays from "
            "pass to pass. Higher: the picture changes less. 0: nothing stays.",
        ),
        io.Float.Input(
            "temporal", default=DEFAULTS.temporal, min=0.0, max=1.0, step=0.01, tooltip="How quick a change over time may be to stay from "
            "pass to pass. Lower: steadier, and slower motion. 0: nothing stays.",
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
            "extra_passes", default=DEFAULTS.extra, min=0, max=MOST_PASSES, tooltip="How often the clip is begun again from its own low "
            "frequencies. More: steadier. How much time each takes is said by 'early' and 'restart'. 0: plain sampling.",
        ),
        *filter_inputs(),
    ]  # fmt: skip


def advanced_pass_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "spatial_last", default=SAME, min=-1.0, max=1.0, step=0.01, advanced=True, tooltip="What 'spatial' has come to in the last "
            "pass, in even steps. -1: the same in all passes.",
        ),
        io.Float.Input(
            "temporal_last", default=SAME, min=-1.0, max=1.0, step=0.01, advanced=True, tooltip="What 'temporal' has come to in the last "
            "pass, in even steps. -1: the same in all passes.",
        ),
        io.Float.Input(
            "early", default=DEFAULTS.early, min=0.01, max=1.0, step=0.01, advanced=True, tooltip="The share of its steps that each pass "
            "takes, except the last; what it expects of the finished clip is used then. Lower: quicker, so more passes can be had. 1: "
            "whole passes, as in the paper.",
        ),
        io.Float.Input(
            "restart", default=DEFAULTS.restart or PAPER, min=0.0, max=0.99, step=0.001, advanced=True, tooltip="The noise level, of 1, "
            "that each further pass starts from, from 0.3 on. Lower: nearer to the pass before, and quicker. 0: as in the paper, the "
            "highest that carries a layout.",
        ),
        *advanced_filter_inputs(),
        frames_input(
            "What a batch of pictures is, for models whose latents have no axis of time. Auto: one clip for video U-Nets of ComfyUI's own "
            "(SVD, the playground's), else single pictures. In the batch: one clip, as with AnimateDiff."
        ),
    ]  # fmt: skip


def mixing_inputs() -> list[io.Input]:
    """For one mix, without passes."""
    frames = frames_input(
        "What a batch of pictures is, where the latent has no axis of time. Auto and in the batch: one clip. Single pictures: each by "
        "itself."
    )
    return [*filter_inputs(), *advanced_filter_inputs(), frames]


def frames_input(tooltip: str) -> io.Input:
    return io.Combo.Input("frames", options=list(FRAME_AXES), default=DEFAULTS.frames, advanced=True, tooltip=tooltip)


def settings_of(**inputs) -> FreeInitSettings:
    """The settings that a node's inputs say, or in words which input cannot be."""
    if inputs.get("restart") == 1:
        raise checks.InputError(
            "restart is 1, where a flow model is given nothing but noise, so nothing of the pass before would stay: choose 0.3 to 0.99."
        )
    if inputs.get("restart") == PAPER:
        inputs = {**inputs, "restart": None}
    settings: dict[str, Any] = {name: checks.number(name, value, *NUMBERS[name]) for name, value in inputs.items() if name in NUMBERS}
    settings |= {FIELDS.get(name, name): checks.whole(name, value, *WHOLE[name]) for name, value in inputs.items() if name in WHOLE}
    last = {name: inputs[name] for name in ("spatial_last", "temporal_last") if inputs.get(name, SAME) != SAME}
    settings |= {name: checks.number(name, value, 0, 1) for name, value in last.items()}
    return FreeInitSettings(
        **settings,
        kind=checks.choice("filter", inputs["filter"], filters.KINDS),
        frames=checks.choice("frames", inputs["frames"], FRAME_AXES),
        keep_variance=bool(inputs["keep_variance"]),
    )
