"""What the training left to look at: its curves and a sheet of samples. `python run.py train --stages report`."""

from pathlib import Path
from typing import Any

import comfy.sample
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..training import curves
from ..training.files import STATE, load_history
from .image import models

PROMPTS = (
    "a red star on grass", "a blue ball on sand", "a yellow heart on water", "a white moon in the night",
    "a black ring on ice", "a green cross on wood", "a purple triangle on stone", "an orange square on bricks",
    "a small red heart on ice", "a big blue star on wood", "a photo of a white cross on bricks", "a picture of a green ball in the night",
    "a red ball and a blue square on sand", "a yellow star and a purple ring on water", "a white heart with a black moon on stone",
    "a green triangle left of an orange ball on ice", "a red cross above a white ring in the night",
    "a blue heart and a yellow cross on grass", "a black square, a red ring and a blue star on sand",
    "a purple moon, a green heart and a white ball on bricks",
)  # fmt: skip
CURVES = {"vae": "psnr", "diffusion": "noise", "referee": "loss"}  # of each stage


@torch.inference_mode()
def samples(weights: Path) -> Tensor:
    """(B, 3, 128, 128): one picture for each of PROMPTS, by the stock KSampler's default way."""
    model, clip, vae = models.load(weights)
    encoded: Any = [clip.encode_from_tokens(clip.tokenize(p)) for p in PROMPTS]
    positive = [[torch.cat(encoded), {}]]
    negative = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
    latent = torch.zeros(len(PROMPTS), 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, 0)
    drawn = comfy.sample.sample(model, noise, 25, 4.0, "dpmpp_2m", "normal", positive, negative, latent, disable_pbar=True, seed=0)
    return vae.decode(drawn).movedim(-1, 1)


def sheet(pictures: Tensor, columns: int = 4, size: int = 224, line: int = 18) -> Image.Image:
    """The samples with their prompts, each `size` pixels wide under a `line` of text."""
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (size + 8), rows * (size + line + 8)), "white")
    pen = ImageDraw.Draw(page)
    for i, (picture, prompt) in enumerate(zip(pictures, PROMPTS, strict=True)):
        left, top = (i % columns) * (size + 8), (i // columns) * (size + line + 8)
        drawn = Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy())
        page.paste(drawn.resize((size, size), Image.Resampling.LANCZOS), (left, top + line))
        pen.text((left, top + 3), prompt[:40], fill="black")
    return page


def write(runs: Path, out: Path) -> None:
    """The curves of the stages in `runs`, and samples of the model in `out`, put beside the model."""
    folder = out / models.WEIGHTS.parent.name
    found = {f"{stage}: {figure}": runs / stage for stage, figure in CURVES.items() if (runs / stage / STATE).exists()}
    histories = {title: load_history(place)[CURVES[place.name]] for title, place in found.items()}
    if histories:
        curves.draw(histories).save(folder / "training.png")
    sheet(samples(folder / models.WEIGHTS.name)).save(folder / "samples.jpg", quality=88)
