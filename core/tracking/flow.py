"""Cameras from how pictures moved, where depth is not known yet.

A point x of one frame that is seen at y in the next tells, for every direction in which the camera may have gone, one number that
the turn has to explain, whatever its depth: how far y is beside the line along which x would move. So a turn is solved for every
direction on a sphere, and the direction whose turn leaves least is refined (subspace method: Heeger and Jepson 1992).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import cameras
from .plane_sweep import LARGEST_DIFFERENCE

RADIUS = 12  # pixels that a point may move along x and along y
AROUND = 3  # pixels on each side of a point, that have to look alike
LEAST_CERTAINTY = 0.3  # of a match that counts: 1 - its cost / that of the best place which is not next to it
THERE_AND_BACK = 1.5  # pixels by which matching back may miss the point
EPIPOLAR_NOISE = 0.5  # pixels from the epipolar line, where Cauchy's weight is a half
NEAR_EPIPOLE = 0.05  # focal lengths from the epipole, where a point has half of its weight: its direction of motion says little
DIRECTIONS, REFINED = 300, 40  # of the camera's motion, that are tried on the whole sphere, and around the best one
SPREADS = (0.15, 0.04)  # of those around the best one, radians: first, and around what is then best
ANOTHER = 0.8  # cosine of the angle between two directions: those with less count as different motions
STEPS = 6  # of Gauss-Newton


def matches(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where the points of a pattern (1, H, W) are in another: (H, W, 2) pixels; and whether that is certain: (H, W)."""
    there, sure = _best(a, b)
    back, _ = _best(b, a)
    height, width = sure.shape
    place = 2 * there / there.new_tensor([width, height]) - 1
    returned = F.grid_sample(back.movedim(-1, 0)[None], place[None], mode="nearest", align_corners=False)[0].movedim(0, -1)
    return there, (sure > LEAST_CERTAINTY) & ((returned - pixels(there)).norm(dim=-1) < THERE_AND_BACK)


def pixels(like: Tensor) -> Tensor:
    """The middles of pixels, (H, W, 2), of a map (H, W, ...)."""
    y, x = torch.meshgrid(*(torch.arange(n, device=like.device) + 0.5 for n in like.shape[:2]), indexing="ij")
    return torch.stack([x, y], -1)


def _best(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Of all places within RADIUS, between pixels, where b is most like a; and how sure, 0..1."""
    (height, width), side = a.shape[-2:], 2 * RADIUS + 1
    candidates = F.unfold(F.pad(b[None], (RADIUS,) * 4, value=torch.inf), side).view(side**2, height, width)
    cost = F.pad((candidates - a).abs().clamp(max=LARGEST_DIFFERENCE)[:, None], (AROUND,) * 4, mode="replicate")
    cost = F.avg_pool2d(cost, 2 * AROUND + 1, 1)[:, 0]
    best, at = cost.min(0)
    row, column = at // side, at % side
    r, c = row.clamp(1, side - 2), column.clamp(1, side - 2)

    def beside(down: int, right: int) -> Tensor:
        return cost.gather(0, ((r + down) * side + c + right)[None])[0]

    def between(low: Tensor, high: Tensor) -> Tensor:
        return ((low - high) / (2 * (low - 2 * beside(0, 0) + high)).clamp(min=1e-6)).clamp(-0.5, 0.5)

    step = torch.stack([c + between(beside(0, -1), beside(0, 1)), r + between(beside(-1, 0), beside(1, 0))], -1) - RADIUS
    rows, columns = (torch.arange(side, device=a.device).view(shape) for shape in ((side, 1, 1, 1), (1, side, 1, 1)))
    apart = ((rows - row).abs() > 2) | ((columns - column).abs() > 2)
    second = cost.view(side, side, height, width).where(apart, torch.inf).amin((0, 1))
    sure = (1 - best / second.clamp(min=1e-6)) * ((r == row) & (c == column))  # at the rim, it may lie beyond
    return pixels(best) + step, sure


def headings(here: Tensor, there: Tensor, sure: Tensor, noise: float, most: int) -> list[Tensor]:
    """The motions of P pairs of frames, poses (P, 4, 4) from the first to the second: the likeliest, and up to `most` of them.

    There is more than one since a flat scene looks alike under two motions (Longuet-Higgins 1986). All pairs are taken to go one way,
    as their first camera sees it. here, there: (P, N, 2), in focal lengths from the middle; sure: (P, N); noise: of a place, in focal
    lengths. Poses are as long as makes the median depth of each pair 1.
    """
    sphere = _sphere(DIRECTIONS).to(here)
    _, cost, _ = _rotations(here, there, sure, sphere, noise)
    motions: list[Tensor] = []
    for _ in range(most):
        direction = sphere[cost.argmin()]
        cost = cost.where(sphere @ direction < ANOTHER, torch.inf)
        motions.append(_motion(here, there, sure, noise, _refined(here, there, sure, noise, direction)))
    return motions


def _refined(here: Tensor, there: Tensor, sure: Tensor, noise: float, direction: Tensor) -> Tensor:
    around = F.pad(_sphere(REFINED).to(here), (0, 0, 1, 0))
    for spread in SPREADS:
        tried = F.normalize(direction + spread * around, dim=-1)
        _, cost, _ = _rotations(here, there, sure, tried, noise)
        direction = tried[cost.argmin()]
    return direction


def _motion(here: Tensor, there: Tensor, sure: Tensor, noise: float, direction: Tensor) -> Tensor:
    turns, _, nearness = _rotations(here, there, sure, direction[None], noise)
    certain = sure & (nearness[0] > 0)
    lengths = torch.stack([n[s].median() if s.any() else n.new_tensor(0.0) for n, s in zip(nearness[0], certain, strict=True)])
    return cameras.rigid(turns[0], (turns[0] @ direction) * lengths[:, None])


def _sphere(count: int) -> Tensor:
    """(count, 3), evenly on a sphere (Fibonacci's lattice)."""
    place = torch.arange(count) + 0.5
    z, angle = 1 - 2 * place / count, math.pi * (1 + 5**0.5) * place
    return torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], -1)


