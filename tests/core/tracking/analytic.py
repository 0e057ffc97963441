"""Frames whose pictures and depths are polynomials a + b x + c y + d x y: bilinear interpolation gives them exactly, and their
derivatives, so that derivatives of residuals can be compared with differences to many digits."""

import torch
from freesteer.core.geometry import cameras
from freesteer.core.tracking.pyramid import Level
from freesteer.core.tracking.state import State
from torch import Tensor

SIZE, COUNT = (18, 24), 4


def polynomials(coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of coefficients (F, 4), with x and y from -1 to 1 over the picture: values (F, h, w), and derivatives along x and y, per pixel."""
    height, width = SIZE
    y, x = torch.meshgrid(*((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in SIZE), indexing="ij")
    a, b, c, d = coefficients.T[..., None, None]
    return a + b * x + c * y + d * x * y, (b + d * y) * 2 / width, (c + d * x) * 2 / height


def level(inverse: bool, planes: bool = False) -> Level:
    """planes: depths are linear, so that their slopes are exact at the rim as well."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.05, 0.2, 0.2, 0.1], dtype=torch.float64)
    grey, grey_dx, grey_dy = polynomials(torch.tensor([0.5, 0, 0, 0]) + spread * torch.randn(COUNT, 4, generator=draw, dtype=torch.float64))
    middle = torch.tensor([0.35 if inverse else 3.0, 0, 0, 0], dtype=torch.float64)
    shape = middle / middle[0] + spread / 2 * torch.randn(COUNT, 4, generator=draw, dtype=torch.float64)
    shape[:, 3] *= not planes
    depth, depth_dx, depth_dy = polynomials(middle[0] * shape)
    return Level(grey, grey_dx, grey_dy, depth, torch.ones_like(depth), depth_dx, depth_dy)


def state(inverse: bool) -> State:
    """Cameras some hundredths apart; scales, shifts, exposures and the focal length are not those that they start with."""
    draw = torch.Generator().manual_seed(1)
    twists, others = torch.randn(COUNT, 6, generator=draw, dtype=torch.float64), torch.randn(4, COUNT, generator=draw, dtype=torch.float64)
    log_scale, shift, gain, offset = 0.1 * others
    poses = cameras.exponential(twists * torch.tensor([0.1, 0.1, 0.1, 0.02, 0.02, 0.02]))
    focal = torch.tensor(0.8, dtype=torch.float64)
    return State(poses, log_scale, shift, gain, offset, focal, 1.1 * focal, 0.35 if inverse else 3.0, inverse)
