"""Cameras and depth adjusted together, where the same pictures gave the depth: patches of pixels move along their rays.

Depth that was found with cameras that are a little wrong is wrong so that it fits them, and each holds the other back. So the depth of
every patch is one more unknown; it touches only the equations of its own frame, and is eliminated from them before the rest is solved
(Schur's complement; Triggs et al. 2000, Bundle Adjustment, section 6; of pictures, as in DSO, https://arxiv.org/abs/1607.02565).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bundle import DEPTH_NOISE, PICTURE_NOISE, Equations, descend, fixed_of, in_noise, moved, per_place, places_of
from .residuals import GAIN, OFFSET, PER_FRAME, POSE, SCALE, Level, State, by_picture, picture_noise, residuals

SIDE = 4  # pixels of a patch
HELD = 0.1  # of a pixel of each pair: what shows nothing stays where it is
FARTHEST = 0.3  # by which a step may change a depth, log
MAY = (*range(POSE.stop), GAIN, OFFSET)


class _Place(NamedTuple):
    """state, and by how much the given depth of each patch is changed: (F, n), log."""

    state: State
    change: Tensor


class _Patches(NamedTuple):
    """Of n patches of a frame: Hessian between them and other parameters, (n, c), which those are, (c,); their own, (n,), and slopes."""

    coupling: Tensor
    others: Tensor
    stiffness: Tensor
    slope: Tensor

    def step(self, step: Tensor) -> Tensor:
        """Theirs, (n,), with that of all other parameters."""
        return -(self.slope + self.coupling @ step[self.others]) / self.stiffness


def adjust_with_depth(
    level: Level, state: State, pairs: Sequence[tuple[int, int]], iterations: int, focal: bool = False
) -> tuple[State, Tensor, float]:
    """Better cameras and exposures of all frames, factors of their given depths (F, h, w), and the cost. As `bundle.adjust`, frame 0 keeps
    its pose and exposure; focal: whether its length may change."""
    frames, patch = range(len(state.poses)), _patch_of(level)
    by_frame = torch.tensor(sorted(pairs), device=patch.device).split([sum(first == frame for first, _ in pairs) for frame in frames])
    fixed = fixed_of(list(frames), frames, focal, MAY).to(patch.device)
    start = _Place(state, level.maps.new_zeros(len(frames), int(patch[-1]) + 1))

    def equations(at: _Place) -> Equations:
        return _equations(_changed(level, at.change, patch), at.state, by_frame, patch)

    (state, change), cost = descend(start, equations, _moved, fixed, iterations)
    return state, change[:, patch].view(-1, *level.size).exp(), cost


def _patch_of(level: Level) -> Tensor:
    """The patch of every pixel, (N,)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=level.maps.device) // SIDE for n in level.size), indexing="ij")
    return (y * (x[0, -1] + 1) + x).flatten()


def _changed(level: Level, change: Tensor, patch: Tensor) -> Level:
    maps = level.maps.clone()
    maps[:, 3] *= change[:, patch].exp().view(-1, *level.size)
    return Level(maps)


def _moved(at: _Place, step: Tensor, found: Equations) -> _Place:
    change = torch.stack([own.step(step) for own in found.more])
    return _Place(moved(at.state, step), at.change + change.clamp(-FARTHEST, FARTHEST))


def _equations(level: Level, state: State, by_frame: Sequence[Tensor], patch: Tensor) -> Equations:
    count = len(state.poses) * PER_FRAME + 1
    hessian, slope = level.maps.new_zeros(count, count), level.maps.new_zeros(count)
    cost, seen_places, patches = 0.0, 0.0, []
    for pairs in by_frame:
        seen, picture, ratio, both = residuals(level, state, pairs)
        grey, by_grey = picture_noise(state, pairs)
        picture = picture / (PICTURE_NOISE * grey)
        size = picture.square() + (ratio / DEPTH_NOISE).square()
        weight = seen / (1 + size)
        j = in_noise(by_picture(state, pairs, both), picture, PICTURE_NOISE, grey, by_grey)
        along = j[..., SCALE]  # by the logarithm of what was given
        at, weighted = places_of(pairs, count), j * weight[..., None]
        hessian.index_put_((at[:, :, None], at[:, None, :]), weighted.mT @ j, accumulate=True)
        slope.index_put_((at,), (weighted.mT @ picture[..., None]).squeeze(-1), accumulate=True)
        own = _patches(weighted, along, picture, weight, at, patch)
        eliminate(hessian, slope, own)
        patches.append(own)
        cost += float((seen * torch.log1p(size)).sum())
        seen_places += float(seen.sum())
    scale, hidden = per_place(seen_places, sum(map(len, by_frame)) * len(patch))
    return Equations(hessian, slope, cost * scale + hidden, patches)


def eliminate(hessian: Tensor, slope: Tensor, own: _Patches) -> None:
    """Changes equations of other parameters, (C, C) and (C,), so that patches always follow them."""
    shares = own.coupling / own.stiffness[:, None]
    hessian[own.others[:, None], own.others] -= own.coupling.mT @ shares
    slope[own.others] -= shares.mT @ own.slope


def _patches(weighted: Tensor, along: Tensor, picture: Tensor, weight: Tensor, at: Tensor, patch: Tensor) -> _Patches:
    many = int(patch[-1]) + 1
    by_pixel = torch.stack([weight * along.square() + HELD, weight * along * picture]).sum(1)
    stiffness, slope = by_pixel.new_zeros(2, many).index_add_(1, patch, by_pixel)
    others, where = at.unique(return_inverse=True)
    coupling = weighted.new_zeros(many, len(others))
    for places, values in zip(where, weighted * along[..., None], strict=True):
        coupling.index_add_(1, places, values.new_zeros(many, len(places)).index_add_(0, patch, values))
    return _Patches(coupling, others, stiffness, slope)
