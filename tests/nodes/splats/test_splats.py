# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""Scenes of splats: made from clips, and drawn."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import comfyui_version
import pytest
import torch
from comfy_api import latest
from freesteer.core.geometry import cameras
from freesteer.core.geometry.cameras import CameraPath
from freesteer.core.splats.reconstruction import Preset
from freesteer.nodes.splats import reconstruct as splat_reconstruct
from freesteer.nodes.tracking import clip_inputs as splat_clip_inputs
from freesteer.nodes.tracking.clip_inputs import DISTANCE, INVERSE, LINEAR, Lens, clip_of
from torch import Tensor

from ..conftest import CLASSES, needs_splat, noise, path, run, splat
from ..drawn_clips import HEIGHT, LIKE, SMALL, WIDTH, ate, clip, depth_as, of, psnr, unrelated, white, with_a_stranger


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", SMALL)


@pytest.fixture(scope="module")
def made() -> tuple[Any, CameraPath, Tensor, str]:
    """A reconstruction of an exact clip."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(splat_reconstruct.PRESETS, "preview", SMALL)
        return run("FreeSteerReconstructSplats", **of(clip()))


def test_a_host_lacks_splats_only_before_0_23() -> None:
    """Else tests that need them would be left out without a word."""
    newer = tuple(int(part) for part in comfyui_version.__version__.split(".")[:2]) >= (0, 23)
    assert hasattr(getattr(latest, "Types", None), "SPLAT") == (find_spec("comfy_extras.nodes_gaussian_splat") is not None) == newer


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


# As the executor calls them, and as a test would


def test_in_and_out_of_inference_mode_all_is_the_same() -> None:
    """`run` is in inference mode, as the executor, and gives inference tensors from one node to the next."""
    calls = {
        "FreeSteerEstimateCameras": of(clip("handheld", 4)),
        "FreeSteerRenderSplatPath": {"splat": splat(), "cameras": path(), "width": 0, "height": 0, "background": "#000000"},
        "FreeSteerRefinePoses": {"image": clip("handheld", 4).image[:3], "splat": splat(), "cameras": path(), "steps": 2},
        "FreeSteerPlaygroundClip": {"kind": "arc", "frames": 2, "width": 32, "height": 32, "as_estimated": True, "seed": 3},
    }
    for name, inputs in calls.items():
        plain = CLASSES[name].execute(**inputs).result
        for a, b in zip(plain, run(name, **inputs), strict=True):
            a, b = (value.poses if isinstance(value, CameraPath) else value for value in (a, b))
            assert not isinstance(a, Tensor) or not a.requires_grad
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
