"""Gaussians from frames whose cameras and depths are nearly known, with the cameras refined by the same gradient.

3D Gaussian Splatting (https://arxiv.org/abs/2308.04079): .8 L1 + .2 (1 - SSIM). Against COLMAP-Free 3DGS (2312.07504): every
frame brings its own points where the model is empty or wrong, cameras and exposures are refined together with the Gaussians.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import kornia.metrics
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from ..geometry.cameras import Camera, CameraPath
from . import harmonics
from .gaussians import Gaussians, join
from .projection import NEAR
from .rasteriser import Rendered, render

RATES = {"positions": 4e-4, "scales": 8e-3, "rotations": 4e-3, "opacities": 4e-2, "sh": 8e-3}  # positions: of the median depth
CAMERA_RATE, EXPOSURE_RATE, POSE_RATE = 4e-4, 2e-3, 4e-3
USUAL_DEPTH = 4.0  # median of a scene for which the cameras' rates are meant; translations are scaled with it
SIMILARITY, DEPTH_WEIGHT = 0.2, 0.05  # of 1 - SSIM, and of the relative error of depth
OPACITY, SIZE = 0.7, 0.6  # of a new Gaussian; SIZE: deviation, in pixels of the frame it comes from
EMPTY, WRONG = 0.5, 0.08  # a frame brings new points where alpha is less, or where the scene lies behind it by more of its depth
FAINT = 0.02  # Gaussians of less opacity are pruned
Progress = Callable[[int, int, "Fit"], None]


@dataclass(frozen=True)
class Fit:
    """gaussians; path: the refined cameras; exposures: (F, 2), gain - 1 and offset of each frame."""

    gaussians: Gaussians
    path: CameraPath
    exposures: Tensor


def points_of(pictures: Tensor, depth: Tensor, keep: Tensor, path: CameraPath, frame: int) -> Gaussians:
    """A round Gaussian for each kept pixel of a frame. pictures: (F, H, W, 3), depth, keep: (H, W)."""
    camera = path[frame]
    y, x = keep.nonzero().unbind(1)
    z = depth[y, x]
    pixel = torch.stack([x, y], -1) + 0.5
    points = torch.cat([(pixel - camera.centre) / camera.focal, torch.ones_like(z)[:, None]], -1) * z[:, None]
    to_world = cameras.inverse(camera.pose)
    scales = (SIZE * z / camera.focal.mean())[:, None].expand(-1, 3)
    rotations = torch.zeros(len(z), 4).to(z)
    rotations[:, 0] = 1
    colours = harmonics.of_colours(pictures[frame, y, x])
    return Gaussians(points @ to_world[:3, :3].mT + to_world[:3, 3], scales.clone(), rotations, torch.full_like(z, OPACITY), colours)


def grown(gaussians: Gaussians | None, pictures: Tensor, depths: Tensor, path: CameraPath, frames: list[int]) -> Gaussians:
    """Densified: with the points of `frames`, one after the other, where the scene so far shows nothing, or something far behind."""
    for frame in frames:
        known = depths[frame] > 0
        if gaussians is not None:
            shown = render(gaussians, path[frame])
            known &= (shown.alpha < EMPTY) | (shown.depth > depths[frame] * (1 + WRONG) + 1e-6)
        fresh = points_of(pictures, depths[frame], known, path, frame)
        gaussians = fresh if gaussians is None else join([gaussians, fresh])
    assert gaussians is not None
    return gaussians


@dataclass(frozen=True)
class Fitting:
    """refine: whether cameras may change; still: parts of the Gaussians that may not; hidden: (F, H, W), where pictures do not count;
    seed: of the order of the frames."""

    refine: bool = True
    still: tuple[str, ...] = ()
    hidden: Tensor | None = None
    seed: int = 0


def fit(
    gaussians: Gaussians, pictures: Tensor, depths: Tensor, path: CameraPath, exposures: Tensor, iterations: int,
    options: Fitting = Fitting(), progress: Progress = lambda step, total, fit: None,
) -> Fit:  # fmt: skip
    """Gaussians and cameras that show the pictures (F, H, W, 3). depths: (F, H, W), 0 where unknown; exposures: (F, 2), as in Fit;
    progress: called with the step, their number and what there is so far, about twenty times."""
    median = float(depths[depths > 0].median())
    raw = {
        "positions": gaussians.positions.clone(), "scales": gaussians.scales.log(), "rotations": gaussians.rotations.clone(),
        "opacities": torch.logit(gaussians.opacities.clamp(1e-4, 1 - 1e-4)), "sh": gaussians.sh.clone(),
    }  # fmt: skip
    twists, exposures, unit = torch.zeros(len(pictures), 6).to(pictures), exposures.clone(), units_of_twist(median).to(pictures)
    leaves = [*raw.values(), twists, exposures]
    for leaf in leaves:
        leaf.requires_grad_()
    rates = [0.0 if name in options.still else RATES[name] * (median if name == "positions" else 1) for name in raw] + [
        CAMERA_RATE,
        EXPOSURE_RATE,
    ]
    optimiser = torch.optim.Adam([{"params": [leaf], "lr": rate} for leaf, rate in zip(leaves, rates, strict=True)], eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.05 ** (1 / max(iterations, 1)))
    hidden, order = options.hidden, torch.Generator().manual_seed(options.seed)
    frames: list[int] = []

    def snapshot() -> Fit:
        with torch.no_grad():
            refined = replace(path, poses=cameras.exponential(twists * unit) @ path.poses)
            return Fit(activated(raw).detach(), refined, exposures.detach().clone())

    for step in range(iterations):
        frames = frames or torch.randperm(len(pictures), generator=order).tolist()
        frame = frames.pop()
        twist = twists[frame] if options.refine and frame > 0 else twists[frame].detach()
        pose = cameras.exponential(twist * unit) @ path.poses[frame]
        shown = render(activated(raw), path[frame].at(pose))
        loss = difference(shown, pictures[frame], depths[frame], exposures[frame], None if hidden is None else hidden[frame])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % max(1, iterations // 20) == 0:
            progress(step + 1, iterations, snapshot())
    last = snapshot()
    return replace(last, gaussians=last.gaussians[(last.gaussians.opacities > FAINT).nonzero().squeeze(1)])


def units_of_twist(depth: float) -> Tensor:
    """Factors of a twist, (6,), with which the same step moves a camera by the same share of the median depth, whatever its unit."""
    return torch.tensor([depth / USUAL_DEPTH] * 3 + [1.0] * 3)


def activated(raw: dict[str, Tensor]) -> Gaussians:
    return Gaussians(raw["positions"], raw["scales"].exp(), F.normalize(raw["rotations"], dim=-1), raw["opacities"].sigmoid(), raw["sh"])


def difference(shown: Rendered, picture: Tensor, depth: Tensor | None, exposure: Tensor, hidden: Tensor | None = None) -> Tensor:
    """The loss of one frame: of its picture (H, W, 3), under its own exposure (2,) and where it is not hidden (H, W), and of its depth
    (H, W), if given, where that is above 0."""
    colour = shown.colour * (1 + exposure[0]) + exposure[1]
    if hidden is not None:
        picture = torch.where(hidden[..., None], colour.detach(), picture)
    both = torch.stack([colour, picture]).movedim(-1, 1)
    similarity = kornia.metrics.ssim(both[:1], both[1:], 11).mean()
    loss = (1 - SIMILARITY) * (colour - picture).abs().mean() + SIMILARITY * (1 - similarity)
    if depth is None:
        return loss
    known = (depth > 0) & (shown.alpha.detach() > EMPTY)  # no indexing by it: its size would have to be read from the device
    wrong = (shown.depth - depth).abs() / torch.where(known, depth, 1)
    return loss + DEPTH_WEIGHT * torch.where(known, wrong, 0).sum() / known.sum().clamp(min=1)


def refine_pose(gaussians: Gaussians, picture: Tensor, camera: Camera, steps: int) -> Tensor:
    """The pose (4, 4) from which a scene looks most like a picture (H, W, 3), starting at the camera's, within a few pixels of it."""
    twist = torch.zeros(6).to(picture).requires_grad_()
    depths = (gaussians.positions @ camera.pose[:3, :3].mT + camera.pose[:3, 3])[:, 2].detach()
    unit = units_of_twist(float(depths[depths > NEAR].median()) if (depths > NEAR).any() else USUAL_DEPTH).to(picture)
    exposure = torch.zeros(2).to(picture).requires_grad_()
    optimiser = torch.optim.Adam([{"params": [twist], "lr": POSE_RATE}, {"params": [exposure], "lr": EXPOSURE_RATE}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.05 ** (1 / steps))
    for _ in range(steps):
        shown = render(gaussians, camera.at(cameras.exponential(twist * unit) @ camera.pose))
        loss = difference(shown, picture, None, exposure)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return (cameras.exponential(twist * unit) @ camera.pose).detach()
