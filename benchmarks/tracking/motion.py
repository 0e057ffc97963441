"""Cameras and depth of drawn clips from their pictures alone, which have noise and a wandering exposure.

`python run.py bench motion`: `ate` and `rpe_r` (degrees) as in bench reconstruct; `depth_error`, the mean of |log| of the depth that
was found, up to one factor for a clip; `known`, the share of pixels where it was; `lost`, frames that are named lost; `ate_slow`, of
the same ways at a quarter of the speed.
"""

import argparse
import json
import sys
import time

from ...core.geometry import trajectory
from ...core.tracking.motion import nearness
from ...core.tracking.tracking import track
from ...playground.rooms import clips

FRAMES, SIZE, SLOWER = 24, (72, 96), 4
SLOW = ("forward", "handheld")


def judge(kind: str, frames: int, size: tuple[int, int]) -> dict[str, float]:
    clip = clips.draw(kind, frames, size)
    pictures, _ = clips.corrupted(clip)
    focal = float(clip.path.focal[0]) / size[1]
    started = time.perf_counter()
    near, valid = nearness(pictures, focal)
    tracked = track(pictures, near, valid, focal, inverse=True, from_motion=True)
    seconds = time.perf_counter() - started
    path, off = tracked.path(size), (near * clip.depth).log()[valid]
    found = {
        "ate": trajectory.ate(path.positions, clip.path.positions), "rpe_r": trajectory.rpe(path.poses, clip.path.poses)[1],
        "depth_error": float((off - off.median()).abs().mean()), "known": float(valid.float().mean()), "lost": float(len(tracked.lost)),
        "seconds": seconds,
    }  # fmt: skip
    sys.stderr.write(f"{kind}, {frames} frames: {found}\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    kinds, slow, frames, size = (("sideways",), ("sideways",), 8, (48, 64)) if quick else (clips.KINDS, SLOW, FRAMES, SIZE)
    found = [judge(kind, frames, size) for kind in kinds]
    figures = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
    figures["ate_slow"] = sum(judge(kind, SLOWER * frames, size)["ate"] for kind in slow) / len(slow)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
