"""What each constant of the tracker is worth: errors of small drawn clips with every one of them at half and at double.

`python run.py bench sensitivity`: "file.NAME": [at half, at double], the ATE of bench reconstruct over that of the tracker as it is, whose
own is `ate`; a geometric mean over clips, each with damaged depth and once more without any. 1 for both: it makes no difference there.
Whole numbers are rounded up, and those of a tuple or a table are changed together. `--only NAME`: of those whose names have it.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from types import ModuleType

from torch import Tensor

from ...core.geometry import trajectory
from ...core.tracking.motion import nearness
from ...core.tracking.tracking import track
from ...playground.rooms import clips

# Left out: names of columns, and what only long or large clips, cameras that are known or lost, an unknown lens, or memory meet
CONSTANTS = {
    "flow": (
        "RADIUS", "AROUND", "LEAST_CERTAINTY", "THERE_AND_BACK", "EPIPOLAR_NOISE", "NEAR_EPIPOLE", "DIRECTIONS", "REFINED", "SPREADS",
        "ANOTHER", "STEPS",
    ),
    "levenberg": ("FIRST_DAMPING", "LEAST_DAMPING", "MOST_DAMPING", "LESS", "MORE", "ENOUGH"),
    "motion": (
        "FLOW", "FIRST_FRAMES", "EVERY", "GUESSES", "FIRST_RANGE", "RANGE_MARGINS", "GAPS", "AROUND", "LEAST_BASELINE", "LEAST_CERTAINTY",
        "PLACED_WITH", "ADJUSTED_WITH", "ROUNDS", "STEPS",
    ),
    "normal_equations": ("PRIORS", "PRIOR_WEIGHT", "LEAST_SEEN", "MOSTLY_SEEN"),
    "patches": ("SIDE", "CHANGE_PRIOR", "LARGEST_DEPTH_STEP", "MOST_ITERATIONS", "TOLERANCE"),
    "plane_sweep": ("PLANES", "WINDOW", "PATTERN_RADIUS", "LEAST_CONTRAST", "LARGEST_DIFFERENCE", "OUTSIDE", "NEAREST"),
    "pyramid": ("SMALLEST_SIDE", "SOLID", "SAME_SURFACE", "SLOPE_RADIUS"),
    "residuals": ("PICTURE_NOISE", "DEPTH_NOISE", "NOISE_RANGE"),
    "state": ("NEAREST_INVERSE",),
    "tracking": ("STEPS", "LOCAL_STEPS", "GLOBAL_STEPS", "GAPS", "KEYFRAME_GAPS", "WINDOW"),
    "warp": ("IN_FRONT", "KNOWN_AROUND"),
}  # fmt: skip
KINDS, FRAMES, SIZE = ("sideways", "handheld"), 8, (36, 48)
OF = 24  # frames that the whole of a clip's way has


def scaled(value: object, factor: float) -> object:
    if isinstance(value, dict):
        return {name: scaled(each, factor) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(scaled(each, factor) for each in value))
    if isinstance(value, int):
        return math.ceil(value * factor)
    assert isinstance(value, float)
    return value * factor


def modules() -> dict[str, ModuleType]:
    return {file: import_module(f"...core.tracking.{file}", __package__) for file in (*CONSTANTS, "bundle")}


def change(file: str, name: str, value: object) -> None:
    """In its own file, and in those that import the name from there."""
    for other, module in modules().items():
        if other == file or (hasattr(module, name) and name not in CONSTANTS.get(other, ())):
            setattr(module, name, value)


def drawn() -> list[tuple[clips.Clip, Tensor, Tensor]]:
    """Beginnings of clips, and their pictures and depth with damage."""
    made = []
    for kind in KINDS:
        whole = clips.draw(kind, OF, SIZE)
        clip = clips.Clip(whole.frames[:FRAMES], whole.depth[:FRAMES], replace(whole.path, poses=whole.path.poses[:FRAMES]))
        made.append((clip, *clips.corrupted(clip)))
    return made


def error(made: list[tuple[clips.Clip, Tensor, Tensor]]) -> float:
    """The geometric mean of all ATEs; infinite where nothing is found."""
    logs = []
    for clip, pictures, depth in made:
        focal = float(clip.path.focal[0]) / SIZE[1]
        try:
            near, valid = nearness(pictures, focal)
            by_motion = track(pictures, near, valid, focal, inverse=True, from_motion=True)
            for tracked in (track(pictures, depth, depth > 0, focal), by_motion):
                logs.append(math.log(trajectory.ate(tracked.path(SIZE).positions, clip.path.positions)))
        except (ValueError, RuntimeError, IndexError):  # no start, an empty range, a camera that stands still
            return math.inf
    return math.exp(sum(logs) / len(logs))


def sensitivity(of: Callable[[str], bool]) -> dict[str, object]:
    made = drawn()
    plain = error(made)
    figures: dict[str, object] = {"ate": round(plain, 5)}
    for file, names in CONSTANTS.items():
        for name in filter(lambda each, file=file: of(f"{file}.{each}"), names):
            value, ratios = getattr(modules()[file], name), []
            for factor in (0.5, 2.0):
                change(file, name, other := scaled(value, factor))
                ratios.append(round(error(made) / plain, 2) if other != value else 1.0)
                change(file, name, value)
            figures[f"{file}.{name}"] = ratios
            sys.stderr.write(f"{file}.{name}: {ratios}\n")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    print(json.dumps(sensitivity(lambda name: only in name)))


if __name__ == "__main__":
    main()
