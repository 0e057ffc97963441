"""Reading a condition in several colourings, so that its own colours do not count as layout."""

import torch
from torch import Tensor

LEAST_CONTRAST = 0.7  # distance of the two colours in RGB


def tinted(pictures: Tensor, count: int, seed: int = 0) -> Tensor:
    """(count, B, H, W, 3): the brightness of `pictures` (B, H, W, 3) shown between two colours, other ones each time.

    The first is the picture itself. Brightness is stretched to the whole range of each picture.
    """
    grey = pictures.mean(-1, keepdim=True)
    low, high = grey.amin((1, 2, 3), keepdim=True), grey.amax((1, 2, 3), keepdim=True)
    grey = (grey - low) / (high - low).clamp(min=1e-3)
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.rand(64 * count, 2, 3, generator=generator)
    pairs = pairs[(pairs[:, 0] - pairs[:, 1]).norm(dim=1) > LEAST_CONTRAST][: count - 1].to(pictures)
    return torch.stack([pictures, *(torch.lerp(dark, light, grey) for dark, light in pairs)])
