"""Makes the playground's weights again from a seed: `python run.py train`. About two hours on two cores; resumable.

Stages: the autoencoder, then UNet and text encoder on its latents, and the referee. Each is saved every few hundred steps
under `playground/runs/`. (The diffusion weights that come with the pack were trained in two goes: 1800 steps to the end, with
the pixels of objects counting as much as others, and then resumed with the settings of today.)
"""

import argparse
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .image import models, train_diffusion, train_vae
from .referee import referee, train_referee

RUNS = Path(__file__).parent / "runs"
STAGES = ("vae", "diffusion", "referee")
STEPS = {"vae": 1000, "diffusion": 4000, "referee": 2000}


def save(weights: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in weights.items()}, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where unfinished training is kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the weights go, in a folder for each model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    torch.set_num_threads(2)
    for stage in options.stages:
        run(stage, options.runs, options.out, options.seed)


def run(stage: str, runs: Path, out: Path, seed: int) -> None:
    parts = {name: runs / f"{name}.safetensors" for name in ("vae", "diffusion")}
    steps = STEPS[stage]
    if stage == "vae":
        save_file(train_vae.train(runs / "vae", steps, seed), parts["vae"])
    elif stage == "diffusion":
        vae = models.build_vae(load_file(parts["vae"]))
        save_file(train_diffusion.train(vae, runs / "diffusion", steps, seed=seed), parts["diffusion"])
    else:
        save(train_referee.train(runs / "referee", steps, seed), out / "referee" / referee.WEIGHTS.name)
    if parts["diffusion"].exists():
        autoencoder = {f"vae.{k}": v for k, v in load_file(parts["vae"]).items()}
        save({**load_file(parts["diffusion"]), **autoencoder}, out / "image" / models.WEIGHTS.name)


if __name__ == "__main__":
    main()