def _rotations(here: Tensor, there: Tensor, sure: Tensor, directions: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (D, P, 3, 3) with which points lie nearest to their epipolar lines, for each direction of motion (D, 3); how far they still
    are, a cost (D,); and 1 / depth (D, P, N), in lengths of a direction: how far points move along their lines."""
    along = directions[:, None, None, :2] - here * directions[:, None, None, 2:]
    length = along.norm(dim=-1)
    across = torch.stack([-along[..., 1], along[..., 0]], -1) / length.clamp(min=1e-6)[..., None]
    trust = sure * length / (length + NEAR_EPIPOLE)
    x, y = here.unbind(-1)
    by_turn = torch.stack([
        across[..., 0] * -x * y - across[..., 1] * (1 + y * y), across[..., 0] * (1 + x * x) + across[..., 1] * x * y,
        across[..., 1] * x - across[..., 0] * y,
    ], -1)  # fmt: skip
    turns = torch.eye(3).to(here).expand(len(directions), len(here), 3, 3)
    for _ in range(STEPS):
        off_line = (across * _displacements(here, there, turns)).sum(-1)
        weighted = by_turn * (trust / (1 + (off_line / noise).square()))[..., None]
        hessian = weighted.mT @ by_turn + 1e-6 * torch.eye(3).to(here)
        change = torch.linalg.solve(hessian, (weighted * off_line[..., None]).sum(-2))
        turns = turns @ cameras.exponential(F.pad(change, (3, 0)))[..., :3, :3]
    displacements = _displacements(here, there, turns)
    off_line, forward = (across * displacements).sum(-1), (along * displacements).sum(-1) / length.clamp(min=1e-6)
    behind = (forward / noise).clamp(-1, 0).abs()  # the camera goes the other way, or the point lies behind it
    cost = (trust * (torch.log1p((off_line / noise).square()) + behind)).sum((1, 2)) / trust.sum((1, 2)).clamp(min=1e-6)
    return turns, cost, forward / length.clamp(min=1e-6)


def _displacements(here: Tensor, there: Tensor, turns: Tensor) -> Tensor:
    """Of points, (D, P, N, 2), with rotations (D, P, 3, 3) taken back."""
    back = F.pad(there, (0, 1), value=1) @ turns
    return back[..., :2] / back[..., 2:].clamp(min=0.1) - here


def step(here: Tensor, there: Tensor, nearness: Tensor, sure: Tensor, noise: float) -> Tensor:
    """The pose (4, 4) from one frame to another that moves points (N, 2) of known 1 / depth (N,) to where they are seen, (N, 2)."""
    pose, ray = torch.eye(4).to(here), F.pad(here, (0, 1), value=1)
    for _ in range(STEPS):
        point = ray @ pose[:3, :3].mT + pose[:3, 3] * nearness[:, None]
        depth = point[:, 2].clamp(min=0.1)
        x, y = (point[:, :2] / depth[:, None]).unbind(-1)
        error = there - torch.stack([x, y], -1)
        weight = sure / (1 + (error.norm(dim=-1) / noise).square())
        o, scale = torch.zeros_like(x), nearness / depth
        by_x = torch.stack([scale, o, -scale * x, -x * y, 1 + x * x, -y], -1)
        by_y = torch.stack([o, scale, -scale * y, -(1 + y * y), x * y, x], -1)
        jacobian = torch.stack([by_x, by_y], 1).flatten(0, 1)
        weighted = jacobian * weight.repeat_interleave(2)[:, None]
        hessian = weighted.mT @ jacobian + 1e-6 * torch.eye(6).to(here)
        pose = cameras.exponential(torch.linalg.solve(hessian, weighted.mT @ error.flatten())) @ pose
    return pose
