import math

import pytest
import torch
from freesteer.core.geometry import cameras
from freesteer.core.geometry.rotations import skew


def twists(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.8


ANGLES = [1e-8, 1e-5, 1e-3, 0.03, 0.0999, 0.1001, 0.5, 1.5, 3.0]


def of_angle(angle: float) -> torch.Tensor:
    twist = twists(20)
    return torch.cat([twist[:, :3], angle * torch.nn.functional.normalize(twist[:, 3:], dim=-1)], -1)


def exact(twist: torch.Tensor) -> torch.Tensor:
    """By squaring, in float64."""
    matrices = twist.new_zeros(len(twist), 4, 4, dtype=torch.float64)
    matrices[:, :3, :3], matrices[:, :3, 3] = skew(twist[:, 3:].double()), twist[:, :3].double()
    return torch.linalg.matrix_exp(matrices)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_exponential_is_that_of_the_matrix(angle):
    twist = of_angle(angle)
    torch.testing.assert_close(cameras.exponential(twist), exact(twist), rtol=1e-12, atol=1e-12 * min(1.0, angle))
    single = twist.float()
    few_ulp = 4 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(cameras.exponential(single).double(), exact(single), rtol=few_ulp, atol=few_ulp)


@pytest.mark.parametrize("angle", ANGLES)
def test_the_logarithm_undoes_the_exponential(angle):
    twist = of_angle(angle)
    found = cameras.logarithm(cameras.exponential(twist))
    torch.testing.assert_close(found[:, :3], twist[:, :3], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, 3:], twist[:, 3:], rtol=1e-12, atol=1e-12 * angle)
    single = exact(twist).float()
    off = (cameras.logarithm(single).double() - cameras.logarithm(single.double())).abs().max()
    assert off < 40 * torch.finfo(torch.float32).eps  # the sine of 3 radians is 7 times smaller than 1, its angle 3 times larger


def test_both_can_be_differentiated_at_rest():
    jacobian = torch.autograd.functional.jacobian(lambda t: cameras.exponential(t)[:3, 3], torch.zeros(6))
    torch.testing.assert_close(jacobian, torch.eye(3, 6))
    there_and_back = torch.autograd.functional.jacobian(lambda t: cameras.logarithm(cameras.exponential(t)), torch.zeros(6))
    torch.testing.assert_close(there_and_back, torch.eye(6))
    for twist in (torch.zeros(1, 6), torch.full((1, 6), 0.05), torch.full((1, 6), 0.5)):
        assert torch.autograd.gradcheck(cameras.exponential, twist.double().requires_grad_())


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


def test_a_camera_sees_its_own_position_at_the_origin():
    pose = cameras.exponential(twists(1))[0]
    camera = cameras.Camera(pose, torch.ones(2), torch.zeros(2), (4, 4))
    torch.testing.assert_close(pose[:3, :3] @ camera.position + pose[:3, 3], torch.zeros(3).double())
    assert camera.position.norm() > 0.1
