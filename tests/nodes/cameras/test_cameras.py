# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""Paths of cameras: made, kept in files, drawn and compared."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.geometry.cameras import CameraPath
from freesteer.host import load3d_camera
from freesteer.nodes.cameras import previews
from freesteer.nodes.cameras.paths import FORMATS
from freesteer.nodes.cameras.previews import HEAD, PANEL
from freesteer.tests.placing import transformed
from torch import Tensor

from ..conftest import CLASSES, noise, path, run, splat
from ..conftest import host_camera as camera_info
from ..drawn_clips import ate, clip, white

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
