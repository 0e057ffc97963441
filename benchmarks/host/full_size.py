"""One guided step of SD 1.5 (fp32) and SDXL (bf16) at their true size, with random weights, on this CPU. `run.py bench full_size`.

For each: seconds of a plain step (two rows, as with classifier-free guidance), what a guided one takes over
that, and the peak of memory as the system measures it against what fake tensors count.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from ...host.gradients.preparation import rewrap_weights
from ...host.models import families
from .guided_memory import guided_step_bytes, torch_attention
from .random_models import FULL_SIZE, assemble, evaluate, guided_step, randomise

MODELS = {"SD 1.5": torch.float32, "SDXL": torch.bfloat16}
CELLS = 64  # of 8 pixels, on each side
EVERY = 0.005  # seconds between two looks at the memory


@contextmanager
def resident_peak() -> Iterator[Callable[[], int]]:
    """Bytes that this process holds at most, the system's count, until the block ends."""
    process, seen, ended = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY):
            seen[0] = max(seen[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(name: str, recompute: bool) -> dict[str, float]:
    recipe = replace(FULL_SIZE[name], latent=(4, CELLS, CELLS))
    before = psutil.Process().memory_info().rss
    model = assemble(recipe, MODELS[name], load=randomise)
    model.model.requires_grad_(False)
    rewrap_weights(model.model)
    points, x = families.structure_points(model), torch.randn(1, *recipe.latent, generator=torch.Generator().manual_seed(0))

    def plain() -> Tensor:
        return evaluate(model, x, recipe.conditioning)[0] + evaluate(model, x, recipe.conditioning)[0]

    with torch.no_grad(), torch_attention(model):
        plain()  # what is made once is not a step's
        ordinary = seconds(plain)
        with resident_peak() as peak:
            guided = seconds(lambda: guided_step(model, points, x, recipe.conditioning, recompute))
    counted = guided_step_bytes(recipe, MODELS[name], recompute)
    measured = peak() - before
    return {
        "seconds_plain": ordinary, "ratio": guided / ordinary, "measured_gb": measured / 1e9, "counted_gb": counted / 1e9,
        "measured_over_counted": measured / counted,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--recompute", action="store_true", help="parts of the model are computed twice")
    options = parser.parse_args()
    figures = {}
    for name in options.models:
        figures[name] = {key: round(value, 3) for key, value in measure(name, options.recompute).items()}
        sys.stderr.write(f"{name}: {figures[name]}\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
