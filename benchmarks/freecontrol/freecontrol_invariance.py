"""One setting at any number of steps and with any sampler: overlap for each. `python run.py bench freecontrol_invariance`."""

import argparse
import json

import torch

from .freecontrol import Bench, Setting

SAMPLERS = ("euler", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "heun", "uni_pc")
STEPS = (15, 30, 60)


@torch.inference_mode()
def measure(count: int) -> dict[str, float]:
    """Overlap by sampler and steps, and the distance of the largest to the smallest of them."""
    bench = Bench(count)
    guided = bench.guided("silhouette", Setting())
    cells = [(sampler, steps) for sampler in SAMPLERS for steps in STEPS]
    figures = {f"iou_{s}_{n}": bench.judge("silhouette", guided, steps=n, sampler=s).overlap for s, n in cells}
    return {**figures, "spread": max(figures.values()) - min(figures.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    figures = measure(2 if quick else 64)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
