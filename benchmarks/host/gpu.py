"""Guided steps of every family on a GPU, at true sizes and with random weights: time and memory. `run.py bench gpu`: about five minutes.

For each model that fits: seconds of a plain step (two rows, as with classifier-free guidance), what a guided step takes over that, with
the graph kept and with parts of the model computed twice; peaks of memory against what is counted beforehand; whether the gradient is
finite. Writes benchmarks/host/results/<card>.json. On a machine without a GPU, --small checks the bench itself on tiny models.
"""

import argparse
import gc
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...host.gradients import memory
from ...host.gradients.preparation import rewrap_weights
from ...host.models import families
from ...host.sampling.reading import Request
from .random_models import FULL_SIZE, Recipe, assemble, evaluate, guided_step, randomise, squared_keys

RESULTS = Path(__file__).parent / "results"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
ON_A_CPU = {"fp32": torch.float32}  # its half precision is slower by far
REPEATS = 3


@dataclass(frozen=True)
class Card:
    """Where it runs. name: for the file of results."""

    device: torch.device
    name: str

    def peak(self, run: Callable[[], Tensor]) -> tuple[float, float]:
        """Seconds of the quickest of some runs, and the peak of memory in GB of 10^9 bytes (0 on a CPU)."""
        cuda = self.device.type == "cuda"
        run()
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        found = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            run()
            if cuda:
                torch.cuda.synchronize(self.device)
            found.append(time.perf_counter() - start)
        return min(found), torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else 0.0


def measure(recipe: Recipe, dtype: torch.dtype, card: Card) -> dict[str, float | str | bool]:
    """Every figure of one model in one precision; a sentence where it does not fit."""
    try:
        model = assemble(recipe, dtype, device=str(card.device), load=randomise)
        model.model.requires_grad_(False)
        rewrap_weights(model.model)
        return _figures(model, recipe, card)
    except torch.cuda.OutOfMemoryError:
        return {"refused": "out of memory"}


def _figures(model: ModelPatcher, recipe: Recipe, card: Card) -> dict[str, float | str | bool]:
    points = families.structure_points(model)
    x = torch.randn(1, *recipe.latent, generator=torch.Generator().manual_seed(0)).to(card.device)
    text = recipe.conditioning

    def plain() -> Tensor:
        return evaluate(model, x, text)[0] + evaluate(model, x, text)[0]

    with torch.no_grad():
        seconds, plain_peak = card.peak(plain)
        kept, kept_peak = card.peak(lambda: guided_step(model, points, x, text))
        recomputed, recomputed_peak = card.peak(lambda: guided_step(model, points, x, text, recompute=True))
        _, readout = evaluate(model, x, text, Request(x.shape, points, squared_keys))
    counted = memory.footprint(model, points, x.shape)
    gradient = readout.gradients[0]
    return {
        "seconds_plain": round(seconds, 4), "ratio": round(kept / seconds, 3), "ratio_recomputed": round(recomputed / seconds, 3),
        "peak_plain_gb": round(plain_peak, 2), "peak_gb": round(kept_peak, 2), "peak_recomputed_gb": round(recomputed_peak, 2),
        "graph_counted_gb": round(counted.whole / 1e9, 2), "finite": bool(gradient.isfinite().all()) and bool(gradient.any()),
    }  # fmt: skip


def small(recipe: Recipe) -> Recipe:
    """The same family with few channels and cells."""
    fewer = {
        "model_channels": 64, "depth": 2, "depth_single_blocks": 1, "num_layers": 2, "transformer_depth_middle": 1,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
    }  # fmt: skip
    front = recipe.latent[:-2]
    return replace(recipe, unet={**recipe.unet, **{k: v for k, v in fewer.items() if k in recipe.unet}}, latent=(*front, 16, 16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=FULL_SIZE, default=list(FULL_SIZE))
    parser.add_argument("--small", action="store_true", help="tiny models, on any device: checks the bench")
    options = parser.parse_args()
    device = torch.device("cuda") if torch.cuda.is_available() else comfy.model_management.get_torch_device()
    if device.type == "cpu" and not options.small:
        raise SystemExit("There is no GPU here: run `bench full_size`, which measures on the CPU, or check this bench with --small.")
    card = Card(device, torch.cuda.get_device_name(device) if device.type == "cuda" else device.type)
    figures: dict[str, dict] = {}
    for name in options.models:
        for kind, dtype in (ON_A_CPU if device.type == "cpu" else DTYPES).items():
            recipe = small(FULL_SIZE[name]) if options.small else FULL_SIZE[name]
            figures[f"{name} {kind}"] = found = measure(recipe, dtype, card)
            sys.stderr.write(f"{name} {kind}: {found}\n")
            gc.collect()
            comfy.model_management.soft_empty_cache(True)
    result = {"card": card.name, "torch": torch.__version__, "figures": figures}
    if not options.small:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{re.sub('[^a-z0-9]+', '_', card.name.lower())}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
