"""Quaternions against the formula of Rodrigues, in float64."""

import torch
from freesteer.core.geometry.rotations import matrix, quaternion, skew


def test_a_quaternion_turns_about_its_axis():
    """R = I + sin a [n] + (1 - cos a) [n]^2, q = (cos a/2, n sin a/2)."""
    for i in range(20):
        draw = torch.Generator().manual_seed(i)
        axis = torch.nn.functional.normalize(torch.randn(3, generator=draw, dtype=torch.float64), dim=0)
        angle = 6 * torch.rand((), generator=draw, dtype=torch.float64)
        turn = torch.eye(3).double() + angle.sin() * skew(axis) + (1 - angle.cos()) * skew(axis) @ skew(axis)
        q = torch.cat([(angle / 2).cos()[None], axis * (angle / 2).sin()])
        torch.testing.assert_close(matrix(q), turn)
        torch.testing.assert_close(matrix(3 * q), turn)  # of any length
        torch.testing.assert_close(matrix(quaternion(turn)), turn)
