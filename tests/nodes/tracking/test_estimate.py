# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""Estimate Camera Path, Refine Camera Path, and the measures of both."""

import math
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from freesteer.core.geometry import cameras
from freesteer.core.geometry.cameras import CameraPath
from freesteer.nodes.tracking import clip_inputs as splat_clip_inputs
from freesteer.nodes.tracking.clip_inputs import DEPTH_KINDS
from freesteer.playground.rooms import clips
from torch import Tensor

from ..conftest import noise, path, run, splat
from ..drawn_clips import HEIGHT, WIDTH, ate, clip, of, psnr, unrelated, with_a_stranger

# Estimate Camera Path


@pytest.mark.parametrize("depth_kind", DEPTH_KINDS)
@pytest.mark.parametrize("kind", ["forward", "sideways", "handheld", "arc"])
def test_the_cameras_of_an_exact_clip_are_found(kind: str, depth_kind: str) -> None:
    found, report = run("FreeSteerEstimateCameras", **of(clip(kind), depth_kind))
    assert ate(found, clip(kind).cameras) < 0.01
    torch.testing.assert_close(found.poses[0], torch.eye(4))
    torch.testing.assert_close(found.focal, clip(kind).cameras.focal, rtol=1e-4, atol=0)
    assert found.size == (HEIGHT, WIDTH)
    assert report.startswith("6 cameras;") and "field of view 65.0 degrees" in report and "Lost" not in report
    assert re.search(r"Memory: \d\.\d GB at most\.$", report)


def test_a_camera_that_stands_still_is_told_of() -> None:
    seen = clip("sideways")
    grain = 0.02 * noise(*seen.image.shape)
    for image in (seen.image[:1].expand_as(seen.image), (seen.image[:1] + grain).clamp(0, 1)):
        _, report = run("FreeSteerEstimateCameras", **of(seen, image=image, depth=seen.depth[:1].expand_as(seen.depth)))
        assert "The camera stands still, or only turns" in report
    _, report = run("FreeSteerEstimateCameras", **of(seen))
    assert "stands still" not in report


def test_a_guess_of_the_field_of_view_is_corrected() -> None:
    guess = 0.85 * clip("handheld").field_of_view
    found, _ = run("FreeSteerEstimateCameras", **of(clip("handheld"), field_of_view=guess, field_of_view_known=False))
    assert 2 * math.degrees(math.atan(WIDTH / 2 / float(found.focal[0]))) == pytest.approx(65, abs=3)
    assert ate(found, clip("handheld").cameras) < 0.01


def test_the_cameras_of_a_clip_as_estimated_are_found_nearly() -> None:
    found, _ = run("FreeSteerEstimateCameras", **of(clip("sideways", as_estimated=True)))
    assert ate(found, clip().cameras) < 0.02


def test_depth_may_be_in_any_unit_and_of_any_size() -> None:
    plain, _ = run("FreeSteerEstimateCameras", **of(clip("handheld")))
    feet, metres = (run("FreeSteerEstimateCameras", **of(clip("handheld"), depth=k * clip("handheld").depth))[0] for k in (111, 37))
    torch.testing.assert_close(feet.positions, 3 * metres.positions, rtol=0, atol=0.01 * float(feet.positions.abs().max()))
    double = clip("handheld").depth.repeat_interleave(2, 1).repeat_interleave(2, 2)
    same, _ = run("FreeSteerEstimateCameras", **of(clip("handheld"), depth=double))
    assert torch.equal(same.poses, plain.poses)


def test_a_drawn_depth_without_a_unit_gets_one_in_which_the_viewer_shows_the_scene() -> None:
    path, _ = run("FreeSteerEstimateCameras", **of(clip("handheld"), depth=0.5 * clip("handheld").depth / clip("handheld").depth.max()))
    drawn = clips.draw("handheld", 6, (HEIGHT, WIDTH), 0)
    wanted = drawn.path.positions / drawn.depth[0].median() * splat_clip_inputs.TYPICAL
    lengths = [float((positions[-1] - positions[0]).norm()) for positions in (path.positions, wanted)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.1)


def test_depth_may_be_known_in_single_pixels_only() -> None:
    known = torch.rand(clip().depth.shape[:3], generator=torch.Generator().manual_seed(0)) < 0.3
    found, report = run("FreeSteerEstimateCameras", **of(clip(), depth=clip().depth * known[..., None]))
    assert ate(found, clip().cameras) < 0.01, report


def test_two_pictures_are_enough() -> None:
    drawn = clip("sideways", 6)
    found, report = run("FreeSteerEstimateCameras", **of(drawn, image=drawn.image[:2], depth=drawn.depth[:2]))
    wanted = drawn.cameras.poses[1] @ cameras.inverse(drawn.cameras.poses[0])
    assert len(found) == 2 and "Lost" not in report
    torch.testing.assert_close(found.poses[1, :3, :3], wanted[:3, :3], atol=0.01, rtol=0)
    assert torch.cosine_similarity(found.poses[1, :3, 3], wanted[:3, 3], dim=0) > 0.995


@pytest.mark.parametrize("place", [3, 5])
def test_the_report_names_the_frame_that_does_not_belong(place: int) -> None:
    _, report = run("FreeSteerEstimateCameras", **with_a_stranger(place))
    assert f"Lost at frame {place}: less than" in report


@cache
def test_the_report_names_all_frames_of_unrelated_pictures() -> None:
    _, report = run("FreeSteerEstimateCameras", **of(unrelated()))
    assert "Lost at frame 0, 1, 2, 3, 4: less than" in report


# Refine Camera Path


def test_disturbed_cameras_are_brought_back() -> None:
    scene = splat(300, positions=noise(1, 300, 3) * 1.4 + torch.tensor([-0.7, -0.7, 2.0]), sh=4 * noise(1, 300, 1, 3) - 2)
    true = path(3)
    image = run("FreeSteerRenderSplatPath", splat=scene, cameras=true)[0]
    disturbed = replace(true, poses=cameras.exponential(0.06 * (noise(3, 6) - 0.5)) @ true.poses)
    before = disturbed.poses.clone()
    (found,) = run("FreeSteerRefinePoses", image=image, splat=scene, cameras=disturbed, steps=40)

    def places(of: CameraPath) -> Tensor:
        """Of the splats, in pixels: (F, N, 2)."""
        seen = scene.positions @ of.poses[:, :3, :3].mT + of.poses[:, None, :3, 3]
        return seen[..., :2] / seen[..., 2:] * of.focal

    left, at_first = ((places(each) - places(true)).norm(dim=-1).mean(1) for each in (found, disturbed))
    assert (at_first > 0.4).all() and (left < 0.15).all()
    assert psnr(run("FreeSteerRenderSplatPath", splat=scene, cameras=found)[0], image) > 35
    assert torch.equal(disturbed.poses, before) and torch.equal(found.focal, true.focal) and found.size == true.size


def test_pictures_to_refine_by_may_be_larger_than_the_cameras() -> None:
    scene = splat()
    image = run("FreeSteerRenderSplatPath", splat=scene, cameras=path(2), width=2 * WIDTH)[0]
    (found,) = run("FreeSteerRefinePoses", image=image, splat=scene, cameras=path(2), steps=2)
    torch.testing.assert_close(found.poses, path(2).poses, atol=0.02, rtol=0)
    assert found.size == (HEIGHT, WIDTH)
