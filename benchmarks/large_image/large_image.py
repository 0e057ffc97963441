"""Pictures larger than the model knows, by a grid of prompts. `python run.py bench large_image`.

Rows of four prompts of one object each, 512 x 128 on the image playground. `row_right`: the share of cells whose crop shows its object and
its ground, by the referee; `objects`: how many it sees in a cell; the same with the nearest prompt for each window, and with all four
prompts in one for all windows (MultiDiffusion); `time_ratio`: over the time of as many pictures as there are windows.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ...core import windows
from ...host.sampling.windowed import Windowing
from ...nodes.common.previews import to_image
from ...playground.image import models
from ...playground.referee import referee
from ...recipes.large_image import grid as recipe
from ..playground import scenes
from ..playground.playground import outcome, prompts

CELLS, CELL = 4, 16  # of a row, and latent pixels of each
STRIDE = 4
SEED = 1  # of the prompts


@dataclass(frozen=True)
class Way:
    between: str = "slerp"
    stride: int = STRIDE
    blending: str = "gaussian"
    one_prompt: bool = False


WAYS = {
    "": Way(),
    "nearest": Way("nearest"),
    "one_prompt": Way(one_prompt=True),
    "uniform": Way(blending="uniform"),
    "coarse": Way(stride=8),
}


class Bench:
    def __init__(self) -> None:
        self.model, self.clip, self.vae = models.load()
        self.network = referee.load()

    def encoded(self, text: str) -> tuple[Tensor, dict[str, Any]]:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))[0]

    def row(self, texts: list[str], way: Way, seed: int) -> Tensor:
        """(3, H, W) of a row of prompts."""
        return scenes.decode(self.vae, self.latent(texts, way, seed))[0]

    def latent(self, texts: list[str], way: Way, seed: int) -> Tensor:
        if way.one_prompt:
            texts = [", ".join(texts)]
        grid = recipe.Grid((tuple(self.encoded(text) for text in texts),), (tuple(texts),))
        windowing = Windowing((CELL, CELL), (way.stride, way.stride), blending=way.blending)
        model = recipe.attach(self.model, windowing, way.between)
        latent = torch.zeros(1, 4, CELL, CELLS * CELL)
        noise, negative = comfy.sample.prepare_noise(latent, seed), [list(self.encoded(""))]
        return comfy.sample.sample(
            model, noise, scenes.STEPS, scenes.CFG, scenes.SAMPLER, scenes.SCHEDULER, grid.conditioning(), negative, latent,
            disable_pbar=True, seed=seed,
        )  # fmt: skip


@torch.inference_mode()
def measure(rows: int, ways: list[str], page: Path | None) -> dict[str, float]:
    bench = Bench()
    jobs = prompts(CELLS * rows, 1, SEED)
    figures = {}
    for name in ways:
        ending = f"_{name}" if name else ""
        started = time.perf_counter()
        pictures = [bench.row([text for text, _, _ in jobs[CELLS * i : CELLS * (i + 1)]], WAYS[name], 100 + i) for i in range(rows)]
        seconds = time.perf_counter() - started
        cells = torch.cat([torch.stack(picture.chunk(CELLS, 2)) for picture in pictures])
        seen = referee.look(bench.network, cells)
        right = [outcome(s, names, ground) == "right" for s, (_, names, ground) in zip(seen, jobs, strict=True)]
        figures[f"row_right{ending}"] = sum(right) / len(right)
        figures[f"objects{ending}"] = sum(len(s.objects) for s in seen) / len(seen)
        figures[f"seconds{ending}"] = seconds / rows
        sys.stderr.write(f"{name or 'ours'}: {figures}\n")
        if page is not None and not name:
            to_image(torch.cat([picture.movedim(0, -1) for picture in pictures[:8]])).save(page, quality=90)
    return figures


@torch.inference_mode()
def time_ratio() -> float:
    """Of a row, over as many pictures of one window as it has windows, in batches alike."""
    bench, texts = Bench(), [text for text, _, _ in prompts(CELLS, 1, SEED)]
    count = len(windows.places((CELL, CELLS * CELL), (CELL, CELL), (STRIDE, STRIDE), (False, False)))
    pair = []
    for draw in (lambda: bench.latent(texts, Way(), 1), lambda: scenes.sample(bench.model, bench.clip, [texts[0]] * count, 1)):
        draw()
        started = time.perf_counter()
        draw()
        pair.append(time.perf_counter() - started)
    return pair[0] / pair[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ways", nargs="+", default=["", "nearest", "one_prompt"], help="of " + ", ".join(WAYS))
    parser.add_argument("--sheet", type=Path, help="a JPEG to write, of the first rows")
    options = parser.parse_args()
    figures = measure(4 if options.quick else 32, options.ways, options.sheet)
    figures["time_ratio"] = time_ratio()
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
