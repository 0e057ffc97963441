import math

import pytest
import torch
from freesteer.core.geometry import cameras
from freesteer.core.geometry.rotations import skew


def twists(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.8


def test_the_exponential_is_that_of_the_matrix():
    twist = twists(5)
    matrices = torch.zeros(5, 4, 4).double()
    matrices[:, :3, :3], matrices[:, :3, 3] = skew(twist[:, 3:]), twist[:, :3]
    torch.testing.assert_close(cameras.exponential(twist), torch.linalg.matrix_exp(matrices))


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-5, 0.0])
def test_the_logarithm_undoes_the_exponential(size):
    twist = twists(20) * size
    torch.testing.assert_close(cameras.logarithm(cameras.exponential(twist)), twist, rtol=1e-6, atol=1e-9)


def test_the_exponential_can_be_differentiated_at_rest():
    jacobian = torch.autograd.functional.jacobian(lambda t: cameras.exponential(t)[:3, 3], torch.zeros(6))
    torch.testing.assert_close(jacobian, torch.eye(3, 6))
    assert torch.autograd.gradcheck(cameras.exponential, torch.zeros(1, 6).double().requires_grad_())


def test_an_inverse_undoes_a_pose():
    pose = cameras.exponential(twists(4))
    torch.testing.assert_close(pose @ cameras.inverse(pose), torch.eye(4).double().expand(4, 4, 4))


def test_a_camera_sees_its_target_in_the_middle_and_down_below():
    position, target = torch.tensor([3.0, -1.0, -2.0]), torch.tensor([0.5, 0.2, 1.0])
    pose = cameras.look_at(position, target)
    seen = pose[:3, :3] @ target + pose[:3, 3]
    torch.testing.assert_close(seen, torch.tensor([0.0, 0.0, float((target - position).norm())]), atol=1e-5, rtol=0)
    below = pose[:3, :3] @ (target + torch.tensor([0.0, 0.1, 0.0])) + pose[:3, 3]
    assert below[1] > 0
    assert torch.linalg.det(pose[:3, :3]) == pytest.approx(1)


def test_poses_between_two_are_on_the_screw_from_one_to_the_other():
    first, motion = cameras.exponential(twists(1))[0], twists(1, 1)[0] * 0.5
    poses = torch.stack([first, cameras.exponential(motion) @ first])
    between = cameras.interpolate(poses, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(between[1], cameras.exponential(motion / 4) @ first)
    torch.testing.assert_close(between[[0, 2]], poses)


def test_an_orbit_keeps_its_distance_and_looks_at_its_middle():
    target = torch.tensor([1.0, 2.0, 3.0])
    poses = cameras.orbit(target, 2.0, torch.tensor([0.0, 90.0, 200.0]), height=0.5)
    positions = -(poses[:, :3, :3].mT @ poses[:, :3, 3:]).squeeze(-1)
    torch.testing.assert_close((positions - target)[:, [0, 2]].norm(dim=1), torch.full((3,), 2.0))
    torch.testing.assert_close(positions[:, 1], torch.full((3,), 1.5))
    torch.testing.assert_close((poses[:, :3, :3] @ target + poses[:, :3, 3])[:, :2], torch.zeros(3, 2), atol=1e-5, rtol=0)


def test_three_ways_to_one_focal_length():
    size = (480, 640)
    pose = torch.eye(4)
    by_angle = cameras.from_field_of_view(pose, 60, size, over="width")
    assert by_angle.focal[0] == pytest.approx(320 / math.tan(math.radians(30)))
    assert cameras.from_field_of_view(pose, 60, size).focal[0] == pytest.approx(240 / math.tan(math.radians(30)))
    assert by_angle.resized(240, 320).focal[0] == pytest.approx(160 / math.tan(math.radians(30)))
