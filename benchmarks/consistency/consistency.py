"""Consistency models and their control on the playground. `python run.py bench consistency`.

Held-out prompts, the same for all. `cm_one_N`, `cm_two_N`: pictures of one and two objects that are right after N steps, over the teacher's
after 25 with guidance; `frechet_ratio_N`: distance of the referee's features to true renders, over the teacher's; `time_ratio`: of 4 steps
over the teacher's 25. Overlap with a condition, the mean of the kinds that were trained on: `dm_25` an ordinary ControlNet at 25 steps, and
on the consistency model at 4: `reuse_4` the same one as it is, `trained_4` one of consistency training, `adapter_4` the ordinary one with
the adapter; `frechet_...` likewise. `unseen_...`: of a kind that the adapter was not trained on. `freecontrol_4`: overlap of FreeControl on
the consistency model over its own at 25 steps on the teacher. What does not come with the pack is left out until `python run.py train` has
made it.
"""

import argparse
import importlib
import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.consistency import adapter_file
from ...host.adapters.control_adapter import with_adapter
from ...playground.consistency import models as few
from ...playground.image import models as pictures
from ...playground.referee import referee
from ..composition.composition import renders
from ..composition.looks import features, frechet
from ..freecontrol.freecontrol import Bench as Steered
from ..freecontrol.freecontrol import Setting
from ..playground import scenes
from ..playground.playground import outcome, prompts

FEW = {"sampler": "lcm", "scheduler": "sgm_uniform", "cfg": 1.0}
STEPS = (1, 2, 4, 8)
CONTROLLED = 4  # steps
TOGETHER = 50
OTHERS = 1  # seed of the prompts
STEERED_BY, MOST_STEERED = "silhouette", 48
Drawn = tuple[Tensor, np.ndarray]


class Bench:
    def __init__(self, count: int, truths: int) -> None:
        self.teacher, self.clip, self.vae = pictures.load()
        self.student = few.load()[0]
        self.network = referee.load()
        self.count = count
        self.jobs = {objects: prompts(count, objects, OTHERS) for objects in (1, 2)}
        self.truth = {objects: features(self.network, renders(truths, objects)) for objects in (1, 2)}
        self.task = scenes.task(count, OTHERS)

    @torch.inference_mode()
    def draw(self, model: Any, texts: list[str], controlled: Any = None, **sampling: Any) -> Tensor:
        """controlled: of the numbers of the pictures, see scenes.sample."""
        found = []
        for start in range(0, len(texts), TOGETHER):
            chosen = range(start, min(start + TOGETHER, len(texts)))
            applied = None if controlled is None else partial(controlled, chosen)
            latents = scenes.sample(model, self.clip, [texts[i] for i in chosen], 1000 + start, controlled=applied, **sampling)
            found.append(scenes.decode(self.vae, latents).clone())
        return torch.cat(found)

    def prompted(self, objects: int, model: Any, **sampling: Any) -> tuple[float, float]:
        """The share of right pictures, and their distance to renders."""
        jobs = self.jobs[objects]
        drawn = self.draw(model, [text for text, _, _ in jobs], **sampling)
        seen = referee.look(self.network, drawn)
        right = np.mean([outcome(s, names, ground) == "right" for s, (_, names, ground) in zip(seen, jobs, strict=True)])
        return float(right), frechet(features(self.network, drawn), self.truth[objects])

    def controlled(self, control: Any, kind: str, model: Any, **sampling: Any) -> tuple[float, float]:
        """Overlap with the condition, and the distance to renders."""
        host: Any = importlib.import_module("nodes")
        hints = scenes.condition_images(self.task, kind)

        def applied(chosen: range, positive: list, negative: list) -> tuple[list, list]:
            hint = hints[chosen.start : chosen.stop]
            return host.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, hint, 1.0, 0.0, 1.0)

        drawn = self.draw(model, self.task.prompts, applied, **sampling)
        verdict = scenes.judge(self.network, drawn, drawn, self.task, scenes.wanted_masks(self.task, kind))
        return verdict.overlap, frechet(features(self.network, drawn), self.truth[1])


