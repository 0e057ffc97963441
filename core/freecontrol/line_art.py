"""Line drawings as conditions: which pictures are one, and what they enclose.

A model that has seen few line drawings takes a thin outline for texture, not for the edge of a thing. Filling what the lines
enclose gives it a silhouette, which it understands. Strokes that enclose nothing, as of an open sketch or a stick figure, are filled to
the smallest convex shape that holds them; straight lines stay as they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_closing, binary_dilation, binary_opening, find_objects, label
from scipy.spatial import ConvexHull
from torch import Tensor

INK = 0.35  # of the strongest contrast to the ground: what counts as drawn
THIN = 0.45  # of what is drawn; less than this remains of a line drawing when strokes are worn away
GROUND, DRAWN = 0.15, 0.9  # grey of what is left and of what is filled
CONTRAST = 0.3  # of lines to their ground, at least
FLAT, GROUND_SHARE = 0.2, 0.8  # of a line drawing at least this share differs from its ground by less than FLAT of the contrast
LARGEST = 384  # pixels of the shorter side that are looked at
STROKE, GAP = 0.035, 0.016  # of the picture's shorter side: the widest stroke, and the widest gap that is closed
NEAR = 0.05  # of that side: strokes as near to each other as this are of one thing


def fill(pictures: Tensor) -> Tensor:
    """Line drawings among `pictures` (B, H, W, 3), light on dark or dark on light, as silhouettes; others as they are."""
    size = pictures.shape[1:3]
    smaller = max(1.0, min(size) / LARGEST)  # morphology takes time like the side to the fourth power
    grey = pictures.mean(-1)
    if smaller > 1:
        grey = F.interpolate(grey[:, None], [round(side / smaller) for side in size], mode="area")[:, 0]
    filled = [_fill(picture) for picture in grey.cpu().numpy()]
    return torch.stack([p if f is None else _resized(f, size).to(p) for p, f in zip(pictures, filled, strict=True)])


def _resized(picture: Tensor, size: Sequence[int]) -> Tensor:
    """(h, w, 3) to (H, W, 3)."""
    if picture.shape[:2] == size:
        return picture
    return F.interpolate(picture.movedim(-1, 0)[None], list(size), mode="bilinear")[0].movedim(0, -1)


def _fill(grey: np.ndarray) -> Tensor | None:
    """(H, W, 3), or None if this is no line drawing."""
    contrast = abs(grey - np.median(grey))
    if contrast.max() < CONTRAST or (contrast < FLAT * contrast.max()).mean() < GROUND_SHARE:
        return None
    ink = contrast > INK * contrast.max()
    side = min(grey.shape)
    if _worn(ink, round(STROKE * side)).sum() > THIN * ink.sum():
        return None
    gap = max(1, round(GAP * side))
    padded = np.pad(ink, gap)  # or closing would wear strokes away at the rim
    lines = binary_closing(padded, np.ones((2 * gap + 1, 2 * gap + 1)))
    stroke = max(1, round(STROKE * side / 2))
    body = _worn(_enclosed(lines), stroke)
    loose = lines & np.logical_not(binary_dilation(body, _disc(2 * stroke)))
    body = (body | _worn(_hulls(loose, round(NEAR * side)), stroke))[gap:-gap, gap:-gap]
    shown = body if body.sum() > ink.sum() else ink
    return (GROUND + (DRAWN - GROUND) * torch.from_numpy(shown).float())[..., None].expand(-1, -1, 3)


def _enclosed(lines: np.ndarray) -> np.ndarray:
    """What lines enclose, and the lines: what is enclosed twice is a hole again, as in a ring."""
    regions = _parts(~lines)
    inside, outside = np.zeros_like(lines), regions == regions[0, 0]
    level, seen = 0, outside
    while True:
        reached = np.unique(regions[binary_dilation(_across(seen, lines)) & ~seen & ~lines])
        fresh = np.isin(regions, reached[reached > 0])
        if not fresh.any():
            return inside | (lines & ~_only_around(lines, inside))
        level += 1
        if level % 2:
            inside |= fresh
        seen = seen | fresh


def _hulls(strokes: np.ndarray, near: int) -> np.ndarray:
    """The smallest convex shape around each group of strokes that lie as near to each other as this."""
    groups = _parts(binary_dilation(strokes, _disc(near // 2)))
    shapes = np.zeros_like(strokes)
    for group, box in enumerate(find_objects(groups), 1):
        shapes[box] |= _hull(strokes[box] & (groups[box] == group))
    return shapes


def _hull(strokes: np.ndarray) -> np.ndarray:
    """The smallest convex shape that holds them; of a straight line, nothing."""
    points = np.argwhere(strokes)
    if len(points) < 3 or np.linalg.matrix_rank(points - points[0]) < 2:
        return np.zeros_like(strokes)
    sides = ConvexHull(points).equations
    return (np.indices(strokes.shape).reshape(2, -1).T @ sides[:, :2].T + sides[:, 2] < 1e-6).all(1).reshape(strokes.shape)


def _parts(mask: np.ndarray, neighbours: np.ndarray | None = None) -> np.ndarray:
    """Connected parts, numbered from 1."""
    labelled: Any = label(mask, neighbours)
    return labelled[0]


def _across(seen: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Seen regions and the strokes that touch them."""
    strokes = _parts(lines, np.ones((3, 3)))
    touching = np.unique(strokes[binary_dilation(seen) & lines])
    return seen | np.isin(strokes, touching[touching > 0])


def _only_around(lines: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Strokes that border on nothing that is inside."""
    strokes = _parts(lines, np.ones((3, 3)))
    bordering = np.unique(strokes[binary_dilation(inside) & lines])
    return lines & ~np.isin(strokes, bordering)


def _worn(mask: np.ndarray, radius: int) -> np.ndarray:
    return binary_opening(mask, _disc(max(1, radius)))


def _disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2
