"""What each constant of the tracker is worth: errors of small drawn clips with every one of them at half and at double.

`python run.py bench sensitivity`: "file.NAME": [at half, at double], the ATE of bench reconstruct over that of the tracker as it is, a
geometric mean over clips. What finds depth in the pictures (MOTION) is judged by clips without any, the rest by clips with damaged depth;
`ate` and `ate_motion` are what is compared with. 1 for both: it makes no difference there. Whole numbers are rounded up, and those of a
tuple or a table are changed together. `--only NAME`: of those whose names have it. Takes about a quarter of an hour.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
MOTION = ("flow", "motion", "patches", "plane_sweep")
FRAMES, OF = 8, 24  # of a clip, and those that its whole way has
WITH_DEPTH, WITH_DEPTH_SIZE = ("forward", "sideways", "handheld", "arc"), (36, 48)
WITHOUT, WITHOUT_SIZE = ("sideways", "arc"), (48, 64)
Clips = list[tuple[clips.Clip, Tensor, Tensor]]


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


def drawn(kinds: tuple[str, ...], size: tuple[int, int]) -> Clips:
    """Beginnings of clips, and their pictures and depth with damage."""
    made = []
    for kind in kinds:
        whole = clips.draw(kind, OF, size)
        clip = clips.Clip(whole.frames[:FRAMES], whole.depth[:FRAMES], replace(whole.path, poses=whole.path.poses[:FRAMES]))
        made.append((clip, *clips.corrupted(clip)))
    return made


def error(made: Clips, with_depth: bool) -> float:
    """The geometric mean of all ATEs; infinite where one clip is not tracked at all."""
    logs = []
    for clip, pictures, given in made:
        size = (pictures.shape[1], pictures.shape[2])
        focal = float(clip.path.focal[0]) / size[1]
        try:
            depth, valid = (given, given > 0) if with_depth else nearness(pictures, focal)
            tracked = track(pictures, depth, valid, focal, inverse=not with_depth, from_motion=not with_depth)
        except (ValueError, RuntimeError, IndexError):  # nothing to start from, or nothing to choose from
            return math.inf
        logs.append(math.log(trajectory.ate(tracked.path(size).positions, clip.path.positions)))
    return math.exp(sum(logs) / len(logs))


def sensitivity(of: Callable[[str], bool]) -> dict[str, object]:
    judges = {
        False: partial(error, drawn(WITHOUT, WITHOUT_SIZE), with_depth=False),
        True: partial(error, drawn(WITH_DEPTH, WITH_DEPTH_SIZE), with_depth=True),
    }
    figures: dict[str, object] = {}
    plain: dict[bool, float] = {}
    for file, names in CONSTANTS.items():
        for name in filter(lambda each, file=file: of(f"{file}.{each}"), names):
            value, ratios, with_depth = getattr(modules()[file], name), [], file not in MOTION
            if with_depth not in plain:
                plain[with_depth] = judges[with_depth]()
                figures["ate" if with_depth else "ate_motion"] = round(plain[with_depth], 5)
            for factor in (0.5, 2.0):
                other = scaled(value, factor)
                change(file, name, other)
                ratios.append(1.0 if other == value else round(judges[with_depth]() / plain[with_depth], 2))
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
