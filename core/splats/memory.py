"""How many bytes of a device the work on splats takes at most, so that a host can make room before it.

Plain sums of the largest tensors, with numbers of bytes that were counted (tests/core/splats/test_memory.py counts again).
"""

import torch

from ..tracking.normal_equations import PIXELS_AT_ONCE
from .compositing import pixels_at_once

CLIP = 130  # of a pixel of a frame: pictures, depth and masks, all sizes of its maps, and a copy of these
WARPED = 900  # of a pixel of a pair of frames that is warped, with its derivatives
GAUSSIAN, GAUSSIAN_BACK = 1000, 3000  # of a Gaussian that touches ten tiles, drawn; drawn with gradients, and moved by Adam
COEFFICIENT = 100  # of a Gaussian's colour beyond the first, with gradients
BLENDED, BLENDED_BACK = 24, 48  # of a Gaussian at a pixel, of those that are blended at once
PICTURE, PICTURE_BACK = 100, 600  # of a pixel of the picture; of the loss and its gradient
PER_PIXEL = 2  # Gaussians of a scene for each pixel of a frame: the first frame brings one, the others what it does not show


def of_tracking(frames: int, size: tuple[int, int]) -> int:
    """Of finding the cameras of a clip (height, width)."""
    pixels = size[0] * size[1]
    return CLIP * frames * pixels + WARPED * max(PIXELS_AT_ONCE, pixels)


def of_rendering(count: int, coefficients: int, size: tuple[int, int], device: torch.device, gradients: bool = False) -> int:
    """Of one picture of `count` Gaussians."""
    gaussian, blended, picture = (GAUSSIAN_BACK, BLENDED_BACK, PICTURE_BACK) if gradients else (GAUSSIAN, BLENDED, PICTURE)
    each = gaussian + COEFFICIENT * (coefficients - 1)
    return count * each + blended * pixels_at_once(device) + picture * size[0] * size[1]


def of_reconstruction(frames: int, size: tuple[int, int], device: torch.device) -> int:
    """Of a clip's cameras and then its scene, with what is kept of the former."""
    pixels = size[0] * size[1]
    fitting = CLIP * frames * pixels + of_rendering(PER_PIXEL * pixels, 1, size, device, gradients=True)
    return max(of_tracking(frames, size), fitting)
