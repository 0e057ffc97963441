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
from .fitting import Fit, fit, grown
from .gaussians import Gaussians

FUSED_WITH = (1, 2, 3, 4)  # frames around each whose depth is taken into its own
KEYFRAMES = 8  # that the scene is grown from at first, or more of a clip that is longer than
USUAL_FRAMES = 32
Look = Callable[[str, float, "Fit | None"], None]


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
    pictures: Tensor, depths: Tensor, valid: Tensor, focal: float, focal_known: bool, inverse: bool, preset: Preset,
    look: Look = lambda stage, share, fit: None, check: Callable[[Tracked], None] = lambda tracked: None,
    path: CameraPath | None = None, scene: Gaussians | None = None, hidden: Tensor | None = None, from_motion: bool = False,
) -> Reconstruction:  # fmt: skip
    """pictures: (F, H, W, 3) in 0..1; depths: (F, H, W), right up to a scale and a shift for each frame, and where they are valid.

    inverse: depths are 1 / depth. focal: in widths of the picture. The first camera is the world; its depth gives the unit.
    path: the cameras, where they are known; the world and its unit are then theirs. scene: what there is already in that world.
    hidden: (F, H, W), where pictures do not count. from_motion: whether depth was found in the same pictures.
    look: called with what is being done, how much of it is done, and what there is so far. check: with the cameras, and may raise.
    """
    if path is None:
        tracked = track(
            pictures, depths, valid, focal, focal_known, inverse, lambda done, total: look("finding cameras", done / total, None),
            from_motion,
        )  # fmt: skip
    else:
        tracked = locate(pictures, depths, valid, path, inverse)
    check(tracked)
    count, size = len(pictures), (pictures.shape[1], pictures.shape[2])
    known = fused(tracked.levels[-1], tracked.state, between(range(count), FUSED_WITH))
    gain, offset = tracked.state.gain, tracked.state.offset
    path, exposures = path or tracked.path(size), torch.stack([1 / (1 + gain) - 1, -offset / (1 + gain)], 1)
    longer = max(1.0, count / USUAL_FRAMES)
    steps = round(preset.iterations * longer / preset.rounds)
    for number in range(preset.rounds):
        frames = torch.linspace(0, count - 1, min(count, round(KEYFRAMES * longer) * (number + 1))).round().int().tolist()
        scene = grown(scene, pictures, known, path, frames)

        def watch(step: int, total: int, now: Fit, number: int = number) -> None:
            look("fitting splats", (number + step / total) / preset.rounds, now)

        found = fit(scene, pictures, known, path, exposures, steps, look=watch, seed=number, hidden=hidden)
        scene, path, exposures = found.gaussians, found.path, found.exposures
    assert scene is not None
    return Reconstruction(Fit(scene, path, exposures), tracked, known, tracked.iterations + steps * preset.rounds)
