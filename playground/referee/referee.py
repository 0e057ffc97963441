"""The referee: a small segmenter of the drawn world that says what a picture shows and where.

Trained on renders, half of them as the autoencoder gives them back (`train_referee`), never on generated pictures, and never used in
training the generator.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Tensor, nn

from ..weights import load_compact
from ..world.textures import BACKGROUNDS
from ..world.world import COLOUR_NAMES, SHAPES

WEIGHTS = Path(__file__).parent / "referee.safetensors"
CLIP_WEIGHTS = Path(__file__).parent / "clip_referee.safetensors"  # of one for the frames of clips
SMALLEST = 60  # pixels; less is a speck, not an object
SHARE = 0.25  # of a connected region that another colour must cover to count as an object of its own


@dataclass(frozen=True)
class Seen:
    """One object: its name and its mask (H, W) bool."""

    colour: str
    shape: str
    mask: np.ndarray

    @property
    def area(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Picture:
    background: str
    objects: tuple[Seen, ...]  # the largest first

    def find(self, colour: str, shape: str) -> Seen | None:
        """The largest object of that colour and shape."""
        return next((o for o in self.objects if (o.colour, o.shape) == (colour, shape)), None)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU())


class Segmenter(nn.Module):
    """(B, 3, H, W) pictures in 0..1 -> per half-resolution pixel shape and colour logits (B, 9, H/2, W/2), ground logits (B, 8).

    Class 0 of the maps is "no object". H and W are multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2), nn.GroupNorm(8, 24), nn.SiLU(), _block(24, 24))
        self.down_quarter = nn.Sequential(_block(24, 40, 2), _block(40, 40))
        self.down_eighth = nn.Sequential(_block(40, 48, 2), _block(48, 48))
        self.down_sixteenth = nn.Sequential(_block(48, 64, 2), _block(64, 64))
        self.up_eighth = _block(64 + 48, 48)
        self.up_quarter = _block(48 + 40, 40)
        self.up_half = _block(40 + 24, 24)
        self.maps = nn.Conv2d(24, 2 * (1 + len(SHAPES)), 1)
        self.ground = nn.Linear(64, len(BACKGROUNDS))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.stem(2 * image - 1)
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        deep = self.down_sixteenth(eighth)
        x = self.up_eighth(torch.cat([F.interpolate(deep, scale_factor=2.0), eighth], 1))
        x = self.up_quarter(torch.cat([F.interpolate(x, scale_factor=2.0), quarter], 1))
        x = self.up_half(torch.cat([F.interpolate(x, scale_factor=2.0), half], 1))
        shape, colour = self.maps(x).chunk(2, 1)
        return shape, colour, self.ground(deep.mean((2, 3)))


def load(path: Path = WEIGHTS) -> Segmenter:
    network = Segmenter()
    network.load_state_dict(load_compact(path))
    return network.eval().requires_grad_(False)


def look(network: Segmenter, images: Tensor, batch: int = 32) -> list[Picture]:
    """What the pictures (B, 3, H, W) in 0..1 show."""
    with torch.inference_mode(False), torch.no_grad():
        return [picture for part in images.float().clone().split(batch) for picture in _look(network, part)]


def _look(network: Segmenter, images: Tensor) -> list[Picture]:
    shape, colour, ground = network(images)
    shape, colour = (F.interpolate(m, images.shape[-2:], mode="bilinear").softmax(1) for m in (shape, colour))
    solid = (shape[:, 0] < 0.5).numpy()
    hue = (colour[:, 1:].argmax(1)).numpy()
    odds = shape[:, 1:].numpy()
    names = [BACKGROUNDS[i] for i in ground.argmax(1).tolist()]
    return [Picture(names[i], tuple(_objects(solid[i], hue[i], odds[i]))) for i in range(len(images))]


def _objects(solid: np.ndarray, hue: np.ndarray, odds: np.ndarray) -> list[Seen]:
    """Connected regions, parted where they are of two colours; each votes for its shape."""
    labelled: Any = label(solid)
    regions, count = labelled
    found = []
    for region in range(1, count + 1):
        whole = regions == region
        area = whole.sum()
        if area < SMALLEST:
            continue
        shares = np.bincount(hue[whole], minlength=len(COLOUR_NAMES)) / area
        kept = np.flatnonzero(shares > SHARE)
        for colour in kept if len(kept) > 1 else [shares.argmax()]:
            mask = whole & (hue == colour) if len(kept) > 1 else whole
            shape = odds[:, mask].mean(1).argmax()
            found.append(Seen(COLOUR_NAMES[colour], SHAPES[shape], mask))
    return sorted(found, key=lambda o: -o.area)
