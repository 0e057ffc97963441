"""Outlines in polar coordinates."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RADII = 48


def polar_profile(masks: Tensor, angles: int) -> Tensor:
    """(B, angles): how much of each ray from the centre of a mask (B, H, W) lies in it, on the way to twice the radius of a disc of
    its area. A turn of the mask by 360 / angles degrees shifts the profile by one."""
    height, width = masks.shape[-2:]
    area = masks.sum((1, 2)).clamp(min=1)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre = torch.stack([(masks * axis).sum((1, 2)) / area for axis in (x, y)], -1)  # (B, 2)
    reach = 2 * (area / math.pi).sqrt()
    turn = torch.arange(angles) * 2 * math.pi / angles
    rays = torch.stack([turn.cos(), turn.sin()], -1)  # (A, 2)
    along = (torch.arange(RADII) + 0.5) / RADII
    points = centre[:, None, None] + reach[:, None, None, None] * along[:, None] * rays[:, None]  # (B, A, R, 2)
    grid = 2 * points / torch.tensor([width, height]) - 1
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0].mean(-1)
