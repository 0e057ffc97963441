"""COLMAP-Free 3DGS by its own recipe (arXiv 2312.07504, sec. 3; shipped settings), with this pack's rasteriser and far fewer steps.

Each frame: Gaussians from the depth of the frame before it, fitted to that frame with their places fixed; one rigid motion of
their *means* that shows the new frame, by Adam; poses are chained; then the global set is fitted with all poses fixed.
Kinder than the paper: depths are brought to one median and count in the loss, and the global set gets new points where it is empty.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ...core.geometry import cameras
from ...core.geometry.cameras import CameraPath
from ...core.splats.fitting import Fit, Fitting, difference, fit, grown, points_of
from ...core.splats.gaussians import Gaussians
from ...core.splats.rasteriser import render

LOCAL, POSE, GLOBAL = 40, 60, 40  # steps for each frame; the authors take 1000, 300 and 500


def reconstruct(pictures: Tensor, depths: Tensor, intrinsics: CameraPath) -> tuple[Fit, int]:
    """The scene and its cameras, and the number of steps."""
    count = len(pictures)
    medians = torch.stack([d[d > 0].median() for d in depths])
    depths = depths * (medians[0] / medians)[:, None, None]
    path = replace(intrinsics, poses=torch.eye(4).repeat(count, 1, 1))
    light = torch.zeros(count, 2)
    scene = grown(None, pictures, depths, path, [0])
    for frame in range(1, count):
        before = frame - 1
        here = replace(path, poses=torch.eye(4)[None])
        one = (pictures[before:frame], depths[before:frame])
        local = points_of(pictures, depths[before], depths[before] > 0, replace(path, poses=torch.eye(4).expand(count, 4, 4)), before)
        local = fit(local, *one, here, light[:1], LOCAL, Fitting(refine=False, still=("positions",))).gaussians
        moved = _motion(local, pictures[frame], here)
        poses = path.poses.clone()
        poses[frame] = moved @ poses[before]
        path = replace(path, poses=poses)
        scene = grown(scene, pictures, depths, path, [frame])
        seen = replace(path, poses=path.poses[: frame + 1])
        clip = (pictures[: frame + 1], depths[: frame + 1], seen, light[: frame + 1])
        scene = fit(scene, *clip, GLOBAL, Fitting(refine=False, seed=frame)).gaussians
    return Fit(scene, path, light), (count - 1) * (LOCAL + POSE + GLOBAL)


def _motion(gaussians: Gaussians, picture: Tensor, here: CameraPath) -> Tensor:
    twist = torch.zeros(6, requires_grad=True)
    optimiser = torch.optim.Adam([twist], 4e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / POSE))
    neutral = torch.zeros(2)
    for _ in range(POSE):
        pose = cameras.exponential(twist)
        moved = replace(gaussians, positions=gaussians.positions @ pose[:3, :3].mT + pose[:3, 3])
        loss = difference(render(moved, here[0]), picture, None, neutral)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return cameras.exponential(twist.detach())
