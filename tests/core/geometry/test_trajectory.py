"""Path errors: against hand-made cases, and against evo (github.com/MichaelGrupp/evo), which computes them in its own way."""

import math
from importlib import import_module

import pytest
import torch
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.geometry.cameras import CameraPath
from freesteer.tests.placing import transformed

FRAMES = 12


def poses(seed: int = 0, count: int = FRAMES) -> torch.Tensor:
    """A walk, world to camera."""
    twists = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.3
    twists[:, 2] += 0.5
    walk = [torch.eye(4, dtype=torch.float64)]
    for step in cameras.exponential(twists[1:]):
        walk.append(step @ walk[-1])
    return torch.stack(walk)


def path(seed: int = 0) -> CameraPath:
    return CameraPath(poses(seed), torch.tensor([90.0, 80.0]).double(), torch.tensor([50.0, 41.0]).double(), (80, 100))


def shaken(true: torch.Tensor, by: float = 0.05, seed: int = 5) -> torch.Tensor:
    twists = torch.randn(len(true), 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * by
    return cameras.exponential(twists) @ true


def known() -> trajectory.Similarity:
    turn = cameras.exponential(torch.tensor([0.0, 0, 0, 1.0, -2.0, 0.5], dtype=torch.float64))[:3, :3]
    return trajectory.Similarity(2.5, turn, torch.tensor([3.0, -1.0, 7.0], dtype=torch.float64))


def positions(of: torch.Tensor) -> torch.Tensor:
    return cameras.inverse(of)[:, :3, 3]


def assert_same(found: trajectory.Similarity, wanted: trajectory.Similarity) -> None:
    assert found.scale == pytest.approx(wanted.scale)
    torch.testing.assert_close(found.rotation, wanted.rotation)
    torch.testing.assert_close(found.translation, wanted.translation)


def test_the_similarity_between_two_copies_is_found_again():
    source = path().positions
    assert_same(trajectory.similarity(source, known().of(source)), known())


def test_no_similarity_nearby_is_better():
    source, target = path().positions, known().of(path(1).positions)
    best = trajectory.similarity(source, target)

    def error(of: trajectory.Similarity) -> float:
        return float((of.of(source) - target).square().sum())

    for twist in torch.cat([torch.eye(6), -torch.eye(6)]).double() * 1e-3:
        near = cameras.exponential(twist)
        turned = trajectory.Similarity(best.scale, near[:3, :3] @ best.rotation, best.translation + near[:3, 3])
        assert error(turned) > error(best)
    for factor in (0.999, 1.001):
        assert error(best._replace(scale=best.scale * factor)) > error(best)


def test_a_mirrored_path_is_turned_but_not_mirrored_back():
    source = path().positions
    mirrored = source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    found = trajectory.similarity(source, mirrored)
    assert torch.linalg.det(found.rotation) == pytest.approx(1)
    assert trajectory.ate(source, mirrored) > 0.01


def test_a_straight_path_can_be_aligned_too():
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    turned = line @ cameras.exponential(torch.tensor([0.0, 0, 0, 0.3, 0.2, 0.1]))[:3, :3].mT * 3 + 1
    assert trajectory.aligned_rmse(line, turned) < 1e-5
    assert torch.linalg.det(trajectory.similarity(line, turned).rotation) == pytest.approx(1)


def test_the_similarity_stays_in_the_type_that_came():
    source = path().positions.float()
    found = trajectory.similarity(source, known().of(source.double()))
    assert found.rotation.dtype == found.translation.dtype == torch.float32
    torch.testing.assert_close(found.of(source), known().of(source.double()).float(), rtol=1e-5, atol=1e-5)


def test_errors_vanish_for_a_path_in_another_frame():
    true = path()
    estimated = transformed(true, known())
    assert trajectory.ate(estimated.positions, true.positions) < 1e-12
    assert trajectory.aligned_rmse(estimated.positions, true.positions) < 1e-12
    assert trajectory.rpe(estimated.poses, true.poses) == pytest.approx((0, 0), abs=1e-12)


def test_the_error_of_a_known_departure():
    """A square path with two opposite corners lifted and two lowered by d: nothing of it can be aligned away."""
    square = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]).double()
    bent = square + 0.1 * torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 1], [0, 0, -1]]).double()
    assert trajectory.aligned_rmse(square, bent) == pytest.approx(0.1)
    assert trajectory.ate(square, bent) == pytest.approx(0.1 / math.sqrt(4 * 1.01))
    # the other way the bent one is scaled down: what is left of 1.01 is its part along the square, 1 / 1.01
    assert trajectory.aligned_rmse(bent, square) == pytest.approx(math.sqrt(1 - 1 / 1.01))
    assert trajectory.aligned_rmse(7 * square + 3, bent) == pytest.approx(0.1)
    assert trajectory.aligned_rmse(square, 7 * bent) == pytest.approx(0.7)
    assert trajectory.ate(square, 7 * bent) == pytest.approx(trajectory.ate(square, bent))


