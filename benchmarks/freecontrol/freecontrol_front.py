"""The front of overlap and leak: what each part of FreeControl does to both. `python run.py bench freecontrol_front`.

Also draws `docs/freecontrol_front.png`, every setting as a point, and `docs/freecontrol_silhouette.jpg` and `_edge.jpg`, the
same pictures under each ablation, beside img2img. With --quick, from few pictures, and the drawings go to `output/`.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import comfy.sample
import matplotlib.figure
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..playground import scenes
from .freecontrol import Bench, Setting

ROOT = Path(__file__).resolve().parents[2]
PAPER = Setting(
    strength=2.5, end=0.6, appearance=0.2, components=64, method="inversion", levels=12, paper=True, shared=False, colourings=1,
    fill=False,
)  # fmt: skip
OURS = Setting()
FAMILIES = {
    "strength": {f"{s:g}": replace(OURS, strength=s) for s in (1.0, 2.0, 3.0, 4.0)},
    "end": {f"{e:g}": replace(OURS, end=e) for e in (0.3, 0.4, 0.6, 0.8)},
    "appearance": {f"{a:g}": replace(OURS, appearance=a) for a in (0.0, 0.4, 0.7)},
    "components": {f"{n}": replace(OURS, components=n) for n in (8, 16, 64)},
    "colourings": {f"{n}": replace(OURS, colourings=n) for n in (1, 3)},
    "mask": {"without background term": replace(OURS, background=0.0), "with it": replace(OURS, background=1.0)},
    "other": {
        "the paper's formula": replace(OURS, paper=True, appearance=0.2),
        "read at 12 levels": replace(OURS, levels=12),
        "a basis for each level": replace(OURS, levels=12, shared=False),
        "inversion": replace(OURS, method="inversion"),
        "coarse layers": replace(OURS, layers="coarse"),
        "fine layers": replace(OURS, layers="fine"),
        "the paper's": PAPER,
    },
}
ABLATIONS = {
    "ours": OURS,
    "inversion": replace(OURS, method="inversion"),
    "no appearance": replace(OURS, appearance=0.0),
    "mask": replace(OURS, background=1.0),
    "mask, no background": replace(OURS, background=0.0),
    "8 components": replace(OURS, components=8),
    "16 components": replace(OURS, components=16),
    "64 components": replace(OURS, components=64),
    "the paper's": PAPER,
}
SHOWN = 6  # pictures in the sheet of ablations
CELL = 128


def img2img(bench: Bench, kind: str, denoise: float) -> Tensor:
    """The stock way: the condition is noised, and painted over."""
    pictures = scenes.condition_images(bench.job, kind)
    latent = torch.cat([bench.vae.encode(part) for part in pictures.split(32)])
    noise = comfy.sample.prepare_noise(latent, 1)
    positive, negative = scenes.encode(bench.clip, bench.job.prompts), scenes.encode(bench.clip, [""])
    drawn = comfy.sample.sample(
        bench.model, noise, scenes.STEPS, scenes.CFG, scenes.SAMPLER, scenes.SCHEDULER, positive, negative, latent, denoise,
        disable_pbar=True, seed=1,
    )  # fmt: skip
    return scenes.decode(bench.vae, drawn)


def verdict(bench: Bench, kind: str, pictures: Tensor) -> scenes.Verdict:
    return scenes.judge(bench.network, pictures, bench.plain, bench.job, scenes.wanted_masks(bench.job, kind))


def plot(points: dict[str, dict[str, scenes.Verdict]], path: Path) -> None:
    """Overlap over leak; the settings of one family are one colour, and joined where they are a scale."""
    figure = matplotlib.figure.Figure((9, 6.5), layout="constrained")
    axes = figure.subplots()
    for family, cells in points.items():
        leaks, overlaps = [v.leak for v in cells.values()], [v.overlap for v in cells.values()]
        scale = family not in ("other", "mask", "")
        axes.plot(leaks, overlaps, "o-" if scale else "o", label=family or None, markersize=5, linewidth=0.8)
        for name, v in cells.items():
            axes.annotate(name, (v.leak, v.overlap), (4, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="leak (less is better)", ylabel="overlap with the condition (more is better)", title="FreeControl, silhouettes")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def sheet(bench: Bench, kind: str, drawn: dict[str, tuple[Tensor, scenes.Verdict]], path: Path) -> None:
    """A column for each way, with its overlap and leak above."""
    conditions = scenes.condition_images(bench.job, kind).movedim(-1, 1)
    columns = [("condition", "", conditions), ("unsteered", f"{verdict(bench, kind, bench.plain).overlap:.2f}", bench.plain)]
    columns += [(name, f"{v.overlap:.2f}, leak {v.leak:.3f}", pictures) for name, (pictures, v) in drawn.items()]
    page = Image.new("RGB", (len(columns) * (CELL + 4), SHOWN * (CELL + 4) + 34), "white")
    pen = ImageDraw.Draw(page)
    for i, (name, figures, pictures) in enumerate(columns):
        pen.text((i * (CELL + 4) + 2, 3), f"{name}\n{figures}", fill="black")
        for row, picture in enumerate(pictures[:SHOWN]):
            cell = Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy())
            page.paste(cell, (i * (CELL + 4), 34 + row * (CELL + 4)))
    page.save(path, quality=90)


@torch.inference_mode()
def measure(count: int, folder: Path) -> dict[str, float]:
    bench = Bench(count)

    @cache
    def steered(kind: str, setting: Setting) -> Tensor:
        return bench.draw(bench.guided(kind, setting))

    def cell(kind: str, setting: Setting) -> scenes.Verdict:
        found = verdict(bench, kind, steered(kind, setting))
        sys.stderr.write(f"{kind} {setting} {found}\n")
        return found

    points = {family: {name: cell("silhouette", s) for name, s in cells.items()} for family, cells in FAMILIES.items()}
    points[""] = {"ours": cell("silhouette", OURS)}
    plot(points, folder / "freecontrol_front.png")
    for kind in ("silhouette", "edge"):
        drawn = {name: steered(kind, setting) for name, setting in ABLATIONS.items()}
        drawn |= {f"img2img {denoise}": img2img(bench, kind, denoise) for denoise in (0.6, 0.8)}
        judged = {name: verdict(bench, kind, pictures) for name, pictures in drawn.items()}
        sheet(bench, kind, {name: (pictures, judged[name]) for name, pictures in drawn.items()}, folder / f"freecontrol_{kind}.jpg")
        points[kind] = judged
    return {
        f"{family} {name} {figure}".strip(): value
        for family, cells in points.items()
        for name, v in cells.items()
        for figure, value in (("overlap", v.overlap), ("leak", v.leak), ("prompt", v.prompt_right))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    folder = ROOT / ("output" if quick else "docs")
    folder.mkdir(exist_ok=True)
    figures = measure(2 if quick else 16, folder)
    sys.stderr.write(f"The drawings are in {folder}.\n")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
