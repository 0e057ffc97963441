"""Cameras and splats from five drawn clips with damaged depth, beside the paper's own recipe. `python run.py bench reconstruct`.

Poses are never given; every eighth frame is held out: its camera starts between its neighbours', is refined against the fixed
scene, and its picture is compared under the best gain and offset. ATE in the paper's protocol (paths of unit norm).
"""

import argparse
import json
import sys
import time
from dataclasses import replace

import torch
from torch import Tensor

from ...core.geometry import cameras, trajectory
from ...core.measures import views
from ...core.splats.clip import Clip
from ...core.splats.fitting import Fit, refine_pose
from ...core.splats.rasteriser import render
from ...core.splats.reconstruction import PRESETS, reconstruct
from ...playground.rooms import clips
from . import reconstruct_paper

FRAMES, SIZE = 24, (72, 96)
HELD, FIRST_HELD = 8, 4


def judge(made: Fit, clip: clips.Clip, pictures: Tensor, trained: list[int]) -> dict[str, float]:
    """ATE, RPE of the trained frames' cameras, and PSNR of the others' pictures."""
    true = clip.path.poses[trained]
    translation, rotation = trajectory.rpe(made.path.poses, true)
    held = [i for i in range(len(pictures)) if i not in trained]
    scores = []
    for frame in held:
        after = next(k for k, i in enumerate(trained) if i > frame)
        share = (frame - trained[after - 1]) / (trained[after] - trained[after - 1])
        pose = cameras.interpolate(made.path.poses, torch.tensor([after - 1 + share]))[0]
        pose = refine_pose(made.gaussians, pictures[frame], made.path[0].at(pose), 60)
        with torch.no_grad():
            shown = render(made.gaussians, made.path[0].at(pose)).colour
        flat = torch.stack([shown.flatten(), torch.ones(shown.numel())], 1)
        fitted = (flat @ torch.linalg.lstsq(flat, pictures[frame].flatten()[:, None]).solution).view_as(shown)
        scores.append(float(views.psnr(fitted.clamp(0, 1)[None], pictures[frame][None])[0]))
    positions = replace(clip.path, poses=true).positions
    return {
        "ate": trajectory.ate(made.path.positions, positions), "rpe_t": translation, "rpe_r": rotation, "psnr": sum(scores) / len(scores),
    }  # fmt: skip


def measure(kinds: tuple[str, ...], frames: int, size: tuple[int, int]) -> dict[str, float]:
    ours, paper, steps, seconds = [], [], [0, 0], [0.0, 0.0]
    for kind in kinds:
        clip = clips.draw(kind, frames, size)
        pictures, depths = clips.corrupted(clip)
        trained = [i for i in range(frames) if i % HELD != FIRST_HELD]
        focal = float(clip.path.focal[0]) / size[1]
        given = pictures[trained], depths[trained]
        started = time.perf_counter()
        made = reconstruct(Clip(*given, given[1] > 0, focal, focal_known=True, inverse=False), PRESETS["standard"])
        middle = time.perf_counter()
        theirs, their_steps = reconstruct_paper.reconstruct(*given, clip.path)
        ended = time.perf_counter()
        steps = [steps[0] + made.iterations, steps[1] + their_steps]
        seconds = [seconds[0] + middle - started, seconds[1] + ended - middle]
        ours.append(judge(made.fit, clip, pictures, trained))
        paper.append(judge(theirs, clip, pictures, trained))
        sys.stderr.write(f"{kind}: ours {ours[-1]} {middle - started:.0f} s, the paper's {paper[-1]} {ended - middle:.0f} s\n")
    figures = {name: sum(each[name] for each in ours) / len(ours) for name in ours[0]}
    figures |= {f"{name}_paper": sum(each[name] for each in paper) / len(paper) for name in paper[0]}
    return {**figures, "iteration_ratio": steps[0] / steps[1], "seconds": seconds[0] / len(ours), "seconds_paper": seconds[1] / len(ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    figures = measure(clips.KINDS[:1], 10, (36, 48)) if quick else measure(clips.KINDS, FRAMES, SIZE)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
