"""Conditions of strokes that enclose nothing: sketches that were left open, and stick figures. Masks and strokes are (B, H, W) in 0..1."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull
from torch import Tensor

OPEN = math.pi / 3  # radians, the sector of an outline that is not drawn
SEED = 7  # of where it lies
LIMBS = 5
WIDTH = 2  # of a stroke, in pixels


def sketches(masks: Tensor) -> Tensor:
    """Outlines with a gap."""
    gaps = 2 * math.pi * torch.rand(len(masks), generator=torch.Generator().manual_seed(SEED))
    return torch.stack([_open(mask, gap) for mask, gap in zip((masks > 0.5).float(), gaps.tolist(), strict=True)])


def _open(solid: Tensor, gap: float) -> Tensor:
    kept = torch.remainder(_angles(solid) - gap, 2 * math.pi) > OPEN
    return (_wider(solid[None])[0] - solid) * kept


def _angles(solid: Tensor) -> Tensor:
    """(H, W) radians, as seen from the middle of a thing."""
    rows, columns = torch.meshgrid(*map(torch.arange, solid.shape), indexing="ij")
    return torch.atan2(rows - (solid * rows).sum() / solid.sum(), columns - (solid * columns).sum() / solid.sum())


def sticks(masks: Tensor) -> Tensor:
    """Lines from the middles of things to what is farthest from it on each side."""
    return torch.stack([_figure(mask) for mask in (masks > 0.5).float()])


def _figure(solid: Tensor) -> Tensor:
    places = solid.nonzero().float()
    middle = places.mean(0)
    sides = ((_angles(solid)[solid > 0.5] + math.pi) / (2 * math.pi) * LIMBS).long().clamp(max=LIMBS - 1)
    far = (places - middle).norm(dim=1)
    ends = [places[torch.where(sides == side, far, -1).argmax()] for side in range(LIMBS) if (sides == side).any()]
    picture = Image.new("L", (solid.shape[1], solid.shape[0]))
    for end in ends:
        ImageDraw.Draw(picture).line([tuple(point.flip(0).tolist()) for point in (middle, end)], fill=1, width=WIDTH)
    return torch.from_numpy(np.array(picture)).float()


def hulls(strokes: Tensor) -> Tensor:
    """The smallest convex shapes that hold them."""
    return torch.stack([_hull(stroke) for stroke in strokes])


def _hull(stroke: Tensor) -> Tensor:
    points = np.argwhere(stroke.numpy() > 0.5)[:, ::-1]
    picture = Image.new("L", (stroke.shape[1], stroke.shape[0]))
    corners = points[ConvexHull(points).vertices]
    ImageDraw.Draw(picture).polygon([tuple(map(int, corner)) for corner in corners], fill=1, outline=1)
    return torch.from_numpy(np.array(picture)).float()


def _wider(masks: Tensor) -> Tensor:
    return F.max_pool2d(masks[:, None], 2 * WIDTH + 1, 1, WIDTH)[:, 0]


def pictures(strokes: Tensor) -> Tensor:
    """White on black, (B, H, W, 3)."""
    return strokes[..., None].expand(-1, -1, -1, 3).contiguous()
