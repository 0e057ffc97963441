"""How plainly a picture shows something of a given outline, told by its colours alone, in pictures of any model.

The colours inside and outside of the outline are each described by a Gaussian. Where a window of pixels is likelier of those inside, the
thing is found; how well that covers the outline is the overlap. Where a picture takes no notice of the outline, both have the same
colours, and what is found lies anywhere.
"""

import torch
from kornia.filters import box_blur
from torch import Tensor

from .masks import overlap

WINDOW = 1 / 40  # of the picture's shorter side: the window whose pixels are judged together
MOST = 1.0  # of a pixel's log odds, so that the many say what a window shows, and not the one that is surest
NOISE = 0.02  # of a colour in 0..1: smaller differences are none


def found(pictures: Tensor, masks: Tensor) -> Tensor:
    """(B, H, W) bool: where the colours of pictures (B, H, W, 3) in 0..1 are rather those inside of masks (B, H, W) bool.

    Nowhere, if a mask is empty or covers everything.
    """
    inside = masks.flatten(1).to(pictures)
    colours = pictures.flatten(1, 2)
    odds = _log_likelihood(colours, inside) - _log_likelihood(colours, 1 - inside)
    width = 2 * max(1, round(WINDOW * min(masks.shape[1:]) / 2)) + 1
    even = box_blur(odds.clamp(-MOST, MOST).unflatten(1, masks.shape[1:])[:, None], (width, width))[:, 0]
    parted = masks.flatten(1).any(1) & ~masks.flatten(1).all(1)
    return (even > 0) & parted[:, None, None]


def _log_likelihood(colours: Tensor, weight: Tensor) -> Tensor:
    """(B, N) of colours (B, N, 3), under the Gaussian of those that weigh, (B, N)."""
    share = (weight / weight.sum(1, keepdim=True).clamp(min=1))[..., None]
    around = colours - (share * colours).sum(1, keepdim=True)
    covariance = (share * around).mT @ around + NOISE**2 * torch.eye(3).to(colours)
    squared = (around @ torch.linalg.inv(covariance.cpu()).to(colours) * around).sum(-1)
    return -0.5 * (squared + torch.logdet(covariance.cpu()).to(colours)[:, None])


def separation(pictures: Tensor, masks: Tensor) -> Tensor:
    """Overlap (B,) of what is found with the masks, 0..1."""
    return overlap(found(pictures, masks), masks)
