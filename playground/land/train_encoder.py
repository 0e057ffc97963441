"""Teaches the land's encoder by VICReg on pairs of windows that overlap, and measures what its vectors tell by a linear probe."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...training.initialise import initialise
from ...training.loop import Run, Watch
from ...training.settings import Settings
from . import land
from .encoder import WIDTH, Encoder, vicreg

LANDS, SIDE = 48, 512  # that are drawn to learn from, and their size
WINDOW, APART = 128, 40  # pixels; two windows of a pair lie up to so far from each other
BATCH = 48
STANDARD = 1000  # windows, over which vectors have mean 0 and variance 1
EXPANDED = 384  # numbers of the vectors that the loss compares
HELD_OUT = 2 * 10**9  # seeds from here on are never trained on


class Places(NamedTuple):
    """Of windows: of which land, and where (B)."""

    which: Tensor
    top: Tensor
    left: Tensor


def lands(count: int, seed: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Pictures (count, 3, side, side) as bytes, and kinds (count, side, side)."""
    drawn = [land.draw((side, side), torch.Generator().manual_seed(seed + i)) for i in range(count)]
    return torch.stack([(255 * each.picture).round().to(torch.uint8) for each in drawn]), torch.stack([each.kinds for each in drawn])


def windows(values: Tensor, places: Places, side: int = WINDOW) -> Tensor:
    """Windows (B, ..., side, side) of lands (N, ..., H, W), which go on beyond the rim."""
    which, top, left = places
    rows = (top[:, None] + torch.arange(side)) % values.shape[-2]
    columns = (left[:, None] + torch.arange(side)) % values.shape[-1]
    found = values.movedim((-2, -1), (1, 2))[which[:, None, None], rows[:, :, None], columns[:, None]]
    return found.movedim((1, 2), (-2, -1))


def somewhere(count: int, of: Tensor, generator: torch.Generator) -> Places:
    return Places(*(torch.randint(0, most, (count,), generator=generator) for most in (len(of), *of.shape[-2:])))


def some(places: Places, start: int, count: int) -> Places:
    return Places(*(each[start : start + count] for each in places))


def augmented(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, mirrored, lighter or darker: none of it changes what a window shows."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(picture), 3, 1, 1, generator=generator)

    if torch.rand((), generator=generator) < 0.5:
        picture = picture.transpose(-1, -2)
    for axis in (-1, -2):
        flipped = torch.rand(len(picture), 1, 1, 1, generator=generator) < 0.5
        picture = torch.where(flipped, picture.flip(axis), picture)
    return (picture * uniform(0.9, 1.1) + uniform(-0.05, 0.05)).clamp(0, 1)


def pair(pictures: Tensor, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    first = somewhere(BATCH, pictures, generator)
    down, across = torch.randint(-APART, APART + 1, (2, BATCH), generator=generator)
    second = Places(first.which, first.top + down, first.left + across)
    views = (windows(pictures, places).float() / 255 for places in (first, second))
    one, other = (augmented(view, generator) for view in views)
    return one, other


def train(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights."""
    torch.manual_seed(seed)
    encoder = Encoder()
    initialise(encoder)
    expander = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, EXPANDED), nn.SiLU(), nn.Linear(EXPANDED, EXPANDED))
    whole = nn.ModuleDict({"encoder": encoder, "expander": expander})

    def loss(views: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        one, other = expander(encoder(torch.cat(views))).float().chunk(2)
        return vicreg(one, other)

    pictures, _ = lands(LANDS, seed * 10_000)
    run = Run(whole, Settings(steps, learning_rate=1e-3, seed=seed, ema=0.995), folder)
    whole.load_state_dict(run.go(partial(pair, pictures), loss, watch))
    return standardised(encoder, windows(pictures, somewhere(STANDARD, pictures, torch.Generator().manual_seed(seed))))


@torch.no_grad()
def standardised(encoder: Encoder, pictures: Tensor) -> dict[str, Tensor]:
    """Weights whose vectors have mean 0 and variance 1 over pictures (bytes)."""
    vectors = torch.cat([encoder(part.float() / 255) for part in pictures.split(50)])
    mean, deviation = vectors.mean(0), vectors.std(0).clamp(min=1e-6)
    weights = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    weights["out.weight"] /= deviation[:, None]
    weights["out.bias"] = (weights["out.bias"] - mean) / deviation
    return weights


@torch.no_grad()
def probe(encoder: nn.Module, pictures: Tensor, kinds: Tensor, taught: int = 2000, asked: int = 1000) -> float:
    """How often a linear map of its vectors names the kind that is most of a window. pictures, kinds: of `lands`, held out."""
    generator = torch.Generator().manual_seed(HELD_OUT)
    places = somewhere(taught + asked, pictures, generator)
    most = land.shares(windows(kinds, places)).argmax(-1)
    vectors = torch.cat([encoder(windows(pictures, some(places, i, 50)).float() / 255) for i in range(0, taught + asked, 50)])
    vectors = torch.cat([(vectors - vectors.mean(0)) / vectors.std(0).clamp(min=1e-6), vectors.new_ones(len(vectors), 1)], 1)
    wanted = torch.nn.functional.one_hot(most, len(land.KINDS)).float()
    ridge = vectors[:taught].T @ vectors[:taught] + torch.eye(vectors.shape[1])
    solved = torch.linalg.solve(ridge, vectors[:taught].T @ wanted[:taught])
    return float(((vectors[taught:] @ solved).argmax(1) == most[taught:]).float().mean())
