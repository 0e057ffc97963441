"""Pictures of a user as latents, whatever their size."""

import math
from collections.abc import Sequence

import comfy.utils
import torch
from torch import Tensor


def encode_pictures(vae, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Latents of pictures (B, H, W, 3), brought to about as many cells as `size` (h, w) has, in their own proportions.

    A picture that has about that size already is not touched. One by one: some VAEs take a batch for the frames of a video.
    """
    cell = vae.spacial_compression_encode()
    height, width = picture_size(image.shape[1:3], size, cell)
    if (height, width) != image.shape[1:3]:
        kind = "area" if height < image.shape[1] else "bicubic"
        image = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, kind, "disabled").movedim(1, -1).clamp(0, 1)
    return torch.cat([vae.encode(picture[None]) for picture in image])


def picture_size(own: Sequence[int], cells: tuple[int, int], cell: int) -> tuple[int, int]:
    """(H, W) in pixels with the proportions of `own` and about the area of `cells`, in whole pairs of cells."""
    scale = math.sqrt(math.prod(cells) * cell**2 / math.prod(own))
    if 0.8 < scale < 1.25 and all(side % cell == 0 for side in own):
        return own[0], own[1]
    height, width = (max(round(side * scale / (2 * cell)), 1) * 2 * cell for side in own)
    return height, width
