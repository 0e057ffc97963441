"""Depth from a moving camera."""

from dataclasses import replace

import pytest
import torch
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.tracking import motion
from freesteer.core.tracking.motion import nearness
from freesteer.core.tracking.plane_sweep import pattern, sweep
from freesteer.core.tracking.tracking import track
from freesteer.playground.rooms import clips
from torch import Tensor

SIZE = (72, 96)


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    drawn = clips.draw("sideways", 24, SIZE)
    return clips.Clip(drawn.frames[:8], drawn.depth[:8], replace(drawn.path, poses=drawn.path.poses[:8]))


def error(near: Tensor, valid: Tensor, clip: clips.Clip) -> float:
    """Mean of |log| up to one scale, where it is valid."""
    off = (near * clip.depth).log()[valid]
    return float((off - off.median()).abs().mean())


def test_a_pattern_is_the_same_in_any_light(clip):
    plain, dark = pattern(clip.frames[:1]), pattern(0.7 * clip.frames[:1] + 0.1)
    assert (plain - dark).abs().mean() < 0.1 * plain.abs().mean()


def test_a_sweep_between_known_cameras_gives_depth(clip):
    focal = float(clip.path.focal[0]) / SIZE[1]
    near, sure = sweep(pattern(clip.frames), clip.path.poses, focal, 4, (2, 3, 5, 6), (0.1, 0.6))
    valid = sure > motion.LEAST_CERTAINTY
    assert valid.float().mean() > 0.8
    assert ((near * clip.depth[4]).log().abs()[valid]).mean() < 0.09


def test_known_cameras_give_depth_in_their_unit(clip):
    near, valid = nearness(clip.frames, float(clip.path.focal[0]) / SIZE[1], clip.path)
    assert valid.float().mean() > 0.7
    assert (near * clip.depth).log()[valid].abs().mean() < 0.08


@pytest.mark.slow
def test_cameras_are_found_without_any_depth(clip):
    focal, shares = float(clip.path.focal[0]) / SIZE[1], []
    near, valid = nearness(clip.frames, focal, progress=shares.append)
    assert near.shape == valid.shape == clip.depth.shape and valid.float().mean() > 0.7
    assert error(near, valid, clip) < 0.15
    tracked = track(clip.frames, near, valid, focal, inverse=True, from_motion=True)
    assert trajectory.ate(tracked.path(SIZE).positions, clip.path.positions) < 0.02 and tracked.lost == []
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.slow
def test_it_may_go_straight_on_and_slowly():
    """Key frames are found, and the frames between them follow."""
    drawn = clips.draw("forward", 48, (48, 64))
    clip = clips.Clip(drawn.frames[:16], drawn.depth[:16], replace(drawn.path, poses=drawn.path.poses[:16]))
    focal = float(clip.path.focal[0]) / 64
    assert 3 <= len(motion._keys(pattern(clip.frames))) < 12
    near, valid = nearness(clip.frames, focal)
    assert valid.float().mean() > 0.4 and error(near, valid, clip) < 0.15


@pytest.fixture(scope="module")
def first(clip) -> motion.Swept:
    """Seven frames whose cameras and depth are known."""
    given = 1 / clip.depth[:7]
    rest = motion.at_rest(float(clip.path.focal[0]) / SIZE[1], given, given > 0, inverse=True)
    return motion.Swept(replace(rest, poses=clip.path.poses[:7].clone()), given, given > 0)


def off(found: Tensor, true: Tensor) -> tuple[float, float]:
    """Between two poses: degrees, and the distance of the cameras."""
    left = cameras.logarithm(found @ cameras.inverse(true))
    return float(left[3:].norm().rad2deg()), float((cameras.inverse(found) - cameras.inverse(true))[:3, 3].norm())


def test_a_frame_is_placed_by_the_depth_of_the_one_before(clip, first):
    patterns = pattern(clip.frames)
    relative = motion._relative_pose(patterns, float(first.state.focal), 6, 7, first.near[6], first.valid[6])
    degrees, distance = off(relative @ clip.path.poses[6], clip.path.poses[7])
    step = off(clip.path.poses[6], clip.path.poses[7])[1]
    assert degrees < 0.3 and distance < 0.15 * step


def test_one_frame_more_is_placed_and_swept(clip, first):
    """Beyond those that it is compared with, which the others stay."""
    assert len(first.near) > motion.PLACED_WITH
    more = motion._next(clip.frames, pattern(clip.frames), first)
    assert len(more.near) == len(more.valid) == len(more.state.poses) == 8
    degrees, distance = off(more.state.poses[7], clip.path.poses[7])
    assert degrees < 1 and distance < off(clip.path.poses[6], clip.path.poses[7])[1]
    early = 8 - motion.ADJUSTED_WITH
    torch.testing.assert_close(more.state.poses[:early], first.state.poses[:early])
    assert error(more.near[7:], more.valid[7:], replace_depth(clip, 7)) < 0.15


def replace_depth(clip: clips.Clip, frame: int) -> clips.Clip:
    return clips.Clip(clip.frames, clip.depth[frame : frame + 1], clip.path)
