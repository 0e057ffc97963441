"""Depth of each frame, made steadier by that of the frames around it."""

import torch
from torch import Tensor

from .bundle import SAME_DEPTH
from .normal_equations import PIXELS_AT_ONCE
from .pyramid import Level
from .residuals import depth_difference
from .state import State
from .warp import warp


def fused(level: Level, state: State, pairs: list[tuple[int, int]]) -> Tensor:
    """(F, h, w), in the units of the poses; 0 where a frame gives none and no other frame fills it.

    Along each ray, the mean of the frame's own depth and of those that other frames see there, of what agrees.
    """
    height, width = level.size
    own = (state.depths(level.depth) * (level.valid > 0)).clamp(min=0)
    total = own.log().where(own > 0, 0).flatten(1)
    count = (own > 0).to(total).flatten(1)
    for part in torch.tensor(pairs, device=own.device).split(max(1, PIXELS_AT_ONCE // (height * width))):
        warped = warp(level, state, part)
        ratio = depth_difference(warped)
        agrees = warped.seen & (ratio.abs() < SAME_DEPTH)
        mine = own.flatten(1)[part[:, 0]].clamp(min=1e-6).log()
        # the other surface lies nearer by the ratio of what is seen to what was expected
        total.index_add_(0, part[:, 0], torch.where(agrees, mine - ratio, 0))
        count.index_add_(0, part[:, 0], agrees.to(count))
    mean = (total / count.clamp(min=1)).exp()
    return torch.where(count > 0, mean, 0).view(-1, height, width)
