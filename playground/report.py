"""What the training left to look at: the loss curves and a sheet of samples. `python tools/inside.py playground.report`."""

import argparse
import json
from pathlib import Path
from typing import Any

import comfy.sample
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .image import models
from .train import RUNS

PROMPTS = (
    "a red star on grass", "a blue ball on sand", "a yellow heart on water", "a white moon in the night",
    "a black ring on ice", "a green cross on wood", "a purple triangle on stone", "an orange square on bricks",
    "a small red heart on ice", "a big blue star on wood", "a photo of a white cross on bricks", "a picture of a green ball in the night",
    "a red ball and a blue square on sand", "a yellow star and a purple ring on water", "a white heart with a black moon on stone",
    "a green triangle left of an orange ball on ice", "a red cross above a white ring in the night",
    "a blue heart and a yellow cross on grass", "a black square, a red ring and a blue star on sand",
    "a purple moon, a green heart and a white ball on bricks",
)  # fmt: skip
CURVES = {"vae": "psnr", "diffusion": "noise", "referee": "loss"}


@torch.inference_mode()
def samples() -> Tensor:
    """(B, 3, 128, 128): one picture for each of PROMPTS, by the stock KSampler's default way."""
    model, clip, vae = models.load()
    encoded: Any = [clip.encode_from_tokens(clip.tokenize(p)) for p in PROMPTS]
    positive = [[torch.cat(encoded), {}]]
    negative = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
    latent = torch.zeros(len(PROMPTS), 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, 0)
    drawn = comfy.sample.sample(model, noise, 25, 4.0, "dpmpp_2m", "normal", positive, negative, latent, disable_pbar=True, seed=0)
    return vae.decode(drawn).movedim(-1, 1)


def sheet(pictures: Tensor, columns: int = 4, size: int = 224, line: int = 18) -> Image.Image:
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (size + 8), rows * (size + line + 8)), "white")
    pen = ImageDraw.Draw(page)
    for i, (picture, prompt) in enumerate(zip(pictures, PROMPTS, strict=True)):
        left, top = (i % columns) * (size + 8), (i // columns) * (size + line + 8)
        drawn = Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy())
        page.paste(drawn.resize((size, size), Image.Resampling.LANCZOS), (left, top + line))
        pen.text((left, top + 3), prompt[:40], fill="black")
    return page


def curves(runs: Path, width: int = 900, height: int = 220) -> Image.Image:
    """One panel a network, from the logs of its training."""
    page = Image.new("RGB", (width, height * len(CURVES)), "white")
    pen = ImageDraw.Draw(page)
    for panel, (name, figure) in enumerate(CURVES.items()):
        log = json.loads((runs / name / "log.json").read_text())
        steps, values = [e["step"] for e in log], [e[figure] for e in log]
        low, high = min(values), max(values)
        top = panel * height + 30
        points = [
            (60 + (width - 80) * s / steps[-1], top + (height - 60) * (high - v) / (high - low)) for s, v in zip(steps, values, strict=True)
        ]
        pen.text((60, top - 22), f"{name}: {figure}, {steps[-1]} steps, last {values[-1]:.4g}", fill="black")
        pen.line([(60, top), (60, top + height - 60), (width - 20, top + height - 60)], fill="grey")
        pen.text((4, top), f"{high:.3g}", fill="grey")
        pen.text((4, top + height - 72), f"{low:.3g}", fill="grey")
        pen.line(points, fill="#2060c0", width=2)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    curves(options.runs).save(models.WEIGHTS.with_name("training.png"))
    sheet(samples()).save(models.WEIGHTS.with_name("samples.jpg"), quality=88)


if __name__ == "__main__":
    main()
