"""A small training that a test can stop by signals: `python small_run.py FOLDER STEPS STEP` waits after STEP for a line of input."""

import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor, nn


def network() -> nn.Sequential:
    """Something with all that a state has to hold: dropout, and a buffer that is no weight."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def numbers(step: int, generator: torch.Generator) -> Tensor:
    return torch.randn(8, 6, generator=generator)


def error(module: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    missed = (module(batch) - batch[:, :2].sin()).abs()
    return missed.square().mean(), {"most": missed.max()}


def main(folder: str, steps: str, waits_at: str) -> None:
    from freesteer.training.loop import Run
    from freesteer.training.settings import Settings

    torch.set_num_threads(1)
    module = network()
    run = Run(module, Settings(int(steps), 1e-2, seed=3, warm_up=10, save_every=7), Path(folder))

    def watch(progress) -> None:
        if progress.step == int(waits_at):
            print("waiting", flush=True)
            input()

    run.go(numbers, lambda batch: error(module, batch), watch)


if __name__ == "__main__":
    tools = Path(__file__).parents[2] / "tools" / "load_pack.py"
    spec = importlib.util.spec_from_file_location("load_pack", tools)
    assert spec is not None and spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    loader.load_pack()
    main(*sys.argv[1:])
