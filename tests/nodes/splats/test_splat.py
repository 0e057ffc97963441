# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""From a clip to cameras and splats, and from those to pictures, files and numbers: every node does what its tooltips say."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
import pytest
import torch
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.geometry.cameras import CameraPath
from freesteer.core.measures import views
from freesteer.core.splats import harmonics
from freesteer.core.splats.reconstruction import Preset
from freesteer.host import load3d_camera
from freesteer.nodes.cameras import previews
from freesteer.nodes.cameras.paths import FORMATS
from freesteer.nodes.cameras.previews import HEAD, PANEL
from freesteer.nodes.splats import reconstruct as splat_reconstruct
from freesteer.nodes.tracking import clip_inputs as splat_clip_inputs
from freesteer.nodes.tracking.clip_inputs import DEPTH_KINDS, DISTANCE, INVERSE, LINEAR, Lens, clip_of
from freesteer.playground.rooms import clips
from freesteer.tests.placing import transformed
from torch import Tensor

from ..conftest import CLASSES, needs_splat, noise, path, run, splat
from ..conftest import host_camera as camera_info

WIDTH, HEIGHT = 48, 36
LIKE = 21.0  # dB, of pictures of a reconstruction after 40 iterations; measured: 22.7 to 23.5
SMALL = Preset(40, 2)


class Clip(NamedTuple):
    image: Tensor
    depth: Tensor
    cameras: CameraPath
    field_of_view: float


