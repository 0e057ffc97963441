"""FreeInit: are clips steadier, and at what cost? `python run.py bench freeinit`.

The same noise for all ways. `inconsistency_ratio`: mean of the ratios, over one plain pass, of the ground's flicker, of changes of a
thing's colour and size from frame to frame, and of frames in which it is not itself; `motion_ratio`: of the amount of motion;
`prompt_ratio`: of the clips whose things, motions and ground are right; `time_ratio`: of seconds. Beside it the published recipe, and
plain sampling given as much time or more: half as many steps again, and the better of two seeds by the score itself.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...playground.referee import referee
from ...playground.referee.clips import look_at_clips
from ...recipes.freeinit.sampler import FreeInitSampler
from ...recipes.freeinit.settings import FreeInitSettings
from ..playground import clip_scenes
from .steadiness import Steadiness, amount_of_motion, steadiness

OURS = FreeInitSettings()
PUBLISHED = FreeInitSettings(extra=4, kind="butterworth", keep_variance=False, restart=None, early=1.0)
SEED = 5000
WAYS = ("ours", "published", "more_steps", "better_of_two_seeds")


@dataclass(frozen=True)
class Drawn:
    """Clips of one way, clip by clip."""

    steady: list[Steadiness]
    motion: list[float]
    right: list[bool]
    seconds: float


class Bench:
    def __init__(self, name: str, count: int) -> None:
        self.player, self.network = clip_scenes.Player.load(name), referee.load(referee.CLIP_WEIGHTS)
        self.asked = clip_scenes.prompts(count, seed=1, still_ground=True)

    def draw(self, seed: int = SEED, steps: int = clip_scenes.STEPS, around: Callable[[Any], Any] = lambda sampler: sampler) -> Drawn:
        started = time.perf_counter()
        latents = self.player.draw([p.text for p in self.asked], seed, steps, around=around)
        seconds = time.perf_counter() - started
        found = Drawn([], [], [], seconds)
        for i, prompt in enumerate(self.asked):
            size = len(latents) // len(self.asked)
            self._judge(self.player.pictures(latents[i * size : (i + 1) * size]), prompt, found)
        return found

    def _judge(self, pictures: Tensor, prompt: clip_scenes.Prompt, found: Drawn) -> None:
        (seen,) = look_at_clips(self.network, pictures)
        names = [(thing.colour, thing.shape) for thing in prompt.things]
        judged = clip_scenes.judge(seen, prompt)
        found.steady.append(steadiness(pictures[0], seen, names))
        found.motion.append(amount_of_motion(seen, names))
        found.right.append(judged.moves and judged.ground)


def freeinit(settings: FreeInitSettings) -> Callable[[Any], Any]:
    return lambda sampler: FreeInitSampler(sampler, settings)


def better(a: Drawn, b: Drawn) -> Drawn:
    """Of each pair of clips the one that the score itself prefers."""
    second = [y.over(x) < 1 for x, y in zip(a.steady, b.steady, strict=True)]

    def chosen(name: str) -> list:
        return [y if s else x for s, x, y in zip(second, getattr(a, name), getattr(b, name), strict=True)]

    return Drawn(chosen("steady"), chosen("motion"), chosen("right"), a.seconds + b.seconds)


def against(drawn: Drawn, plain: Drawn) -> dict[str, float]:
    return {
        "inconsistency_ratio": Steadiness.mean(drawn.steady).over(Steadiness.mean(plain.steady)),
        "motion_ratio": float(np.mean(drawn.motion) / np.mean(plain.motion)),
        "prompt_ratio": float(np.mean(drawn.right) / max(np.mean(plain.right), 1e-9)),
        "time_ratio": drawn.seconds / plain.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--models", nargs="*", choices=tuple(clip_scenes.KINDS), default=tuple(clip_scenes.KINDS))
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for name in options.models:
        bench = Bench(name, 8 if options.quick else options.clips)
        plain = bench.draw()
        ways = {
            "ours": lambda bench=bench: bench.draw(around=freeinit(OURS)),
            "published": lambda bench=bench: bench.draw(around=freeinit(PUBLISHED)),
            "more_steps": lambda bench=bench: bench.draw(steps=3 * clip_scenes.STEPS // 2),
            "better_of_two_seeds": lambda bench=bench, plain=plain: better(plain, bench.draw(seed=SEED + 10**6)),
        }
        sys.stderr.write(f"{name}, plain: {Steadiness.mean(plain.steady)}, right {np.mean(plain.right):.3f}\n")
        for way in options.ways:
            drawn = ways[way]()
            ratios = against(drawn, plain)
            sys.stderr.write(f"{name}, {way}: {Steadiness.mean(drawn.steady)}, { {k: round(v, 3) for k, v in ratios.items()} }\n")
            prefix = "" if way == "ours" else f"{way}_"
            figures |= {f"{prefix}{figure}_{name}": value for figure, value in ratios.items()}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
