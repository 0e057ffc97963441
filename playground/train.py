"""Makes the playground's weights anew from a seed: `python run.py train`. Two hours on two cores for pictures; for clips about four
more, with --compile.

Stages: the autoencoder, then UNet and text encoder on its latents, the referees of pictures and of clips, the text encoder of clips, both
video models, and a report: curves and samples. Stopped at any time, the same command goes on where it was: each stage has its state, and a
picture of its curves, in a folder of `playground/runs/`. `--steps 20` tries every stage for 20 steps, in a folder apart.

What comes with the pack is not quite what this makes. The weights of pictures drew other random numbers, and their diffusion stage went
twice to its end: 1800 steps with the pixels of objects counting as much as others, and then resumed with the settings of today. Those
of the video transformer went to step 10000 of as many, on from there to 12500, all at one shift, and on to 18000; the video U-Net was
taught by those of step 12500.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..training.loop import RunError
from ..training.settings import Line
from . import report
from .consistency import train as consistency
from .image import models, train_diffusion, train_vae
from .land import train as land
from .referee import referee, train_referee
from .video_dit import models as video_dit
from .video_dit import train as video_dit_train
from .video_unet import models as video_unet
from .video_unet import train as video_unet_train
from .video_words import models as video_words
from .video_words import train as video_words_train
from .weights import save_compact

HERE = Path(__file__).parent
STEPS = {
    "vae": 1000, "diffusion": 4000, "referee": 2000, "clip_referee": 3000, "video_words": 1500, "video_dit": 24000, "video_unet": 4000,
    **consistency.STEPS, **land.STEPS,
}  # fmt: skip
VIDEO = {"video_dit": (video_dit, video_dit_train), "video_unet": (video_unet, video_unet_train)}
STAGES = (*STEPS, "report")


def run(stage: str, steps: int, runs: Path, out: Path, seed: int, device: torch.device, compiled: bool) -> None:
    """Trains one stage and writes the file of weights that it completes; video models on `device`, and compiled if asked for: others are
    too small for that."""
    parts = {name: runs / name / "weights.safetensors" for name in ("vae", "diffusion")}
    watch = Line(stage)
    if stage == "vae":
        save_file(train_vae.train(runs / stage, steps, seed, watch), parts[stage])
    elif stage == "diffusion":
        if not parts["vae"].exists():
            raise RunError(f"The stage diffusion works on the latents of the stage vae, which has not left {parts['vae']} yet.")
        vae = load_file(parts["vae"])
        save_file(train_diffusion.train(models.build_vae(vae), runs / stage, steps, seed, watch), parts[stage])
    elif stage == "referee":
        weights = train_referee.train(models.load()[2], runs / stage, steps, seed, watch)
        save_compact(weights, out / "referee" / referee.WEIGHTS.name)
    elif stage == "clip_referee":
        weights = train_referee.train_on_clips(models.load()[2], runs / stage, steps, seed, watch)
        save_compact(weights, out / "referee" / referee.CLIP_WEIGHTS.name)
    elif stage == "video_words":
        save_compact(video_words_train.train(runs / stage, steps, seed, watch), out / stage / video_words.WEIGHTS.name)
    elif stage in VIDEO:
        if stage == "video_unet" and not video_dit.WEIGHTS.exists():
            raise RunError("The stage video_unet is taught by what the stage video_dit leaves, and that has not been to its end yet.")
        network, trainer = VIDEO[stage]
        weights = trainer.train(models.load()[2], runs / stage, steps, seed, watch, device, compiled)
        save_compact(weights, out / stage / network.WEIGHTS.name)
    elif stage in consistency.STEPS:
        consistency.run(stage, steps, runs / stage.replace(" ", "_"), out / "consistency", seed, watch)
    elif stage in land.STEPS:
        land.run(stage, steps, runs / stage, out / "land", seed, watch)
    else:
        report.write(runs, out)
    if stage in parts and all(part.exists() for part in parts.values()):
        autoencoder = {f"vae.{name}": weight for name, weight in load_file(parts["vae"]).items()}
        save_compact({**load_file(parts["diffusion"]), **autoencoder}, out / "image" / models.WEIGHTS.name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--steps", type=int, help="of each stage, to try them: all files then lie in a folder of such trials")
    parser.add_argument("--runs", type=Path, help="where unfinished training is kept")
    parser.add_argument("--out", type=Path, help="where the weights go, in a folder for each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what trains the video models")
    parser.add_argument("--compile", action="store_true", help="video models on a CPU: half as fast again, where there is a C++ compiler")
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps is {options.steps}, and should be 1 or more")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, and torch finds no GPU here: leave it out to train on the CPU")
    trial = options.steps is not None
    runs = options.runs or HERE / "runs" / (f"{options.steps}-steps" if trial else "")
    out = options.out or (runs if trial else HERE)
    torch.set_num_threads(options.threads)
    try:
        for stage in options.stages:
            steps = options.steps or STEPS.get(stage, 0)
            run(stage, steps, runs, out, options.seed, torch.device(options.device), options.compile)
    except RunError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(f"Stopped. What was done is kept in {runs}: the same command goes on from there.")


if __name__ == "__main__":
    main()