@cache
def clip(kind: str = "sideways", frames: int = 6, as_estimated: bool = False, seed: int = 0, width: int = WIDTH) -> Clip:
    inputs = {"kind": kind, "frames": frames, "as_estimated": as_estimated, "seed": seed}
    return Clip(*run("FreeSteerPlaygroundClip", width=width, height=width * HEIGHT // WIDTH, **inputs))


def depth_as(kind: str, depth: Tensor) -> Tensor:
    """Distance, as a node of another kind of depth would show it."""
    return {DISTANCE: depth, INVERSE: depth.amin() / depth, LINEAR: 1 - depth / depth.amax()}[kind]


def of(drawn: Clip, kind: str = DISTANCE, **changed: Any) -> dict[str, Any]:
    """The inputs of Reconstruct Splats From Video and Estimate Camera Path."""
    given = {"image": drawn.image, "depth": depth_as(kind, drawn.depth), "depth_kind": kind, "field_of_view": drawn.field_of_view}
    return {**given, "field_of_view_known": True, **changed}


def ate(found: CameraPath, true: CameraPath) -> float:
    return trajectory.ate(found.positions, true.positions)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(views.psnr(a, b).mean())


def white(**changed: object):
    """Of conftest's cloud."""
    return splat(sh=torch.full((1, 40, 1, 3), 0.5 / harmonics.DC), **changed)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", SMALL)


@pytest.fixture(scope="module")
def made() -> tuple[Any, CameraPath, Tensor, str]:
    """A reconstruction of an exact clip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(splat_reconstruct.PRESETS, "preview", SMALL)
        return run("FreeSteerReconstructSplats", **of(clip()))


# Draw Clip


def test_a_clip_is_drawn_exactly_or_as_it_would_be_estimated() -> None:
    true = clips.draw("arc", 4, (HEIGHT, WIDTH), 0)
    exact, estimated = clip("arc", 4), clip("arc", 4, as_estimated=True)
    assert torch.equal(exact.image, true.frames)
    torch.testing.assert_close(exact.depth, (true.depth / true.depth.max())[..., None].expand(-1, -1, -1, 3))
    assert not torch.equal(estimated.image, exact.image) and psnr(estimated.image, exact.image) > 20
    assert (estimated.depth == 0).any() and not (exact.depth == 0).any()
    scales = (estimated.depth / exact.depth)[..., 0].flatten(1).median(1).values
    assert scales.max() > 1.2 * scales.min()
    for drawn in (exact, estimated):
        assert drawn.image.shape == drawn.depth.shape == (4, HEIGHT, WIDTH, 3)
        assert drawn.depth.min() >= 0 and drawn.depth.max() == 1 and drawn.image.min() >= 0 and drawn.image.max() <= 1
        assert torch.equal(drawn.cameras.poses, true.path.poses) and drawn.cameras.size == (HEIGHT, WIDTH)
        assert 2 * math.degrees(math.atan(WIDTH / 2 / float(drawn.cameras.focal[0]))) == pytest.approx(drawn.field_of_view)


def test_a_clip_repeats_by_its_seed() -> None:
    again = Clip(*run("FreeSteerPlaygroundClip", kind="arc", frames=4, width=WIDTH, height=HEIGHT, as_estimated=True, seed=0))
    assert torch.equal(again.image, clip("arc", 4, True).image) and torch.equal(again.depth, clip("arc", 4, True).depth)
    other = run("FreeSteerPlaygroundClip", kind="arc", frames=2, width=32, height=32, as_estimated=True, seed=2**64 - 1)[0]
    assert other.shape == (2, 32, 32, 3)
    assert not torch.equal(other, run("FreeSteerPlaygroundClip", kind="arc", frames=2, width=32, height=32, seed=1)[0])


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


def with_a_stranger(place: int) -> dict[str, Any]:
    """A clip with one frame of another scene."""
    image, depth = clip().image.clone(), clip().depth.clone()
    image[place], depth[place] = clip("handheld").image[2], clip("handheld").depth[2]
    return of(clip(), image=image, depth=depth)


@pytest.mark.parametrize("place", [3, 5])
def test_the_report_names_the_frame_that_does_not_belong(place: int) -> None:
    _, report = run("FreeSteerEstimateCameras", **with_a_stranger(place))
    assert f"Lost at frame {place}: less than" in report


@cache
def unrelated() -> Clip:
    """A frame of each kind of clip."""
    image, depth = (torch.cat([getattr(clip(kind, 4), part)[:1] for kind in clips.KINDS]) for part in ("image", "depth"))
    return Clip(image, depth, clip().cameras, 65.0)


def test_the_report_names_all_frames_of_unrelated_pictures() -> None:
    _, report = run("FreeSteerEstimateCameras", **of(unrelated()))
    assert "Lost at frame 0, 1, 2, 3, 4: less than" in report


# Reconstruct Splats From Video


@needs_splat
def test_a_clip_becomes_a_scene_that_looks_like_it(made) -> None:
    from comfy_api.latest import Types

    scene, found, preview, report = made
    assert isinstance(scene, Types.SPLAT) and scene.counts is None
    count = scene.positions.shape[1]
    assert 500 < count < 20_000
    parts = ("positions", "scales", "rotations", "opacities", "sh")
    assert [tuple(getattr(scene, part).shape) for part in parts] == [
        (1, count, 3), (1, count, 3), (1, count, 4), (1, count, 1), (1, count, 1, 3),
    ]  # fmt: skip
    for part in (getattr(scene, part) for part in parts):
        assert part.dtype == torch.float32 and part.device.type == "cpu" and not part.requires_grad and torch.isfinite(part).all()
    assert ate(found, clip().cameras) < 0.01
    assert preview.shape == clip().image.shape and psnr(preview, clip().image) > LIKE
    assert report.startswith("6 cameras;") and "Lost" not in report
    shown, alpha, depth = run("FreeSteerRenderSplatPath", splat=scene, cameras=found)
    torch.testing.assert_close(shown, preview, atol=1e-5, rtol=0)
    assert alpha.mean() > 0.9
    assert torch.corrcoef(torch.stack([depth[..., 0].flatten(), depth_as(INVERSE, clip().depth)[..., 0].flatten()]))[0, 1] > 0.9


@needs_splat
@pytest.mark.parametrize("depth_kind", [INVERSE, LINEAR])
def test_every_kind_of_depth_is_taken(depth_kind: str) -> None:
    scene, found, _, _ = run("FreeSteerReconstructSplats", **of(clip(), depth_kind))
    assert ate(found, clip().cameras) < 0.01
    assert psnr(run("FreeSteerRenderSplatPath", splat=scene, cameras=found)[0], clip().image) > LIKE


@needs_splat
@pytest.mark.parametrize(("depth_kind", "unit"), [(DISTANCE, 1e-4), (DISTANCE, 100.0), (DISTANCE, 1e7), (INVERSE, 255.0), (INVERSE, 1e-6)])
def test_depth_may_be_in_any_unit_for_splats_too(monkeypatch: pytest.MonkeyPatch, depth_kind: str, unit: float) -> None:
    """Nothing is nearer than what can be drawn, and cameras move by shares of the depth."""
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", Preset(20, 2))
    depth = unit * depth_as(depth_kind, clip().depth)
    _, found, preview, _ = run("FreeSteerReconstructSplats", **of(clip(), depth_kind, depth=depth))
    assert ate(found, clip().cameras) < 0.002 and psnr(preview, clip().image) > LIKE - 1  # measured: .0009, 21.6


@needs_splat
def test_the_host_draws_the_scene_too(made) -> None:
    host = pytest.importorskip("comfy_extras.nodes_gaussian_splat")
    scene, found, _, _ = made
    (camera,) = run("FreeSteerCameraOfPath", cameras=found, frame=2 - len(found), distance=3.0)
    options = {"frames": 1, "splat_scale": 1.0, "sharpen": 1.0, "headlight_shading": 0.0, "opacity_threshold": 0.0}
    seen = host.RenderSplat.execute(
        scene, 4 * WIDTH, 4 * HEIGHT, **options, background="#000000", render_style="color", camera_info=camera
    ).result[0]
    ours = run("FreeSteerRenderSplatPath", splat=scene, cameras=found, width=4 * WIDTH)[0][2:3]
    assert psnr(seen[:1], ours) > LIKE  # measured: 23.5; the host's pixels lie half a pixel aside


@needs_splat
def test_the_host_writes_the_scene_to_a_file_and_reads_it_back(made) -> None:
    host = pytest.importorskip("comfy_extras.nodes_gaussian_splat")
    scene, found, preview, _ = made
    (file,) = host.SplatToFile3D.execute(scene, "ply").result
    (back,) = host.File3DToSplat.execute(file).result
    torch.testing.assert_close(run("FreeSteerRenderSplatPath", splat=back, cameras=found)[0], preview, atol=1e-4, rtol=0)


@pytest.mark.slow
@needs_splat
def test_what_is_masked_is_left_out() -> None:
    image, mask = clip().image.clone(), torch.zeros(6, HEIGHT, WIDTH)
    for frame in range(6):
        across = slice(4 + 6 * frame, 12 + 6 * frame)
        image[frame, 12:26, across] = torch.tensor([1.0, 0, 0])
        mask[frame, 11:27, max(0, across.start - 1) : across.stop + 1] = 1
    errors = []
    for given in ({}, {"mask": mask}):
        preview = run("FreeSteerReconstructSplats", **of(clip(), image=image), **given)[2]
        errors.append(float((preview - clip().image)[mask > 0].square().mean()))
    assert errors[1] < 0.4 * errors[0]  # measured: .27


@pytest.mark.slow
@needs_splat
@pytest.mark.parametrize("unit", [1.0, 30.0])
def test_cameras_that_are_known_keep_their_place_and_unit(unit: float) -> None:
    """Of COLMAP, say: the world is theirs, whatever the unit of the depth."""
    true, move = clip("arc").cameras, cameras.exponential(torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0, -0.5]))
    moved = true.poses @ move
    moved[:, :3, 3] *= unit
    given = replace(true, poses=moved, focal=true.focal * 2, centre=true.centre * 2, size=(2 * HEIGHT, 2 * WIDTH))
    for drawn, depth_kind in ((clip("arc", as_estimated=True), DISTANCE), (clip("arc"), INVERSE)):
        _, found, preview, report = run("FreeSteerReconstructSplats", **of(drawn, depth_kind), cameras=given)
        assert (found.positions - given.positions).norm(dim=1).max() < 0.05 * unit, report
        torch.testing.assert_close(found.focal, true.focal)
        assert psnr(preview, clip("arc").image) > LIKE - 1


@pytest.mark.slow
@needs_splat
def test_without_depth_the_pictures_tell_it() -> None:
    drawn = clip("sideways", 10, width=2 * WIDTH)
    _, found, preview, report = run("FreeSteerReconstructSplats", **{**of(drawn), "depth": None})
    assert ate(found, drawn.cameras) < 0.015, report
    assert psnr(preview, drawn.image) > LIKE - 2
    _, same, again, _ = run("FreeSteerReconstructSplats", **{**of(drawn), "depth": None}, cameras=drawn.cameras)
    assert (same.positions - drawn.cameras.positions).norm(dim=1).max() < 0.05
    assert psnr(again, drawn.image) > LIKE - 1


@needs_splat
def test_wrong_cameras_are_refused() -> None:
    turned = replace(clip().cameras, poses=cameras.exponential(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.5, 0.0])) @ clip("orbit").cameras.poses)
    with pytest.raises(ValueError, match="cameras do not fit image in 6 of 6 frames"):
        run("FreeSteerReconstructSplats", **of(clip()), cameras=replace(turned, poses=turned.poses.flip(0)))


@needs_splat
def test_a_scene_goes_on_from_where_it_was_left(made, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, found, before, _ = made
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", Preset(60, 1))
    again, same, after, _ = run("FreeSteerReconstructSplats", **of(clip()), cameras=found, splat=scene)
    assert psnr(after, clip().image) > psnr(before, clip().image) + 1
    assert ate(same, clip().cameras) < 0.01
    assert again.positions.shape[1] < 1.5 * scene.positions.shape[1]


def test_an_empty_mask_leaves_nothing_out() -> None:
    given = (clip().image, clip().depth, DISTANCE, Lens(65.0, known=True))
    for mask in (torch.zeros(1, HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH), torch.zeros(6, 2 * HEIGHT, 2 * WIDTH)):
        assert torch.equal(clip_of(*given, mask).valid, clip_of(*given).valid)
    half = torch.zeros(1, HEIGHT, WIDTH)
    half[..., :20] = 1
    assert torch.equal(clip_of(*given, half).valid, (half == 0).expand(6, -1, -1))


@needs_splat
def test_a_frame_that_does_not_belong_is_named_and_the_rest_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", Preset(4, 2))
    _, found, preview, report = run("FreeSteerReconstructSplats", **with_a_stranger(5))
    assert "Lost at frame 5: less than" in report and len(found) == len(preview) == 6
    assert ate(replace(found, poses=found.poses[:5]), replace(clip().cameras, poses=clip().cameras.poses[:5])) < 0.01


@needs_splat
def test_unrelated_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="image has 5 frames, and the cameras of 5 could not be found"):
        run("FreeSteerReconstructSplats", **of(unrelated()))


@needs_splat
def test_progress_is_told_and_what_comes_in_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", Preset(8, 2))
    told: list[tuple[int, bool]] = []

    class Bar:
        def __init__(self, total: int):
            assert total == 100

        def update_absolute(self, value: int, total: int, preview: Any) -> None:
            told.append((value, preview is not None))

    monkeypatch.setattr(splat_clip_inputs.comfy.utils, "ProgressBar", Bar)
    given = of(clip("sideways", 6), mask=torch.zeros(1, HEIGHT, WIDTH))
    before = {name: value.clone() for name, value in given.items() if isinstance(value, Tensor)}
    run("FreeSteerReconstructSplats", **given)
    assert [value for value, _ in told] == sorted(value for value, _ in told) and told[-1] == (100, True)
    assert all(torch.equal(given[name], value) for name, value in before.items())


# Render Splat Path


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(0, 0, (36, 48)), (96, 0, (72, 96)), (0, 18, (18, 24)), (96, 36, (36, 96)), (48, 72, (72, 48)), (7, 5, (5, 7)), (1, 0, (1, 1))],
)
def test_pictures_have_the_size_that_is_asked_for(width: int, height: int, size: tuple[int, int]) -> None:
    image, alpha, depth = run("FreeSteerRenderSplatPath", splat=splat(), cameras=path(2), width=width, height=height)
    assert image.shape == depth.shape == (2, *size, 3) and alpha.shape == (2, *size)
    for each in (image, alpha, depth):
        assert each.is_contiguous() and each.min() >= 0 and each.max() <= 1


@pytest.mark.parametrize("centre", [(24.0, 18.0), (20.0, 21.0)])
def test_a_wider_or_higher_picture_shows_more_at_its_sides(centre: tuple[float, float]) -> None:
    view = path(2, centre=torch.tensor(centre))
    plain = run("FreeSteerRenderSplatPath", splat=splat(), cameras=view)[0]
    wide = run("FreeSteerRenderSplatPath", splat=splat(), cameras=view, width=96, height=36)[0]
    tall = run("FreeSteerRenderSplatPath", splat=splat(), cameras=view, width=48, height=72)[0]
    torch.testing.assert_close(wide[:, :, 24:72], plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(tall[:, 18:54], plain, atol=1e-4, rtol=0)


def test_a_larger_picture_shows_the_same() -> None:
    plain = run("FreeSteerRenderSplatPath", splat=splat(), cameras=path(2))[1]
    large = run("FreeSteerRenderSplatPath", splat=splat(), cameras=path(2), width=4 * WIDTH)[1]
    smaller = torch.nn.functional.avg_pool2d(large[:, None], 4)[:, 0]
    assert (smaller - plain).abs().mean() < 0.03


def test_a_background_shows_where_there_are_no_splats() -> None:
    image, alpha, _ = run("FreeSteerRenderSplatPath", splat=white(), cameras=path(2), background="#336699")
    ground = torch.tensor([0x33, 0x66, 0x99]) / 255
    torch.testing.assert_close(image[:, 0, 0], ground.expand(2, 3))
    assert (alpha[:, 0, 0] == 0).all() and alpha.max() > 0.7
    torch.testing.assert_close(image, alpha[..., None] + (1 - alpha[..., None]) * ground, atol=1e-5, rtol=0)


def test_depth_is_the_nearest_distance_divided_by_the_distance() -> None:
    two = splat(2, positions=torch.tensor([[[-0.5, 0.0, 2.0], [1.0, 0.0, 4.0]]]), scales=torch.full((1, 2, 3), 0.1))
    _, alpha, depth = run("FreeSteerRenderSplatPath", splat=two, cameras=path(1))
    middle = [(18, 14), (18, 34)]  # y, x: 24 + 40 * x / z
    assert [round(float(depth[0, y, x, 0]), 3) for y, x in middle] == [1.0, 0.5]
    assert (depth[alpha < 0.5] == 0).all() and depth.max() == 1


def test_of_several_scenes_the_first_is_drawn_up_to_its_count() -> None:
    one, other = splat(40), splat(40, positions=-splat(40).positions)
    parts = ("positions", "scales", "rotations", "opacities", "sh")
    both = {part: torch.cat([getattr(one, part), getattr(other, part)]) for part in parts}
    first = {part: getattr(one, part)[:, :25] for part in parts}
    wanted = run("FreeSteerRenderSplatPath", splat=splat(**first), cameras=path())
    found = run("FreeSteerRenderSplatPath", splat=splat(**both, counts=torch.tensor([25, 40])), cameras=path())
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("size", [1e-9, 1e3, 1e9])
def test_splats_of_any_size_are_drawn_in_numbers(size: float) -> None:
    turned = torch.nn.functional.normalize(noise(1, 40, 4) - 0.5, dim=-1)
    odd = splat(scales=size * noise(1, 40, 3), rotations=turned, positions=splat().positions - torch.tensor([0, 0, 2.4]))
    image, alpha, depth = run("FreeSteerRenderSplatPath", splat=odd, cameras=path())
    assert all(torch.isfinite(part).all() for part in (image, alpha, depth))
    assert size < 1 or (alpha > 0.99).all()


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


# Camera Orbit


def orbit(**inputs: Any) -> CameraPath:
    return run("FreeSteerCameraOrbit", **{"splat": splat(), "frames": 4, "width": 64, "height_px": 48, **inputs})[0]


def angles(found: CameraPath, middle: Tensor) -> Tensor:
    """Of cameras around the vertical, in degrees, from the first one."""
    x, _, z = (found.positions - middle).unbind(1)
    turns = torch.rad2deg(torch.atan2(-x, -z))
    return (turns - turns[0]) % 360


@pytest.mark.parametrize("inputs", [{}, {"height": -1.0}, {"start": 30.0, "distance": 2.0}, {"field_of_view": 90.0}])
def test_an_orbit_looks_at_the_middle_of_the_scene(inputs: dict[str, float]) -> None:
    found, middle = orbit(**inputs), splat().positions[0].median(0).values
    assert len(found) == 4 and found.size == (48, 64)
    away = found.positions - middle
    torch.testing.assert_close(away.norm(dim=1), away[0].norm().expand(4))
    height = inputs.get("height", 0.2)
    torch.testing.assert_close(-away[:, 1], height * away[:, ::2].norm(dim=1))
    torch.testing.assert_close(angles(found, middle), torch.tensor([0.0, 90, 180, 270]), atol=1e-3, rtol=0)
    for camera in (found[i] for i in range(4)):
        seen = camera.pose[:3, :3] @ middle + camera.pose[:3, 3]
        torch.testing.assert_close(seen[:2], torch.zeros(2), atol=1e-4, rtol=0)
        assert seen[2] > 0
    assert 2 * math.degrees(math.atan(24 / float(found.focal[0]))) == pytest.approx(inputs.get("field_of_view", 40.0), abs=1e-3)


def test_an_orbit_shows_most_of_the_scene() -> None:
    scene = splat(400, scales=torch.full((1, 400, 3), 0.02))
    alpha = run("FreeSteerRenderSplatPath", splat=scene, cameras=orbit(splat=scene))[1]
    assert (alpha > 0.5).float().mean() > 0.1
    inside = alpha[:, 4:-4, 4:-4].sum() / alpha.sum()
    assert inside > 0.7


def test_an_orbit_goes_as_far_and_to_the_side_that_is_said() -> None:
    middle = splat().positions[0].median(0).values
    torch.testing.assert_close(angles(orbit(degrees=60.0), middle), torch.tensor([0.0, 15, 30, 45]), atol=1e-3, rtol=0)
    torch.testing.assert_close(angles(orbit(degrees=-60.0), middle), torch.tensor([0.0, 345, 330, 315]), atol=1e-3, rtol=0)
    torch.testing.assert_close(orbit(start=90.0).poses[0], orbit().poses[1], atol=1e-5, rtol=0)
    nearer = (orbit(distance=0.5).positions - middle).norm(dim=1) / (orbit().positions - middle).norm(dim=1)
    torch.testing.assert_close(nearer, torch.full((4,), 0.5))


@pytest.mark.parametrize("size", [1e-3, 0.05, 10.0])
def test_a_single_splat_is_a_scene_too(size: float) -> None:
    one = splat(1, scales=torch.full((1, 1, 3), size))
    alpha = run("FreeSteerRenderSplatPath", splat=one, cameras=orbit(splat=one))[1]
    assert (alpha > 0.1).flatten(1).any(1).all() and not (alpha > 0.1).all()


@pytest.mark.parametrize("degrees", [90.0, -90.0])
def test_an_orbit_starts_at_the_camera_that_is_given_and_keeps_its_target(degrees: float) -> None:
    info = camera_info(position={"x": 1.0, "y": 2.0, "z": 3.0}, target={"x": 0.5, "y": -0.5, "z": 0.2}, quaternion={}, fov=50.0, zoom=1.5)
    given, target = load3d_camera.from_host(info, (48, 64)), torch.tensor([0.5, 0.5, -0.2])
    found = orbit(camera_info=info, degrees=degrees, frames=3, splat=None, height=-3.0, start=77.0)
    torch.testing.assert_close(found.poses[0], given.pose)
    assert torch.equal(found.focal, given.focal) and torch.equal(found.centre, given.centre) and found.size == (48, 64)
    away = found.positions - target
    torch.testing.assert_close(away.norm(dim=1), away[0].norm().expand(3))
    torch.testing.assert_close(away[:, 1], away[0, 1].expand(3))
    torch.testing.assert_close(angles(found, target), torch.tensor([0.0, degrees / 3, 2 * degrees / 3]) % 360, atol=1e-3, rtol=0)
    seen = target @ found.poses[:, :3, :3].mT + found.poses[:, :3, 3]
    torch.testing.assert_close(seen, torch.tensor([0.0, 0.0, float(away[0].norm())]).expand(3, 3), atol=1e-4, rtol=0)


# Save, Load and Preview Camera Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    yield tmp_path


def assert_same(found: CameraPath, wanted: CameraPath) -> None:
    torch.testing.assert_close(found.poses, wanted.poses, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.focal, wanted.focal)
    torch.testing.assert_close(found.centre, wanted.centre)
    assert found.size == wanted.size


@pytest.mark.parametrize(("format", "end"), zip(FORMATS, (".json", ""), strict=True))
def test_what_is_saved_is_loaded_again(folder: Path, format: str, end: str) -> None:
    for name in ("cameras", "a/b c"):
        for number, wanted in enumerate((clip("arc").cameras, path(12)), 1):
            with torch.inference_mode():
                node = CLASSES["FreeSteerSaveCameraPath"].execute(cameras=wanted, name=name, format=format)
            file = f"{name}_{number:05}_{end}"
            assert node.ui.as_dict()["text"] == (f"Saved as {file} in the output folder.",)
            assert_same(run("FreeSteerLoadCameraPath", file=file)[0], wanted)
    os.replace(folder / "output" / f"cameras_00001_{end}", folder / "input" / f"moved{end}")
    assert_same(run("FreeSteerLoadCameraPath", file=f"moved{end}")[0], clip("arc").cameras)


def test_formats_do_not_overwrite_each_other(folder: Path) -> None:
    for format in (*FORMATS, *FORMATS[::-1]):
        run("FreeSteerSaveCameraPath", cameras=path(), name="x", format=format)
    assert sorted(os.listdir(folder / "output")) == ["x_00001_.json", "x_00002_", "x_00003_", "x_00004_.json"]


@pytest.mark.parametrize(("format", "file", "inner"), [(FORMATS[0], "x_00001_.json", ""), (FORMATS[1], "x_00001_", "images.txt")])
def test_a_changed_file_is_read_again(folder: Path, format: str, file: str, inner: str) -> None:
    told = CLASSES["FreeSteerLoadCameraPath"].fingerprint_inputs
    run("FreeSteerSaveCameraPath", cameras=path(), name="x", format=format)
    before = told(file=file)
    assert before and told(file=file) == before
    written = folder / "output" / file / inner
    times = written.stat()
    os.utime(written, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))  # changed in place, as an editor does
    assert told(file=file) != before


@pytest.mark.parametrize("scene", [None, splat(), splat(1)], ids=["cameras", "with splats", "with one splat"])
@pytest.mark.parametrize("frames", [1, 2, 130])
def test_a_path_is_drawn_from_three_sides(folder: Path, scene: Any, frames: int) -> None:
    shown = orbit(frames=frames, splat=splat())
    (image,) = run("FreeSteerPreviewCameraPath", cameras=shown, splat=scene)
    assert image.shape == (1, HEAD + PANEL, 3 * PANEL, 3) and 0 <= image.min() < image.max() <= 1
    ground = image[0, -1, -1]
    for number in range(3):
        panel = image[0, HEAD:, number * PANEL : (number + 1) * PANEL]
        drawn = ((panel - ground).abs() > 0.02).any(-1)
        assert 30 < drawn.sum() < 0.5 * drawn.numel()
        rim = torch.cat([drawn[:4].flatten(), drawn[-4:].flatten(), drawn[:, :4].flatten(), drawn[:, -4:].flatten()])
        assert not rim.any()
    red, green = image[0, HEAD:, :PANEL, 0], image[0, HEAD:, :PANEL, 1]
    assert ((green > 0.7) & (red < 0.5)).any()  # the first camera
    assert frames == 1 or ((red > 0.8) & (green < 0.5)).any()  # the last


def test_a_scene_is_drawn_behind_the_cameras(folder: Path) -> None:
    plain, behind = (run("FreeSteerPreviewCameraPath", cameras=orbit(), splat=scene)[0] for scene in (None, white(counts=None)))
    assert not torch.equal(plain, behind)
    assert (behind == torch.tensor(153 / 255)).all(-1).sum() > 60  # .6 of white


def test_a_camera_that_sees_nearly_all_is_drawn_as_if_it_saw_less(folder: Path) -> None:
    """Or its frustum would be of millions of pixels."""
    seeing_all = path(focal=torch.full((2,), 1e-5))
    run("FreeSteerPreviewCameraPath", cameras=seeing_all)
    assert previews.frustum(replace(seeing_all, poses=torch.eye(4)[None]), 0, 1.0).abs().max() <= previews.WIDEST


# Evaluate Trajectory and Views


def test_a_path_moved_by_a_similarity_has_no_error() -> None:
    turn = cameras.exponential(torch.tensor([0.0, 0, 0, 1.0, -2.0, 0.5]))[:3, :3]
    moved = transformed(clip("handheld").cameras, trajectory.Similarity(2.5, turn, torch.tensor([3.0, -1.0, 7.0])))
    found = run("FreeSteerEvaluateTrajectory", cameras=moved, reference=clip("handheld").cameras)
    assert found == pytest.approx((0, 0, 0), abs=1e-3) and all(isinstance(value, float) for value in found)


def test_a_path_that_departs_has_an_error() -> None:
    true = clip("handheld").cameras
    shaken = replace(true, poses=cameras.exponential(0.1 * (noise(6, 6) - 0.5)) @ true.poses)
    with torch.inference_mode():
        node = CLASSES["FreeSteerEvaluateTrajectory"].execute(cameras=shaken, reference=true)
    error, translation, rotation = node.result
    assert error == pytest.approx(ate(shaken, true)) and error > 0.005 and translation > 0.01 and rotation > 1
    assert node.ui.as_dict()["text"] == (f"ATE {error:.4f}, RPE {translation:.4f} and {rotation:.3f} degrees",)


def test_equal_views_are_as_near_as_can_be() -> None:
    image = clip().image
    assert run("FreeSteerEvaluateViews", images=image, reference=image.clone()) == pytest.approx((100, 1))


def test_views_that_differ_are_measured() -> None:
    grey = torch.full((3, 20, 30, 3), 0.5)
    found = run("FreeSteerEvaluateViews", images=grey + 0.1, reference=grey)
    assert found[0] == pytest.approx(20, abs=1e-3) and 0.9 < found[1] < 1
    worse = run("FreeSteerEvaluateViews", images=clip().image, reference=clip("handheld").image)
    assert worse[0] < 15 and worse[1] < 0.5
    alpha = torch.cat([grey, torch.rand(3, 20, 30, 1)], -1)
    assert run("FreeSteerEvaluateViews", images=alpha, reference=grey[..., :1]) == pytest.approx((100, 1))


# As the executor calls them, and as a test would


def test_in_and_out_of_inference_mode_all_is_the_same() -> None:
    """`run` is in inference mode, as the executor, and gives inference tensors from one node to the next."""
    calls = {
        "FreeSteerEstimateCameras": of(clip("handheld", 4)),
        "FreeSteerRenderSplatPath": {"splat": splat(), "cameras": orbit(), "width": 0, "height": 0, "background": "#000000"},
        "FreeSteerRefinePoses": {"image": clip("handheld", 4).image[:3], "splat": splat(), "cameras": path(), "steps": 2},
        "FreeSteerPlaygroundClip": {"kind": "arc", "frames": 2, "width": 32, "height": 32, "as_estimated": True, "seed": 3},
    }
    for name, inputs in calls.items():
        plain = CLASSES[name].execute(**inputs).result
        for a, b in zip(plain, run(name, **inputs), strict=True):
            a, b = (value.poses if isinstance(value, CameraPath) else value for value in (a, b))
            assert not isinstance(a, Tensor) or not a.requires_grad
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
