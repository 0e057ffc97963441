"""A video becomes cameras and Gaussians: tracking, fusion of depth, growth and fitting.

COLMAP-Free 3D Gaussian Splatting, Fu et al. 2024, https://arxiv.org/abs/2312.07504: each camera from the one before, by
Gaussians lifted from monocular depth; the scene grows with the frames. Differences are named in bundle.py and fitting.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import CameraPath
from ..tracking.fusion import fused
from ..tracking.tracking import Tracked, between, locate, track
from .clip import Clip
from .fitting import Fit, Fitting, fit, grown
from .gaussians import Gaussians

FUSED_WITH = (1, 2, 3, 4)  # frames around each whose depth is taken into its own
KEYFRAMES = 8  # that the scene is grown from at first; of a clip of more than USUAL_FRAMES, more in proportion
USUAL_FRAMES = 32
Progress = Callable[[str, float, "Fit | None"], None]


@dataclass(frozen=True)
class Preset:
    """iterations: of the rasteriser, for a clip of up to USUAL_FRAMES, and more in proportion for a longer one; rounds: how often
    new points are added, with an equal share of them."""

    iterations: int
    rounds: int = 2


PRESETS = {"preview": Preset(300), "standard": Preset(700), "quality": Preset(6000, 3)}


@dataclass(frozen=True)
class Reconstruction:
    """fit: Gaussians, cameras and exposures; tracked: how far each frame can be trusted; depths: (F, H, W), fused."""

    fit: Fit
    tracked: Tracked
    depths: Tensor
    iterations: int


def reconstruct(
    clip: Clip, preset: Preset, path: CameraPath | None = None, scene: Gaussians | None = None,
    progress: Progress = lambda stage, share, fit: None, check: Callable[[Tracked], None] = lambda tracked: None,
) -> Reconstruction:  # fmt: skip
    """The cameras of a clip, and a scene that looks like it. The first camera is the world; its depth gives the unit.

    path: the cameras, where they are known; the world and its unit are then theirs. scene: what there is already in that world.
    progress: called with what is being done, how much of it is done, and what there is so far. check: with the cameras, and may raise.
    """
    given = (clip.pictures, clip.depths, clip.valid)
    if path is None:
        tracked = track(
            *given, clip.focal, clip.focal_known, clip.inverse, lambda done, total: progress("finding cameras", done / total, None),
            clip.from_motion,
        )  # fmt: skip
        path = tracked.path(clip.size)
    else:
        tracked = locate(*given, path, clip.inverse)
    check(tracked)
    count = len(clip.pictures)
    depths = fused(tracked.levels[-1], tracked.state, between(range(count), FUSED_WITH))
    gain, offset = tracked.state.gain, tracked.state.offset
    exposures = torch.stack([1 / (1 + gain) - 1, -offset / (1 + gain)], 1)
    longer = max(1.0, count / USUAL_FRAMES)
    steps = round(preset.iterations * longer / preset.rounds)
    for number in range(preset.rounds):
        frames = torch.linspace(0, count - 1, min(count, round(KEYFRAMES * longer) * (number + 1))).round().int().tolist()
        scene = grown(scene, clip.pictures, depths, path, frames)

        def watch(step: int, total: int, now: Fit, number: int = number) -> None:
            progress("fitting splats", (number + step / total) / preset.rounds, now)

        fitted = fit(scene, clip.pictures, depths, path, exposures, steps, Fitting(seed=number, hidden=clip.hidden), watch)
        scene, path, exposures = fitted.gaussians, fitted.path, fitted.exposures
    assert scene is not None
    return Reconstruction(Fit(scene, path, exposures), tracked, depths, tracked.iterations + steps * preset.rounds)
