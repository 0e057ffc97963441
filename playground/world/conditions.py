"""Condition images of drawn scenes: what a user might draw or have, made from the exact masks."""

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from scipy.ndimage import distance_transform_edt
from torch import Tensor

KINDS = ("silhouette", "edge", "scribble", "depth")


def condition(kind: str, masks: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1 of object masks (B, H, W): light on dark, as such maps usually are.

    A scribble's masks are drawn with a shaky hand first, see `shown`.
    """
    match kind:
        case "silhouette":
            grey = 0.15 + 0.75 * masks
        case "edge":
            grey = _outline(masks, 1)
        case "scribble":
            grey = _outline(shown(kind, masks, generator), 2)
        case "depth":
            grey = _depth(masks)
        case _:
            raise ValueError(f"unknown kind of condition {kind!r}; choose one of {', '.join(KINDS)}")
    return grey[:, None].expand(-1, 3, -1, -1).clamp(0, 1).contiguous()


def shown(kind: str, masks: Tensor, generator: torch.Generator) -> Tensor:
    """The masks (B, H, W) that a condition of this kind shows: those of a scribble are a little off."""
    return _wobble(masks, generator) if kind == "scribble" else masks


def _outline(masks: Tensor, width: int) -> Tensor:
    solid = (masks > 0.5).float()[:, None]
    size = 2 * width + 1
    grown = F.max_pool2d(solid, size, 1, width)
    shrunk = -F.max_pool2d(-solid, size, 1, width)
    return gaussian_blur2d(grown - shrunk, 3, (0.6, 0.6))[:, 0]


def _wobble(masks: Tensor, generator: torch.Generator, pixels: float = 2.2) -> Tensor:
    """Masks with a shaky outline, as from a quick hand."""
    b, h, w = masks.shape
    shift = gaussian_blur2d(torch.randn(b, 2, h, w, generator=generator), 25, (6.0, 6.0))
    shift = pixels * shift / shift.std((1, 2, 3), keepdim=True)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    grid = torch.stack([(x + shift[:, 0]) / w * 2 - 1, (y + shift[:, 1]) / h * 2 - 1], -1)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]


def _depth(masks: Tensor) -> Tensor:
    """Nearer is lighter: a rising floor, and bulging objects in front of it."""
    b, h, w = masks.shape
    floor = torch.linspace(0.05, 0.35, h)[:, None].expand(h, w)
    inside = torch.stack([torch.from_numpy(distance_transform_edt(m.numpy() > 0.5)).float() for m in masks])
    bulge = 0.62 + 0.3 * (inside / inside.amax((1, 2), keepdim=True).clamp(min=1)).sqrt()
    return torch.lerp(floor.expand(b, h, w), bulge, masks)
