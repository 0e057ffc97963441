"""Cameras, depth scales and exposures of a clip, from how its frames look when they are warped into each other.

Dense bundle adjustment by Gauss-Newton (Levenberg's damping, Cauchy's weights) on two residuals of a pixel x of frame i, with
depth z_i, that is seen at u in frame j (direct alignment as in DSO, Engel et al. 2016, https://arxiv.org/abs/1607.02565):

    picture  (1 + g_j) I_j(u) + h_j - (1 + g_i) I_i(x) - h_i        depth  log(Z_j / z_j(u)),  z = exp(a) D + b

with D the given depth, which may be off by a scale and a shift in every frame. Both sides of a residual are noisy, and what makes a
frame flatter or greyer makes its noise smaller too: so residuals are counted in units of their noise, which depends on the parameters
(orthogonal regression, Deming 1943). Without, every frame comes out a little too flat, and the scene shrinks along the way.

COLMAP-Free 3D Gaussian Splatting (https://arxiv.org/abs/2312.07504) fits one pose after the other by 300 steps of Adam through the
rasteriser, and never again; here a frame takes about twenty steps, far cheaper ones, and all frames are adjusted together.
"""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import cameras

POSE, SCALE, SHIFT, GAIN, OFFSET = slice(0, 6), 6, 7, 8, 9
PER_FRAME = 10
BOTH = 2 * PER_FRAME + 1  # two frames and the focal length
PICTURE_NOISE, DEPTH_NOISE = 0.04, 0.07  # where Cauchy's weight is a half: grey, and of a depth
SHARPEST = 2.0  # and its inverse: how much less noise, relative to a depth, a shift may be said to leave
PRIORS = {SHIFT: 0.15, GAIN: 0.15, OFFSET: 0.05}  # deviations from 0: of the median depth, of 1, of white
PRIOR_WEIGHT = 0.02  # of a frame's pixels
FOCAL_PRIOR = 0.3  # deviation, log
KEPT = 0.3  # of its contrast and of its relief: a frame that was made greyer and flatter than this fits anything
SOLID, KNOWN_AROUND = 0.7, 0.4
FEW = 0.2  # of a frame's pixels: where depth is known of fewer, that they agree says less
PIXELS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Level:
    """One size of the clip. maps: (F, 5, h, w): grey, its derivatives along x and y, given depth, and where that is valid."""

    maps: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.maps.shape[-2], self.maps.shape[-1]


