"""Cameras from points that are found again."""

import pytest
import torch
import torch.nn.functional as F
from freesteer.core.geometry import cameras
from freesteer.core.tracking import flow
from freesteer.core.tracking.plane_sweep import pattern

NOISE = 0.005


def seen(count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of points (N, 2) in focal lengths, and their depths (N,)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=draw) - 0.5, 1 + 3 * torch.rand(count, generator=draw)


def moved(here: torch.Tensor, depth: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    points = F.pad(here, (0, 1), value=1) * depth[:, None] @ pose[:3, :3].mT + pose[:3, 3]
    return points[:, :2] / points[:, 2:]


def wrong(there: torch.Tensor) -> torch.Tensor:
    """A fifth of the points are found where they are not."""
    there = there.clone()
    there[::5] += 0.2 * torch.randn(there[::5].shape, generator=torch.Generator().manual_seed(1))
    return there


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.rad2deg(torch.acos((F.normalize(a, dim=0) * F.normalize(b, dim=0)).sum().clamp(-1, 1))))


@pytest.mark.parametrize("direction", [(1.0, 0, 0), (0, -1.0, 0), (0, 0, 1.0), (0, 0, -1.0), (0.5, 0.3, -0.6)])
def test_the_way_and_the_turns_of_a_camera_are_found_whatever_the_depth(direction):
    here, depth = seen()
    turns = (torch.tensor([0.02, -0.09, 0.01]), torch.tensor([-0.01, 0.03, 0.05]))
    poses = [cameras.exponential(F.pad(turn, (3, 0))) for turn in turns]
    for pose in poses:
        pose[:3, 3] = pose[:3, :3] @ (0.15 * F.normalize(torch.tensor(direction), dim=0))
    there = torch.stack([wrong(moved(here, depth, pose)) for pose in poses])
    sure = torch.ones(there.shape[:2], dtype=torch.bool)
    moves = flow.headings(here.expand_as(there), there, sure, NOISE, 1)[0]
    assert degrees(moves[0, :3, :3].mT @ moves[0, :3, 3], torch.tensor(direction)) < 2
    for move, pose in zip(moves, poses, strict=True):
        assert cameras.logarithm(move @ cameras.inverse(pose))[3:].norm() < 0.005
        assert float(move[:3, 3].norm() / 0.15 * depth.median()) == pytest.approx(1, abs=0.15)  # the unit: the median depth


def test_both_motions_that_a_flat_scene_allows_are_found():
    """Of a plane n.x = 1 seen by R (x + t), the other is that by R' (x + n / |n| |t|) of the plane along t (Longuet-Higgins 1986)."""
    here, _ = seen()
    normal, way = torch.tensor([0.3, -0.2, 1.0]), torch.tensor([0.15, 0.1, 0.0])
    depth = 1 / (F.pad(here, (0, 1), value=1) @ normal)
    pose = cameras.exponential(torch.tensor([0.0, 0.0, 0.0, 0.02, 0.03, 0.01]))
    pose[:3, 3] = pose[:3, :3] @ way
    there = moved(here, depth, pose)[None]
    found = flow.headings(here[None], there, torch.ones(there.shape[:2], dtype=torch.bool), NOISE, 3)
    ways = [F.normalize(move[0, :3, :3].mT @ move[0, :3, 3], dim=0) for move in found]
    for wanted in (way, normal):
        assert min(degrees(each, sign * wanted) for each in ways for sign in (1, -1)) < 5


def test_a_frame_is_placed_by_points_of_known_depth():
    here, depth = seen()
    pose = cameras.exponential(torch.tensor([0.1, -0.2, 0.3, 0.05, -0.1, 0.2]))
    sure = torch.ones(len(here), dtype=torch.bool)
    found = flow.step(here, wrong(moved(here, depth, pose)), 1 / depth, sure, NOISE)
    torch.testing.assert_close(found, pose, atol=2e-3, rtol=0)
    assert torch.equal(flow.step(here, moved(here, depth, pose), 1 / depth, ~sure, NOISE), torch.eye(4))  # nothing known: it stays


def test_a_frame_lies_where_the_robust_cost_is_least():
    """Of log(1 + |error|^2 / noise^2), summed over what is sure: its slope there is little beside that nearby, where points are off."""
    here, depth = seen()
    pose = cameras.exponential(torch.tensor([0.04, -0.02, 0.05, 0.01, 0.02, -0.01]))
    sure = torch.arange(len(here)) % 7 > 0
    there = wrong(moved(here, depth, pose) + NOISE / 2 * torch.randn(here.shape, generator=torch.Generator().manual_seed(2)))

    def slope(at: torch.Tensor) -> float:
        change = torch.zeros(6, requires_grad=True)
        error = there - moved(here, depth, cameras.exponential(change) @ at)
        return float(torch.autograd.grad((sure * (error.square().sum(-1) / NOISE**2).log1p()).sum(), change)[0].norm())

    found = flow.step(here, there, 1 / depth, sure, NOISE)
    assert slope(found) < 0.003 * slope(cameras.exponential(torch.full((6,), 1e-3)) @ found)


def test_points_are_found_again_between_pixels():
    draw = torch.Generator().manual_seed(0)
    wide = F.interpolate(torch.rand(1, 3, 24, 24, generator=draw), (192, 192), mode="bicubic")[..., 20:-20, 20:-20]
    a, b = (F.avg_pool2d(wide[..., dy : dy + 96, dx : dx + 128], 2)[0].movedim(0, -1) for dy, dx in ((0, 0), (5, 9)))
    there, sure = flow.matches(*pattern(torch.stack([a, b])))
    off = (flow.pixels(there) - there - torch.tensor([4.5, 2.5]))[sure]
    assert sure.float().mean() > 0.5 and off.norm(dim=-1).median() < 0.4


def test_what_is_not_there_is_not_sure():
    a, b = pattern(torch.rand(2, 48, 64, 3, generator=torch.Generator().manual_seed(0)))
    assert flow.matches(a, b)[1].float().mean() < 0.02
