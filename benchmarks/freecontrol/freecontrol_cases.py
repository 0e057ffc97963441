"""FreeControl as people use it: pictures and masks as conditions, few steps, other formats. `python run.py bench freecontrol_cases`.

Drawn and judged as in `bench freecontrol`, each row beside its own unsteered pictures. `iou`: overlap, of two objects that of the worse
one, of strokes with their hull; `behind`: the share of objects with an overlap below .5; `texture`: of the ground, over unsteered (median);
`prompt_ratio`: pictures with the prompted colour and ground, over unsteered.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nodes.common.previews import sheet, to_image
from ...playground.world import world
from ...playground.world.captions import PLACES, article
from ..playground import scenes
from . import strokes
from .freecontrol import Bench, Setting

OTHER = 5  # seed of what another picture shows
FEW: dict[str, dict[str, Any]] = {
    **{f"{steps}_steps": {"steps": steps, "sampler": "euler"} for steps in (1, 2, 3, 4)},
    "4_steps_lcm": {"steps": 4, "sampler": "lcm"},
    "4_steps_karras": {"steps": 4, "sampler": "dpmpp_2m", "scheduler": "karras"},
}
SHEET, SHOWN = ("picture", "mask", "4_steps", "wide 192 x 128", "sketch", "sticks"), 2  # rows, and pictures of each
WIDE = {"192 x 128": (128, 192), "96 x 192": (192, 96)}  # (h, w)


@dataclass
class Case:
    """What is asked for. tasks: one for each object; pictures: conditions (B, H, W, 3), one for each node in a chain, with their
    subjects and masks."""

    tasks: list[scenes.Task]
    prompts: list[str]
    pictures: list[Tensor]
    subjects: list[list[str]]
    masks: list[Tensor] | None = None
    sampling: dict[str, Any] = field(default_factory=dict)


def shapes(task: scenes.Task) -> list[str]:
    return [f"{article(shape)} {shape}" for _, shape, _ in task.names]


def of_one(task: scenes.Task, **changed: Any) -> Case:
    return Case(**{"tasks": [task], "prompts": task.prompts, "pictures": [silhouette(task.masks)], "subjects": [shapes(task)]} | changed)


def silhouette(masks: Tensor) -> Tensor:
    return (0.15 + 0.75 * masks)[..., None].expand(-1, -1, -1, 3).contiguous()


def repainted(count: int) -> Tensor:
    """The scenes of `scenes.task(count)` with objects of another colour on another ground: (B, H, W, 3)."""
    drawn = scenes.drawn(count)
    generator = torch.Generator().manual_seed(OTHER)

    def other(values: Tensor, options: int) -> Tensor:
        return (values + torch.randint(1, options, values.shape, generator=generator)) % options

    places = other(drawn.background, len(PLACES))
    painted = replace(drawn, colour=other(drawn.colour, len(world.COLOURS)), background=places)
    return world.render(painted)[0].movedim(1, -1)


def wide(task: scenes.Task, size: tuple[int, int]) -> scenes.Task:
    """The same objects somewhere in a picture of another form (h, w)."""
    side = min(size)
    small = F.interpolate(task.masks[:, None], (side, side), mode="area")[:, 0]
    room = torch.tensor(size) - side
    generator = torch.Generator().manual_seed(OTHER)
    placed = []
    for mask in small:
        top, left = (int(torch.randint(int(free) + 1, (), generator=generator)) for free in room)
        placed.append(F.pad(mask, (left, size[1] - side - left, top, size[0] - side - top)))
    return replace(task, masks=torch.stack(placed))


def pairs(count: int) -> tuple[list[scenes.Task], list[str]]:
    """Scenes of two things with different names: a task for each, and prompts."""
    drawn = scenes.drawn(2 * count, objects=2)
    masks = world.render(drawn)[1]
    unlike = [i for i in range(len(drawn)) if drawn.name(i, 0) != drawn.name(i, 1)][:count]
    names = [[(*drawn.name(i, slot), drawn.ground(i)) for i in unlike] for slot in range(2)]
    tasks = [scenes.Task(names[slot], masks[unlike, slot], 0) for slot in range(2)]
    things = zip(*([f"{article(colour)} {colour} {shape}" for colour, shape, _ in each] for each in names), strict=True)
    return tasks, [f"{a} and {b} {PLACES[ground]}" for (a, b), (_, _, ground) in zip(things, names[0], strict=True)]


def cases(count: int) -> Iterator[tuple[str, Case]]:
    one = scenes.task(count)
    yield "silhouette", of_one(one)
    yield "picture", of_one(one, pictures=[repainted(count)])
    yield "mask", of_one(one, masks=[one.masks[:, None]])
    for name, sampling in FEW.items():
        yield name, of_one(one, sampling=sampling)
    for name, size in WIDE.items():
        task = wide(one, size)
        yield f"wide {name}", of_one(task, sampling={"cells": (size[0] // 8, size[1] // 8)})
    for name, drawn in (("sketch", strokes.sketches(one.masks)), ("sticks", strokes.sticks(one.masks))):
        yield name, of_one(replace(one, masks=strokes.hulls(drawn)), pictures=[strokes.pictures(drawn)])
    tasks, prompts = pairs(count)
    both = [f"{a} and {b}" for a, b in zip(*map(shapes, tasks), strict=True)]
    yield "two", Case(tasks, prompts, [silhouette(torch.stack([task.masks for task in tasks]).sum(0))], [both])
    each = [silhouette(task.masks) for task in tasks]
    yield "chain", Case(tasks, prompts, each, [shapes(task) for task in tasks], [task.masks[:, None] for task in tasks])


@dataclass(frozen=True)
class Outcome:
    """Pictures, and of each object a verdict on them."""

    case: Case
    plain: Tensor
    drawn: Tensor
    before: list[scenes.Verdict]
    now: list[scenes.Verdict]

    def row(self, name: str) -> tuple[str, list[Tensor]]:
        """Of a sheet: the first conditions, each with what is drawn without and with it."""
        plain, drawn = (pictures.movedim(1, -1) for pictures in (self.plain, self.drawn))
        shown = [(self.case.pictures[0][i], plain[i], drawn[i]) for i in range(SHOWN)]
        return name.replace("_", " "), [cell for each in shown for cell in each]


def outcome(bench: Bench, case: Case, setting: Setting) -> Outcome:
    model = bench.model
    for i, pictures in enumerate(case.pictures):
        model = bench.following(model, pictures, case.subjects[i], setting, case.masks[i] if case.masks else None)
    plain, drawn = (bench.draw(m, case.prompts, **case.sampling) for m in (bench.model, model))

    def verdicts(pictures: Tensor) -> list[scenes.Verdict]:
        return [scenes.judge(bench.network, pictures, plain, task, task.masks) for task in case.tasks]

    return Outcome(case, plain, drawn, verdicts(plain), verdicts(drawn))


@torch.inference_mode()
def measure(count: int, only: Sequence[str] = (), page: Path | None = None) -> dict[str, float]:
    """only: names of rows; all of them without. page: where a sheet of SHEET goes."""
    bench = Bench(count)
    figures: dict[str, float] = {}
    rows = []
    for name, case in cases(count):
        if only and name not in only:
            continue
        found = outcome(bench, case, Setting())
        for task, now, before in zip(case.tasks, found.now, found.before, strict=True):
            sys.stderr.write(f"{name:14s} of {len(task.names)}: {asdict(now)}; unsteered {asdict(before)}\n")
        figures[f"iou_{name}"] = min(verdict.overlap for verdict in found.now)
        figures[f"behind_{name}"] = max(verdict.behind for verdict in found.now)
        figures[f"texture_{name}"] = min(verdict.texture for verdict in found.now)
        figures[f"prompt_ratio_{name}"] = sum(v.prompt_right for v in found.now) / max(sum(v.prompt_right for v in found.before), 1e-6)
        if name in SHEET:
            rows.append(found.row(name))
    if page is not None:
        to_image(sheet(rows, ["condition", "unsteered", "steered"] * SHOWN)).save(page, quality=90)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="rows, by name")
    parser.add_argument("--sheet", type=Path, help="a JPEG to write, of some rows")
    options = parser.parse_args()
    figures = measure(8 if options.quick else 48, options.only, options.sheet)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
