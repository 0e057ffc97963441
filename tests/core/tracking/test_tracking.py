"""Cameras from a clip."""

from dataclasses import replace

import pytest
import torch
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.splats.fitting import fit, grown, points_of, refine_pose
from freesteer.core.splats.rasteriser import render
from freesteer.core.tracking import tracking
from freesteer.core.tracking.bundle import agreement
from freesteer.core.tracking.fusion import fused
from freesteer.core.tracking.pyramid import pyramid
from freesteer.core.tracking.state import at_rest
from freesteer.core.tracking.tracking import between, locate, track
from freesteer.playground.rooms import clips

SIZE = (36, 48)


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    drawn = clips.draw("sideways", 24, SIZE)
    return clips.Clip(drawn.frames[:5], drawn.depth[:5], replace(drawn.path, poses=drawn.path.poses[:5]))


def focal_of(clip: clips.Clip) -> float:
    return float(clip.path.focal[0]) / SIZE[1]


def test_the_cameras_of_an_exact_clip_are_found(clip):
    tracked = track(clip.frames, clip.depth, clip.depth > 0, focal_of(clip))
    assert trajectory.ate(tracked.path(SIZE).positions, clip.path.positions) < 0.015
    assert trajectory.rpe(tracked.path(SIZE).poses, clip.path.poses)[1] < 0.1
    assert tracked.lost == [] and tracked.confidence.min() > 0.8
    levels = len(tracked.levels)
    assert levels > 1 and tracked.iterations == 4 * (tracking.STEPS * levels + tracking.LOCAL_STEPS) + tracking.GLOBAL_STEPS * levels


def test_of_a_long_clip_the_frames_between_follow_the_keyframes(clip, monkeypatch):
    together = []
    adjust = tracking.adjust

    def watched(level, state, pairs, free, *more, **options):
        together.append(len(free))
        return adjust(level, state, pairs, free, *more, **options)

    monkeypatch.setattr(tracking, "adjust", watched)
    monkeypatch.setattr(tracking, "MOST_KEYFRAMES", 3)
    tracked = track(clip.frames, clip.depth, clip.depth > 0, focal_of(clip))
    assert trajectory.ate(tracked.path(SIZE).positions, clip.path.positions) < 0.015
    assert together.count(3) >= len(tracked.levels) and together[-1] == 1  # keys 0, 2, 4; then 1 and 3, each alone


