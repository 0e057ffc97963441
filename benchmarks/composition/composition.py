"""Separate-and-Enhance: does every object of a prompt come into the picture? `python run.py bench composition`.

Held-out prompts of two and three objects with full names, the same noise for all ways. `repaired`: of the pictures that are wrong without
it, the share that become right, less those that become wrong; `exactly`: the same where pictures with more things than were asked for count
as wrong, too; beside it the losses as published and Attend-and-Excite (`peer`) in the same
node, and a LoRA that is trained here on two thirds of all names (`seen`: prompts all of whose names were trained, `unseen`: none of whose
was). `one_object`: the share of right pictures of one object over plain; `frechet`: distance of the referee's features to true renders,
over plain; `diversity`: of pictures of one prompt, over plain; `time_ratio`: over plain sampling. `--sheet` draws the first pictures that
are wrong without it beside what becomes of them.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.sd
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...nodes.common.previews import sheet, to_image
from ...playground.image import models
from ...playground.referee import referee
from ...playground.world import world
from ...recipes.composition import guide as recipe
from ...recipes.composition.guide import CompositionSettings, name_objects
from ...recipes.composition.lessons import lessons
from ...recipes.composition.train import LoraSettings, train
from ...recipes.training import Audience
from ...training.settings import Line
from ..playground import scenes
from ..playground.playground import Name, outcome, prompts
from .looks import diversity, features, frechet

OURS = CompositionSettings()
PEERS = {  # at the strength that served each best
    "published_": replace(OURS, method="as published", enhance=0.5), "peer_": replace(OURS, method="attend and excite", strength=0.4),
}  # fmt: skip
ABLATIONS = {
    "separate alone": replace(OURS, enhance=0.0),
    "enhance alone": replace(OURS, separate=0.0),
    "without gathering": replace(OURS, gather=0.0),
    "first quarter": replace(OURS, end=0.25),
    "first half": replace(OURS, end=0.5),
    "to the end": replace(OURS, end=1.0),
    "coarse grid": replace(OURS, layers="coarse"),
    "fine grid": replace(OURS, layers="fine"),
}
TOGETHER = 32
TAUGHT, LEARNT = 2, {2: 130, 3: 130}  # seed and number of the prompts to learn from; those with other names are left out
OTHERS = 1  # seed of the prompts: those of seed 0 served to choose settings
TRAINED = 2 / 3  # of all names of colour and shape
RENDERS = 2000
SHOWN = 8  # prompts of a sheet
SEEDS = 8  # of one prompt, for diversity

Job = tuple[str, list[Name], str]


@dataclass
class Way:
    """How pictures are sampled. model: in place of the plain one; settings: of the guide, if there is one."""

    model: Any = None
    settings: CompositionSettings | None = None
    steps: int = scenes.STEPS
    sampler: str = scenes.SAMPLER


@dataclass
class Drawn:
    outcomes: list[str] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)  # whether there are as many things as were asked for
    seen: list[np.ndarray] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> np.ndarray:
        return np.array([outcome == "right" for outcome in self.outcomes])

    @property
    def exactly_right(self) -> np.ndarray:
        return self.right & np.array(self.alone)


class Bench:
    def __init__(self) -> None:
        self.model, self.clip, self.vae = models.load()
        self.network = referee.load()

    def guided(self, model: Any, jobs: list[Job], settings: CompositionSettings) -> Any:
        named = []
        for text, names, _ in jobs:
            phrases = list(dict.fromkeys(" ".join(name) for name in names))
            encoded: Any = self.clip.encode_from_tokens(self.clip.tokenize(text))
            named.append(name_objects(self.clip, text, encoded, phrases))
        return recipe.attach(model, named, settings)

    @torch.inference_mode()
    def draw(self, jobs: list[Job], way: Way, seed: int = 1000) -> Drawn:
        drawn = Drawn()
        for start in range(0, len(jobs), TOGETHER):
            part = jobs[start : start + TOGETHER]
            model = way.model or self.model
            if way.settings is not None:
                model = self.guided(model, part, way.settings)
            started = time.perf_counter()
            latents = scenes.sample(model, self.clip, [text for text, _, _ in part], seed + start, way.steps, way.sampler)
            drawn.seconds += time.perf_counter() - started
            pictures = scenes.decode(self.vae, latents)
            seen = referee.look(self.network, pictures)
            drawn.outcomes += [outcome(s, names, ground) for s, (_, names, ground) in zip(seen, part, strict=True)]
            drawn.alone += [len(s.objects) == len(names) for s, (_, names, _) in zip(seen, part, strict=True)]
            drawn.seen.append(features(self.network, pictures))
            drawn.pictures += pictures.clone()
        return drawn


def repaired(now: np.ndarray, was: np.ndarray) -> float:
    """Of what is right, (pictures,) bool, with it and without."""
    return float(((~was & now).sum() - (was & ~now).sum()) / max((~was).sum(), 1))


def distinct(jobs: list[Job]) -> list[Job]:
    """Without those that name a thing twice."""
    return [job for job in jobs if len(set(job[1])) == len(job[1])]


def trained_names() -> list[Name]:
    names = [(colour, shape) for colour in world.COLOUR_NAMES for shape in world.SHAPES]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(5)).tolist()
    return [names[i] for i in order[: round(TRAINED * len(names))]]


def taught() -> list[str]:
    """Prompts of two and three things with trained names."""
    known = set(trained_names())
    drawn = [job for objects, count in LEARNT.items() for job in distinct(prompts(count, objects, TAUGHT))]
    return [text for text, names, _ in drawn if set(names) <= known]


def trained(bench: Bench, settings: LoraSettings) -> tuple[dict[str, Tensor], float]:
    """A LoRA, and minutes of training."""
    started = time.perf_counter()
    with torch.inference_mode():
        learnt = lessons(bench.clip, taught(), settings.seed)
        lora, _ = train(bench.model, learnt, torch.zeros(1, 4, 16, 16), settings, None, Audience(Line("lora")))
    return lora, (time.perf_counter() - started) / 60


def renders(count: int, objects: int) -> Tensor:
    odds = (float(objects == 1), float(objects == 2), float(objects == 3))
    drawn = world.sample_scenes(count, torch.Generator().manual_seed(scenes.HELD_OUT + 77), counts=odds)
    return torch.cat([world.render(drawn[i : i + 100])[0] for i in range(0, count, 100)])


@dataclass(frozen=True)
class Compared:
    """Prompts of so many objects, drawn plainly and in other ways."""

    bench: Bench
    objects: int
    jobs: list[Job]
    plain: Drawn
    truth: np.ndarray

    def told(self, name: str, way: Way) -> Drawn:
        drawn = self.bench.draw(self.jobs, way)
        counted = dict(Counter(drawn.outcomes))
        sys.stderr.write(
            f"{self.objects} objects, {name or 'ours'}: repaired {repaired(drawn.right, self.plain.right):.3f}, exactly "
            f"{repaired(drawn.exactly_right, self.plain.exactly_right):.3f} {counted}\n"
        )
        return drawn

    def figures(self, name: str, drawn: Drawn) -> dict[str, float]:
        """Of ours (""), of a peer or of the LoRA."""
        objects = self.objects
        if objects == 1:
            return {f"{name}one_object": float(drawn.right.mean() / self.plain.right.mean())}
        apart, before = (frechet(np.concatenate(each.seen), self.truth) for each in (drawn, self.plain))
        found = {
            f"{name}repaired_{objects}": repaired(drawn.right, self.plain.right),
            f"{name}exactly_repaired_{objects}": repaired(drawn.exactly_right, self.plain.exactly_right),
            f"{name}frechet_{objects}": apart / before,
        }
        if not name:
            found[f"time_ratio_{objects}"] = drawn.seconds / self.plain.seconds
        return found

    def sheet(self, drawn: dict[str, Drawn], path: Path) -> None:
        """The first prompts that are drawn wrongly without it, each way a column."""
        chosen = np.flatnonzero(~self.plain.right)[:SHOWN]
        rows = [(self.jobs[i][0], [each.pictures[i].movedim(0, -1) for each in drawn.values()]) for i in chosen]
        to_image(sheet(rows, list(drawn))).save(path, quality=90)

    def by_names(self, drawn: Drawn) -> dict[str, float]:
        """Of the LoRA, where all names were trained and where none was."""
        known = set(trained_names())
        found = {}
        for kind, wanted in (("seen", self.objects), ("unseen", 0)):
            chosen = np.array([sum(thing in known for thing in names) == wanted for _, names, _ in self.jobs])
            found[f"lora_repaired_{self.objects}_{kind}"] = repaired(drawn.right[chosen], self.plain.right[chosen])
        return found

    def elsewhere(self, way: Way) -> dict[str, float]:
        """At 8 steps, and with another sampler, each over its own plain pictures."""
        found = {}
        for name, changed in {"8_steps": {"steps": 8}, "euler": {"sampler": "euler"}}.items():
            plain = self.bench.draw(self.jobs, replace(Way(), **changed))
            drawn = self.bench.draw(self.jobs, replace(way, **changed))
            found[f"repaired_{self.objects}_{name}"] = repaired(drawn.right, plain.right)
            found[f"exactly_repaired_{self.objects}_{name}"] = repaired(drawn.exactly_right, plain.exactly_right)
        return found


def compared(bench: Bench, objects: int, count: int, truths: int) -> Compared:
    jobs = distinct(prompts(count, objects, OTHERS))
    plain = bench.draw(jobs, Way())
    sys.stderr.write(f"{objects} objects, plain: right {plain.right.mean():.3f} {dict(Counter(plain.outcomes))}\n")
    return Compared(bench, objects, jobs, plain, features(bench.network, renders(truths, objects)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--objects", nargs="+", type=int, choices=(1, 2, 3), default=(1, 2, 3), help="of the prompts")
    parser.add_argument("--sheet", type=Path, help="a JPEG to write, of prompts of two things")
    parser.add_argument("--lora", type=Path, help="a file: read in place of training, or written after it")
    options = parser.parse_args()
    bench, counts = Bench(), {1: 32, 2: 64, 3: 32} if options.quick else {1: 400, 2: 400, 3: 200}
    figures: dict[str, float] = {}
    if options.lora is not None and options.lora.exists():
        lora = load_file(options.lora)
    else:
        lora, figures["training_minutes"] = trained(bench, LoraSettings(steps=20) if options.quick else LoraSettings())
        if options.lora is not None:
            save_file(lora, options.lora)
    learnt = comfy.sd.load_lora_for_models(bench.model, None, lora, 1.0, 0)[0]
    own = {"": Way(settings=OURS), "lora_": Way(model=learnt)}
    ways = {**own, **{name: Way(settings=peer) for name, peer in PEERS.items()}}
    for objects in options.objects:
        here = compared(bench, objects, counts[objects], 200 if options.quick else RENDERS)
        figures |= {f"plain_{objects}": float(here.plain.right.mean()), f"plain_exactly_{objects}": float(here.plain.exactly_right.mean())}
        drawn = {name: here.told(name, way) for name, way in (ways if objects > 1 else own).items()}
        for name in drawn:
            figures |= here.figures(name, drawn[name])
        if options.sheet is not None and objects == 2:
            here.sheet({"plain": here.plain, "guided": drawn[""], "Attend-and-Excite": drawn["peer_"]}, options.sheet)
        if objects > 1:
            figures |= here.by_names(drawn["lora_"]) | here.elsewhere(own[""])
        for name, settings in (ABLATIONS if options.ablate and objects > 1 else {}).items():
            here.told(name, Way(settings=settings))
    same = [job for job in distinct(prompts(4 if options.quick else 24, 2, OTHERS)) for _ in range(SEEDS)]
    unlike = {name: diversity(np.concatenate(bench.draw(same, way).seen), SEEDS) for name, way in {"plain_": Way(), **own}.items()}
    figures |= {f"{name}diversity": unlike[name] / unlike["plain_"] for name in own}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
