"""FreeControl on the playground, judged by the referee, and what it costs. `python run.py bench freecontrol`.

Overlap is the IoU of the prompted object's mask in the picture with the condition's mask; leak the mean absolute difference
(0..1) of the background's mean colour to the unsteered sibling of the same noise. Held-out shapes, places and prompts.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ...core.freecontrol import line_art
from ...host.models import families
from ...playground.image import models
from ...playground.referee import referee
from ...playground.world.conditions import KINDS
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.guide import GuideSettings
from ...recipes.freecontrol.steps import BasisSettings, ReadingSettings
from ..playground import scenes
from . import freecontrol_costs

BASIS, READING, GUIDE = BasisSettings(), ReadingSettings(), GuideSettings()


@dataclass(frozen=True)
class Setting:
    """What is varied; the defaults are the nodes' own."""

    strength: float = GUIDE.strength
    end: float = GUIDE.end
    appearance: float = GUIDE.appearance
    components: int = BASIS.components
    method: str = READING.method
    levels: int = READING.levels
    paper: bool = False
    layers: families.Choice = "default"
    shared: bool = BASIS.shared
    colourings: int = READING.colourings
    fill: bool = True
    background: float | None = None  # None: without a mask


class Bench:
    """The model, its bases and the unsteered pictures, made once."""

    def __init__(self, count: int):
        self.model, self.clip, self.vae = models.load()
        self.network = referee.load()
        self.job = scenes.task(count)
        self.bases: dict[tuple, recipe.Basis] = {}
        self.plain = self.draw(self.model)

    def draw(self, model, prompts: list[str] | None = None, **sampling) -> Tensor:
        return scenes.decode(self.vae, scenes.sample(model, self.clip, prompts or self.job.prompts, seed=1, **sampling))

    def basis(self, setting: Setting, cells: tuple[int, int] = scenes.CELLS) -> recipe.Basis:
        """From seed pictures of other prompts than those that are drawn."""
        key = setting.layers, setting.shared, cells
        if key not in self.bases:
            prompts = scenes.task(BASIS.seed_images, seed=7).prompts
            settings = replace(BASIS, components=64, layers=setting.layers, shared=setting.shared, seed=3)
            self.bases[key] = recipe.build_basis(
                self.model, [scenes.encode(self.clip, prompts)], scenes.encode(self.clip, [""]), torch.zeros(1, 4, *cells),
                settings, batch=BASIS.seed_images,
            )  # fmt: skip
        return self.bases[key].leading(setting.components)

    def guided(self, kind: str, setting: Setting):
        """The steered MODEL."""
        mask = None if setting.background is None else scenes.wanted_masks(self.job, kind)[:, None]
        shapes = [f"a {shape}" for _, shape, _ in self.job.names]
        return self.following(self.model, scenes.condition_images(self.job, kind), shapes, setting, mask)

    def following(self, model, pictures: Tensor, subjects: list[str], setting: Setting, mask: Tensor | None = None):
        """`model`, steered by pictures (B, H, W, 3) of subjects; mask: (B, 1, H, W)."""
        cells = pictures.shape[1] // 8, pictures.shape[2] // 8
        basis = self.basis(setting, cells)
        pictures = line_art.fill(pictures) if setting.fill else pictures
        what = scenes.encode(self.clip, subjects)
        structure = recipe.read_condition(
            self.model, basis, self.vae, pictures, cells, what, ReadingSettings(setting.method, setting.levels, setting.colourings), mask
        )
        points = [p for p in families.structure_points(self.model, "all decoder") if p.name in basis.layers]
        background = GUIDE.background if setting.background is None else setting.background
        settings = replace(
            GUIDE, strength=setting.strength, end=setting.end, background=background, appearance=setting.appearance, paper=setting.paper
        )
        return recipe.guide(model, structure, points, settings)

    def cell(self, kind: str, setting: Setting) -> scenes.Verdict:
        return self.judge(kind, self.guided(kind, setting))

    def judge(self, kind: str, guided, **sampling) -> scenes.Verdict:
        started = time.perf_counter()
        pictures = self.draw(guided, **sampling)
        verdict = scenes.judge(self.network, pictures, self.plain, self.job, scenes.wanted_masks(self.job, kind))
        sys.stderr.write(f"{kind:10s} {sampling or ''} {asdict(verdict)} {time.perf_counter() - started:.0f} s\n")
        return verdict


@torch.inference_mode()
def quality(count: int) -> dict[str, float]:
    bench = Bench(count)
    plain = scenes.judge(bench.network, bench.plain, bench.plain, bench.job, bench.job.masks)
    cells = {kind: bench.cell(kind, Setting()) for kind in KINDS}
    bare = bench.cell("silhouette", replace(Setting(), appearance=0.0))
    figures = {f"iou_{kind}": cell.overlap for kind, cell in cells.items()}
    return {
        **figures,
        "iou_plain": plain.overlap,
        "leak": max(cell.leak for cell in cells.values()),
        "leak_silhouette": cells["silhouette"].leak,
        "leak_no_appearance": bare.leak,
        "prompt_ratio": sum(cell.prompt_right for cell in cells.values()) / len(cells) / plain.prompt_right,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    figures = {**quality(12 if quick else 160), **freecontrol_costs.measure(quick)}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