def line(*places: float) -> torch.Tensor:
    """Poses of a camera that looks along +z from places on that axis."""
    found = torch.eye(4, dtype=torch.float64).repeat(len(places), 1, 1)
    found[:, 2, 3] = -torch.tensor(places)
    return found


def test_a_camera_that_turns_too_much_at_each_step():
    """By 3 degrees about its own place: in its own frame, each step then goes astray by all that it has turned so far."""
    true = line(0, 2, 4, 6)
    turned = [math.radians(3 * frame) for frame in range(4)]
    twists = torch.zeros(4, 6, dtype=torch.float64)
    twists[:, 4] = torch.tensor(turned)
    astray = [2 * 2 * math.sin(angle / 2) for angle in turned[:-1]]
    assert trajectory.rpe(cameras.exponential(twists) @ true, true) == pytest.approx((sum(astray) / 3, 3))


def test_a_camera_that_leaves_out_its_last_step():
    """The least squared error is at 8 / 6.8 of its own scale."""
    scale = 8 / 6.8
    assert trajectory.rpe(line(0, 1, 2, 3, 3), line(0, 1, 2, 3, 4)) == pytest.approx(((3 * (scale - 1) + 1) / 4, 0))


@pytest.mark.parametrize("degrees", [1e-5, 90.0, 180.0])
def test_angles_are_exact_at_both_ends(degrees):
    turn = torch.zeros(2, 6, dtype=torch.float64)
    turn[1, 3:] = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0]), dim=0) * math.radians(degrees)
    still = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    assert trajectory.rpe(cameras.exponential(turn), still)[1] == pytest.approx(degrees, rel=1e-6)


def test_a_camera_that_only_turns_has_no_path_but_has_steps():
    still = torch.eye(4).repeat(4, 1, 1)
    with pytest.raises(ValueError, match="never moves"):
        trajectory.ate(positions(still), path().positions[:4])
    with pytest.raises(ValueError, match="never moves"):
        trajectory.similarity(path().positions[:4], positions(still))
    # at a place that float32 cannot hold still, rounding is no motion
    twists = torch.nn.functional.pad(torch.linspace(0, 1, 9)[:, None] * torch.tensor([0.3, 1.0, -0.4]), (3, 0))
    place = cameras.rigid(torch.eye(3), torch.tensor([2.3, 4.1, -7.7]))
    turning = cameras.exponential(twists) @ place
    assert positions(turning).std(0).max() > 0
    with pytest.raises(ValueError, match="never moves"):
        trajectory.aligned_rmse(positions(turning), path().positions[:9])
    assert trajectory.rpe(turning, turning) == pytest.approx((0, 0), abs=1e-4)
    moving = poses()[:9]
    steps = (moving[:-1] @ cameras.inverse(moving[1:]))[:, :3, 3].norm(dim=1).mean()
    assert trajectory.rpe(still[:1].expand(9, 4, 4), moving)[0] == pytest.approx(float(steps))


def test_paths_of_different_lengths_are_not_compared():
    with pytest.raises(ValueError, match="have 12 and 11"):
        trajectory.ate(path().positions, path().positions[1:])
    with pytest.raises(ValueError, match="have 12 and 11"):
        trajectory.rpe(poses(), poses()[1:])
    with pytest.raises(ValueError, match="two or more"):
        trajectory.rpe(poses()[:1], poses()[:1])


def test_it_agrees_with_evo():
    metrics, geometry, paths = (import_module(f"evo.core.{name}") for name in ("metrics", "geometry", "trajectory"))

    true = poses()
    estimated = transformed(CameraPath(shaken(true), torch.ones(2), torch.ones(2), (1, 1)), known())
    x, y = estimated.positions, positions(true)
    turn, shift, scale = geometry.umeyama_alignment(x.numpy().T, y.numpy().T, with_scale=True)
    assert_same(trajectory.similarity(x, y), trajectory.Similarity(scale, torch.from_numpy(turn), torch.from_numpy(shift)))

    def evo_path(world_to_camera: torch.Tensor):
        return paths.PosePath3D(poses_se3=list(cameras.inverse(world_to_camera).numpy()))

    def error(metric, statistic) -> float:
        metric.process_data((reference, aligned))
        return metric.get_statistic(statistic)

    reference, aligned = evo_path(true), evo_path(estimated.poses)
    aligned.align(reference, correct_scale=True)
    rmse = error(metrics.APE(metrics.PoseRelation.translation_part), metrics.StatisticsType.rmse)
    assert trajectory.aligned_rmse(x, y) == pytest.approx(rmse, rel=1e-9)
    assert trajectory.ate(x, y) == pytest.approx(rmse / float((y - y.mean(0)).norm()), rel=1e-9)
    translation = error(metrics.RPE(metrics.PoseRelation.translation_part), metrics.StatisticsType.mean)
    rotation = error(metrics.RPE(metrics.PoseRelation.rotation_angle_deg), metrics.StatisticsType.mean)
    assert rotation > 1
    assert trajectory.rpe(estimated.poses, true) == pytest.approx((translation, rotation), rel=1e-6)