def test_agreement_is_a_share_of_what_is_known_of_the_first_of_a_pair(clip):
    twice, known = (torch.stack([each[0], each[0]]) for each in (clip.frames, clip.depth > 0))
    known[0, :, : SIZE[1] // 2] = False
    level = pyramid(twice, clip.depth[[0, 0]], known)[-1]
    state = at_rest(focal_of(clip), clip.depth[[0, 0]], known, False)
    for pair, share in (((0, 1), 1.0), ((1, 0), 0.5)):
        assert agreement(level, state, [pair]).tolist() == pytest.approx([share] * 2, abs=0.15)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_unit_of_given_cameras_becomes_that_of_the_depth(clip, inverse):
    path = replace(clip.path, poses=clip.path.poses @ cameras.exponential(torch.tensor([1.0, 2.0, 3.0, 0.3, 0.2, 0.1])))
    given = 7 * (1 / clip.depth if inverse else clip.depth)
    tracked = locate(clip.frames, given, given > 0, path, inverse)
    depths = tracked.state.depths(tracked.levels[-1].depth)
    assert (depths / clip.depth).log().abs().mean() < 0.05
    assert torch.equal(tracked.state.poses, path.poses) and tracked.lost == []


def test_scales_shifts_and_exposures_are_found(clip):
    scale = torch.tensor([1.0, 0.6, 1.7, 0.9, 1.3])[:, None, None]
    shift = torch.tensor([0.0, 0.2, -0.2, 0.1, 0.0])[:, None, None]
    light = torch.tensor([1.0, 0.9, 1.05, 1.1, 0.95])[:, None, None, None]
    given = (clip.depth - shift) / scale
    tracked = track(clip.frames * light, given, given > 0, focal_of(clip))
    assert trajectory.ate(tracked.path(SIZE).positions, clip.path.positions) < 0.02
    depths = tracked.state.depths(given)
    assert ((depths / clip.depth).log() - (depths / clip.depth).log().mean()).abs().mean() < 0.03


@pytest.mark.slow
def test_a_scene_does_not_shrink_in_a_slow_clip():
    """A line fitted to noise is too flat, and so would be every frame, after the one before it."""
    clip = clips.draw("forward", 60, SIZE)
    pictures, depth = clips.corrupted(clip)
    tracked = track(pictures, depth, depth > 0, focal_of(clip))
    assert tracked.lost == []
    assert trajectory.ate(tracked.path(SIZE).positions, clip.path.positions) < 0.002
    depths, exposures = tracked.state.depths(depth), pictures.mean((1, 2, 3)) / clip.frames.mean((1, 2, 3))
    off = torch.stack([(found / true)[known].median() for found, true, known in zip(depths, clip.depth, depth > 0, strict=True)])
    assert (off / off[0]).log().abs().max() < 0.05
    assert ((1 + tracked.state.gain) * exposures / exposures[0]).log().abs().max() < 0.1


def test_a_wrong_focal_length_is_mended():
    clip = clips.draw("sideways", 8, (72, 96))
    true = float(clip.path.focal[0]) / 96
    tracked = track(clip.frames, clip.depth, clip.depth > 0, 1.2 * true, focal_known=False)
    assert abs(float(tracked.state.focal) / true - 1) < 0.1


def test_pictures_that_have_nothing_in_common_are_lost():
    pictures = torch.rand(3, *SIZE, 3, generator=torch.Generator().manual_seed(0))
    depth = 1 + torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1))
    assert track(pictures, depth, depth > 0, 0.8).lost


def test_fused_depth_is_steadier(clip):
    noisy = clip.depth * torch.exp(0.05 * torch.randn(clip.depth.shape, generator=torch.Generator().manual_seed(0)))
    level = pyramid(clip.frames, noisy, noisy > 0)[-1]
    state = replace(at_rest(focal_of(clip), noisy, noisy > 0), poses=clip.path.poses, log_scale=torch.zeros(5))
    found = fused(level, state, between(range(5), (1, 2, 3)))
    before, after = ((d / clip.depth).log().abs().mean() for d in (noisy, found))
    assert after < 0.7 * before


def test_a_frame_brings_points_only_where_the_scene_lacks_them(clip):
    first = points_of(clip.frames, clip.depth[0], clip.depth[0] > 0, clip.path, 0)
    assert len(first) == SIZE[0] * SIZE[1]
    both = grown(first, clip.frames, clip.depth, clip.path, [0, 4])
    fresh = len(both) - len(first)
    assert 0 < fresh < 0.5 * len(first)
    assert render(both, clip.path[4]).alpha.mean() > render(first, clip.path[4]).alpha.mean()


def test_fitting_shows_the_pictures_and_brings_cameras_back(clip):
    scene = grown(None, clip.frames, clip.depth, clip.path, [0, 2, 4])
    found = fit(scene, clip.frames, clip.depth, clip.path, torch.zeros(5, 2), 60)
    error = (render(found.gaussians, found.path[2]).colour - clip.frames[2]).square().mean()
    assert error < 0.003
    away = cameras.exponential(torch.tensor([0.02, 0.01, 0.0, 0.0, 0.01, 0.0])) @ found.path.poses[2]
    back = refine_pose(found.gaussians, clip.frames[2], found.path[2].at(away), 60)
    left, before = (cameras.logarithm(pose @ cameras.inverse(found.path.poses[2])).norm() for pose in (back, away))
    assert left < 0.5 * before
