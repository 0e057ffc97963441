"""Light and colour of a picture's ground, held by the channel medians of its latent.

A robust cousin of AdaIN: the median is that of the ground as long as the subject covers less than half of the picture, so a
subject that moves or grows does not count.
"""

from torch import Tensor


def ground(latent: Tensor) -> Tensor:
    """Channel medians of latents (B, C, ...): (B, C)."""
    return latent.flatten(2).median(-1).values


def toward(latent: Tensor, wanted: Tensor, share: float) -> Tensor:
    """Latents (B, C, ...) whose ground has gone the share of the way to the wanted one, (B, C)."""
    shift = share * (wanted - ground(latent))
    return latent + shift[(..., *[None] * (latent.ndim - 2))]
