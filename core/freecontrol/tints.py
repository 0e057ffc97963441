"""Reading a condition in several colourings, so that its own colours do not count as layout."""

import torch
from torch import Tensor

LEAST_CONTRAST = 0.7  # distance of the two colours in RGB
PLAINEST = 0.95  # of a component's variance that a handful of colourings can prove to be layout


def tinted(pictures: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, B, H, W, 3): the contrast of `pictures` (B, H, W, 3) shown between two colours, other ones each time.

    The first is the picture itself. Contrast is stretched to the whole range of each picture.
    """
    grey = contrast(pictures)
    low, high = grey.amin((1, 2, 3), keepdim=True), grey.amax((1, 2, 3), keepdim=True)
    grey = (grey - low) / (high - low).clamp(min=1e-3)
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.rand(64 * count, 2, 3, generator=generator)
    pairs = pairs[(pairs[:, 0] - pairs[:, 1]).norm(dim=1) > LEAST_CONTRAST][: count - 1].to(pictures)
    return torch.stack([pictures, *(torch.lerp(dark, light, grey) for dark, light in pairs)])


def contrast(pictures: Tensor) -> Tensor:
    """(B, H, W, 1): colours along the axis on which most of a picture (B, H, W, 3) differs from its median colour; lighter is more.

    A thing as bright as its ground is seen by its hue. Of a grey picture, this is its brightness.
    """
    colours = pictures.flatten(1, 2)
    around = colours - colours.median(1, keepdim=True).values
    axis = torch.linalg.eigh((around.mT @ around).cpu()).eigenvectors[..., -1:].to(pictures)
    seen = around @ axis
    lighter = (seen * around.mean(-1, keepdim=True)).sum(1, keepdim=True) >= 0
    return torch.where(lighter, seen, -seen).unflatten(1, pictures.shape[1:3])


def signal_to_noise(coordinates: Tensor) -> Tensor:
    """How plainly each component tells layout, by coordinates in several colourings: (count, ..., tokens, N) to (..., N), 0 or more.

    The variance over the picture that all colourings share, by that in which they differ: 0 for components that follow colour alone.
    Squared differences that are weighted so count by what they tell of layout (Fisher's criterion).
    """
    count = len(coordinates)
    placed = coordinates - coordinates.mean(-2, keepdim=True)
    share = placed.mean(0).square().mean(-2) / placed.square().mean((0, -2)).clamp(min=1e-12)
    signal = ((share - 1 / count) / (1 - 1 / count)).clamp(0, PLAINEST)  # less what chance leaves in a mean
    return signal / (1 - signal)