@dataclass(frozen=True)
class State:
    """poses: (F, 4, 4), world to camera; frames: (F, 4): log scale and shift of the depth, gain and offset of the grey.

    focal: (), in widths of the picture; shifts are in units of `unit`, the median of the first frame's given depth.
    inverse: whether what is given is 1 / depth.
    """

    poses: Tensor
    frames: Tensor
    focal: Tensor
    unit: float
    inverse: bool = False

    def depths(self, given: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """Given depths of frames, (f, ...), in the units of the poses; not above 0 where they are beyond measure."""
        scale, shift = (self.frames[which, k].view(-1, *[1] * (given.ndim - 1)) for k in (0, 1))
        value = scale.exp() * given + shift * self.unit
        return torch.where(value > 1e-3 * self.unit, 1 / value, -1) if self.inverse else value


def pyramid(pictures: Tensor, depths: Tensor, valid: Tensor, smallest: int = 12) -> list[Level]:
    """The clip (F, H, W, 3) with depths and their validity, (F, H, W), from coarse to fine, each twice as large.

    A pixel of a coarse level is valid where more than SOLID of what is usual in its frame is: depth may be sparse.
    """
    grey = (pictures * pictures.new_tensor([0.299, 0.587, 0.114])).sum(-1)[:, None]
    depth, mask = (depths * valid)[:, None], valid[:, None].to(grey)
    usual = mask.mean((1, 2, 3), keepdim=True)
    levels = []
    while True:
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        dx, dy = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
        solid = (mask > SOLID * usual).to(grey)
        levels.append(Level(torch.cat([grey, dx, dy, depth / mask.clamp(min=1e-6), solid], 1)))
        if min(grey.shape[-2:]) < 2 * smallest:
            return levels[::-1]
        grey, depth, mask = (F.avg_pool2d(t, 2) for t in (grey, depth, mask))


def adjust(
    level: Level, state: State, pairs: Sequence[tuple[int, int]], free: Sequence[int], iterations: int, focal: bool = False,
    may: Sequence[int] = range(PER_FRAME), damping: float = 1e-3,
) -> tuple[State, float]:  # fmt: skip
    """A better state, and its cost, after at most `iterations` steps on pairs (i, j) of frames.

    free: the frames that may change; the others stay. may: which of a frame's parameters. Frame 0 keeps its pose and exposure, which are
    the clip's own, and the scale of its depth, which gives the unit, unless no camera may move. focal: whether its length may change.
    """
    used = sorted({*free, *(frame for pair in pairs for frame in pair)})
    here = {frame: place for place, frame in enumerate(used)}
    index = torch.tensor([(here[a], here[b]) for a, b in pairs], device=level.maps.device)
    part, near = _only(state, used), Level(level.maps[used])
    fixed = _fixed(used, free, focal, may).to(level.maps.device)
    hessian, slope, cost = _normal_equations(near, part, index)
    for _ in range(iterations):
        damped = hessian + torch.diag(damping * hessian.diagonal() + 1e-9)
        damped = torch.where(fixed[:, None] | fixed, 0, damped) + torch.diag(fixed.to(damped))
        step = -torch.linalg.solve(damped, torch.where(fixed, 0, slope))
        trial = _moved(part, step)
        found = _normal_equations(near, trial, index)
        if found[2] < cost:
            gained = cost - found[2]
            part, (hessian, slope, cost), damping = trial, found, damping / 5
            if gained < 1e-4 * cost:
                break
        else:
            damping = max(damping, 1e-5) * 10
            if damping > 1e4:
                break
    return _with(state, used, part), cost


def _only(state: State, frames: list[int]) -> State:
    return replace(state, poses=state.poses[frames], frames=state.frames[frames])


def _with(state: State, frames: list[int], part: State) -> State:
    """What `_only` took out, put back."""
    poses, values = state.poses.clone(), state.frames.clone()
    poses[frames], values[frames] = part.poses, part.frames
    return replace(state, poses=poses, frames=values, focal=part.focal)


def agreement(level: Level, state: State, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """For each frame, the share of its pixels of known depth that fit another frame's picture and depth, the best of its pairs: (F,), 0..1.

    A frame that fits only because it was made grey or flat fits nothing.
    """
    index = torch.tensor(list(pairs), device=level.maps.device)
    kept = _kept(level, state)
    known = level.maps[:, 4].flatten(1).mean(1).clamp(min=FEW)
    best = torch.zeros(len(state.poses), device=level.maps.device)
    for part in index.split(_pairs_at_once(level)):
        seen, picture, depth = residuals(level, state, part)[:3]
        fits = seen & (picture.abs() < 2 * PICTURE_NOISE) & (depth.abs() < 2 * DEPTH_NOISE) & kept[part].all(1)[:, None]
        share = fits.float().mean(1) / known[part[:, 0]]
        for side in (0, 1):
            best.scatter_reduce_(0, part[:, side], share, "amax")
    return best


def _kept(level: Level, state: State) -> Tensor:
    """Whether each frame still has KEPT of its contrast and of its relief, (F,)."""
    depths, solid = level.maps[:, 3], level.maps[:, 4] > 0
    given = torch.stack([d[s].median() if s.any() else d.max() for d, s in zip(depths, solid, strict=True)])
    relief = state.frames[:, 0].exp() * given
    return (1 + state.frames[:, 2] > KEPT) & (relief > KEPT * (relief + state.frames[:, 1] * state.unit))


def _fixed(used: list[int], free: Sequence[int], focal: bool, may: Sequence[int]) -> Tensor:
    fixed = torch.ones(len(used), PER_FRAME, dtype=torch.bool)
    for frame in free:
        own = (SHIFT,) if any(k < POSE.stop for k in may) else (SCALE, SHIFT)
        fixed[used.index(frame), [k for k in may if frame > 0 or k in own]] = False
    return torch.cat([fixed.flatten(), torch.tensor([not focal])])


def _moved(state: State, step: Tensor) -> State:
    by_frame = step[:-1].view(-1, PER_FRAME)
    return replace(
        state, poses=cameras.exponential(by_frame[:, POSE]) @ state.poses, frames=state.frames + by_frame[:, 6:],
        focal=state.focal * step[-1].exp(),
    )  # fmt: skip


def _pairs_at_once(level: Level) -> int:
    return max(1, PIXELS_AT_ONCE // (level.size[0] * level.size[1]))


def residuals(level: Level, state: State, pairs: Tensor):
    """Of P pairs at N pixels: whether seen (P, N), both residuals (P, N), and what their derivatives need."""
    i, j = pairs.unbind(1)
    height, width = level.size
    focal = state.focal * width
    y, x = torch.meshgrid(*(torch.arange(n, device=pairs.device) + 0.5 for n in level.size), indexing="ij")
    rays = torch.stack([(x - width / 2) / focal, (y - height / 2) / focal, torch.ones_like(x)], -1).view(-1, 3)
    here = level.maps[i].flatten(2)  # (P, 5, N)
    z = state.depths(here[:, 3], i)
    points = z[..., None] * rays
    between = state.poses[j] @ cameras.inverse(state.poses[i])
    turn, shift = between[:, :3, :3], between[:, :3, 3]
    moved = points @ turn.mT + shift[:, None]
    depth = moved[..., 2]
    front = (depth > 0.05 * z) & (z > 0) & (here[:, 4] > 0)
    safe = torch.where(front, depth, 1)
    u, v = focal * moved[..., 0] / safe + width / 2, focal * moved[..., 1] / safe + height / 2
    place = torch.stack([2 * u / width - 1, 2 * v / height - 1], -1)
    there = F.grid_sample(level.maps[j], place.view(-1, height, width, 2), align_corners=False).flatten(2)
    there[:, 3] /= there[:, 4].clamp(min=1e-6)  # of what is valid around
    inside = (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    other = state.depths(there[:, 3], j)
    seen = front & inside & (there[:, 4] > KNOWN_AROUND) & (other > 0)
    gain, offset = state.frames[:, 2], state.frames[:, 3]
    picture = ((1 + gain[j])[:, None] * there[:, 0] + offset[j][:, None]) - ((1 + gain[i])[:, None] * here[:, 0] + offset[i][:, None])
    other = torch.where(seen, other, 1)
    return seen, picture, torch.log(safe / other), (focal, rays, here, there, points, moved, safe, turn, other)


def _picture_noise(state: State, pairs: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """That of the residual over that of a grey, (P, 1), and its derivatives: gains make it larger with the picture."""
    level = 1 + state.frames[pairs, 2].mean(1)[:, None]
    half = torch.full_like(level, 0.5)
    return level, {GAIN: half, PER_FRAME + GAIN: half}


def _depth_noise(
    state: State, pairs: Tensor, here: Tensor, there: Tensor, depth: Tensor, other: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    """That of the residual over that of a given depth, (P, N), and its derivatives: a shift adds none to what was given."""
    parts, derivatives = [], {}
    for side, (given, z) in enumerate(((here[:, 3], depth), (there[:, 3], other))):
        value = (1 / z if state.inverse else z).clamp(min=1e-6)
        part = (state.frames[pairs[:, side], 0].exp()[:, None] * given / value).clamp(1 / SHARPEST, SHARPEST)
        loose = (part > 1 / SHARPEST) & (part < SHARPEST)
        parts.append(part)
        derivatives[side * PER_FRAME + SCALE] = loose * part.square() * (1 - part) / 2
        derivatives[side * PER_FRAME + SHIFT] = loose * part.square() * (-0.5 * state.unit / value)
    noise = (torch.stack(parts).square().mean(0)).sqrt()
    return noise, {k: each / noise for k, each in derivatives.items()}


def _normal_equations(level: Level, state: State, pairs: Tensor) -> tuple[Tensor, Tensor, float]:
    """Half of the cost's Hessian, (n, n), and slope, (n,), by the parameters of all frames and the focal length; and the cost."""
    count = len(state.poses) * PER_FRAME + 1
    hessian, slope = pairs.new_zeros(count, count, dtype=level.maps.dtype), pairs.new_zeros(count, dtype=level.maps.dtype)
    cost, places = 0.0, 0.0
    for part in pairs.split(_pairs_at_once(level)):
        seen, picture, ratio, more = residuals(level, state, part)
        grey, by_grey = _picture_noise(state, part)
        given, by_given = _depth_noise(state, part, more[2], more[3], more[4][..., 2], more[8])
        picture, ratio = picture / (PICTURE_NOISE * grey), ratio / (DEPTH_NOISE * given)
        size = picture.square() + ratio.square()  # together: what is hidden shows in the depth
        weight = seen / (1 + size)
        at = _places(part, count)
        picture_part = (picture, PICTURE_NOISE, grey, by_grey, _by_picture)
        for residual, unit, noise, by_noise, derivative in (picture_part, (ratio, DEPTH_NOISE, given, by_given, _by_depth)):
            j = derivative(state, part, *more) / (unit * noise)[..., None]
            for k, each in by_noise.items():  # else all would be made flat and grey, where there is less noise
                j[..., k] -= residual * each / noise
            weighted = j * weight[..., None]
            hessian.index_put_((at[:, :, None], at[:, None, :]), weighted.mT @ j, accumulate=True)
            slope.index_put_((at,), (weighted.mT @ residual[..., None]).squeeze(-1), accumulate=True)
        cost += float((seen * torch.log1p(size)).sum())
        places += float(seen.sum())
    # so that a state does not win by showing less
    pixels = len(pairs) * level.size[0] * level.size[1]
    known = max(places, 1.0) / pixels
    weight = 1 / (pixels * max(known, 0.05))
    hessian, slope, cost = hessian * weight, slope * weight, cost * weight + 2 * max(0.0, 0.5 - known)
    prior = PRIOR_WEIGHT / len(state.poses)
    for k, deviation in PRIORS.items():
        every = torch.arange(len(state.poses), device=pairs.device) * PER_FRAME + k
        value = state.frames[:, k - 6]
        hessian[every, every] += prior / deviation**2
        slope[every] += prior * value / deviation**2
        cost += float(prior * (value / deviation).square().sum())
    hessian[-1, -1] += prior / FOCAL_PRIOR**2
    return hessian, slope, cost


def _places(pairs: Tensor, count: int) -> Tensor:
    within = torch.arange(PER_FRAME, device=pairs.device)
    at = (pairs[:, :, None] * PER_FRAME + within).flatten(1)
    return torch.cat([at, at.new_full((len(at), 1), count - 1)], 1)


def _by_picture(state: State, pairs: Tensor, focal, rays, here, there, points, moved, depth, turn, other) -> Tensor:
    """Derivatives of the picture's residual: (P, N, BOTH)."""
    i, j = pairs.unbind(1)
    gain = 1 + state.frames[:, 2]
    dx, dy = gain[j][:, None] * there[:, 1] * focal, gain[j][:, None] * there[:, 2] * focal
    x, y = moved[..., 0] / depth, moved[..., 1] / depth
    by_moved = torch.stack([dx, dy, -(dx * x + dy * y)], -1) / depth[..., None]
    direct = dx * x + dy * y  # by the logarithm of the focal length, at the second camera
    return _chain(state, i, by_moved, direct, rays, here, points, moved, turn, {
        GAIN: -here[:, 0], OFFSET: -torch.ones_like(depth), PER_FRAME + GAIN: there[:, 0], PER_FRAME + OFFSET: torch.ones_like(depth),
    })  # fmt: skip


def _by_depth(state: State, pairs: Tensor, focal, rays, here, there, points, moved, depth, turn, other) -> Tensor:
    """Derivatives of the depth's residual: (P, N, BOTH)."""
    i, j = pairs.unbind(1)
    zero = torch.zeros_like(depth)
    by_moved = torch.stack([zero, zero, 1 / depth], -1)
    by_scale, by_shift = _depth_slopes(state, j, there[:, 3], other)
    return _chain(state, i, by_moved, zero, rays, here, points, moved, turn, {
        PER_FRAME + SCALE: -by_scale / other, PER_FRAME + SHIFT: -by_shift / other,
    })  # fmt: skip


def _depth_slopes(state: State, frames: Tensor, given: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of depths (P, N) of frames (P,) by the log scale and the shift."""
    outer = -depth.square() if state.inverse else torch.ones_like(depth)
    return outer * state.frames[frames, 0].exp()[:, None] * given, outer * state.unit


def _chain(state: State, i: Tensor, by_moved, direct, rays, here, points, moved, turn, others: dict[int, Tensor]) -> Tensor:
    """From derivatives by the moved point, (P, N, 3), to those by all parameters of two frames and the focal length."""
    by_point = by_moved @ turn
    by_depth = (by_point * rays).sum(-1)
    by_scale, by_shift = _depth_slopes(state, i, here[:, 3], points[..., 2])
    whole = by_moved.new_zeros(*by_moved.shape[:2], BOTH)
    whole[..., 0:3], whole[..., 3:6] = -by_point, -torch.linalg.cross(points, by_point)
    whole[..., SCALE], whole[..., SHIFT] = by_depth * by_scale, by_depth * by_shift
    whole[..., PER_FRAME : PER_FRAME + 3], whole[..., PER_FRAME + 3 : PER_FRAME + 6] = by_moved, torch.linalg.cross(moved, by_moved)
    whole[..., -1] = direct - (by_point[..., :2] * points[..., :2]).sum(-1)
    for k, value in others.items():
        whole[..., k] = value
    return whole


def start(count: int, focal: float, depths: Tensor, valid: Tensor, inverse: bool = False) -> State:
    """All cameras at rest. focal: in widths; depths, valid: (F, H, W). Scales make every frame's median that of the first."""
    medians = torch.stack([d[v].median() if v.any() else d.new_tensor(1.0) for d, v in zip(depths, valid, strict=True)])
    frames = depths.new_zeros(count, 4)
    frames[:, 0] = (medians[0] / medians).log()
    return State(torch.eye(4).to(depths).expand(count, 4, 4).clone(), frames, depths.new_tensor(focal), float(medians[0]), inverse)


def set_frame(state: State, frame: int, pose: Tensor, values: Tensor) -> State:
    part = _only(state, [frame])
    return _with(state, [frame], replace(part, poses=pose[None], frames=values[None]))