def prompted(bench: Bench) -> dict[str, float]:
    figures: dict[str, float] = {}
    for objects, name in ((1, "one"), (2, "two")):
        right, apart = bench.prompted(objects, bench.teacher)
        figures[f"teacher_{name}"] = right
        for steps in STEPS:
            own, distance = bench.prompted(objects, bench.student, steps=steps, **FEW)
            figures[f"cm_{name}_{steps}"] = own / right
            figures[f"frechet_ratio_{name}_{steps}"] = distance / apart
            sys.stderr.write(f"{name}, {steps} steps: right {own:.3f} of {right:.3f}, distance {distance / apart:.2f}\n")
    return figures


def ways(bench: Bench, kind: str) -> dict[str, tuple[float, float]]:
    """Of one kind of condition, each way of control."""
    control = few.load_control(kind)
    adapted = with_adapter(control, adapter_file.load(few.ADAPTER).weights, 1.0)
    at_few = {"steps": CONTROLLED, **FEW}
    found = {
        "dm_25": bench.controlled(control, kind, bench.teacher),
        "reuse_4": bench.controlled(control, kind, bench.student, **at_few),
        "adapter_4": bench.controlled(adapted, kind, bench.student, **at_few),
    }
    trained = f"{kind}, few steps"
    if few.CONTROLS[trained].exists():
        found["trained_4"] = bench.controlled(few.load_control(trained), kind, bench.student, **at_few)
    for name, (overlap, apart) in found.items():
        sys.stderr.write(f"{kind}, {name}: overlap {overlap:.3f}, distance {apart:.2f}\n")
    return found


def controlled(bench: Bench) -> dict[str, float]:
    figures: dict[str, float] = {}
    of_kinds = [ways(bench, kind) for kind in few.TRAINED]
    for name in of_kinds[0]:
        if all(name in each for each in of_kinds):
            figures[name] = float(np.mean([each[name][0] for each in of_kinds]))
            figures[f"frechet_{name}"] = float(np.mean([each[name][1] for each in of_kinds]))
    if few.CONTROLS[few.UNSEEN].exists():
        figures |= {f"unseen_{name}": overlap for name, (overlap, _) in ways(bench, few.UNSEEN).items()}
    return figures


def steered(bench: Bench) -> dict[str, float]:
    """FreeControl with its defaults on both models, each with a basis of its own."""
    own, figures = Steered(min(bench.count, MOST_STEERED)), {}
    for name, model, sampling in (("25", bench.teacher, {}), ("4", bench.student, {"steps": CONTROLLED, **FEW})):
        own.model, own.bases = model, {}
        plain, drawn = (own.draw(each, **sampling) for each in (model, own.guided(STEERED_BY, Setting())))
        verdict = scenes.judge(bench.network, drawn, plain, own.job, scenes.wanted_masks(own.job, STEERED_BY))
        sys.stderr.write(f"FreeControl, {name} steps: {verdict}\n")
        figures[name] = verdict.overlap
    return {"freecontrol_25": figures["25"], "freecontrol_4": figures["4"] / figures["25"]}


def time_ratio(bench: Bench) -> float:
    texts = [text for text, _, _ in bench.jobs[1][:TOGETHER]]
    seconds = []
    for model, sampling in ((bench.teacher, {}), (bench.student, {"steps": CONTROLLED, **FEW})):
        bench.draw(model, texts[:2], **sampling)
        started = time.perf_counter()
        with torch.inference_mode():
            scenes.sample(model, bench.clip, texts, 1, **sampling)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / seconds[0]


PARTS = {"prompts": prompted, "controls": controlled, "freecontrol": steered}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=tuple(PARTS))
    options = parser.parse_args()
    bench = Bench(*((50, 200) if options.quick else (400, 2000)))
    figures = {"time_ratio": time_ratio(bench)}
    for name, part in PARTS.items():
        if options.only in (None, name):
            figures |= part(bench)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
