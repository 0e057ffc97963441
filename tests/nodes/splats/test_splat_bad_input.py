# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false
"""Whatever is connected to the splat nodes by mistake, or comes in a file, is refused in one sentence before any work is done."""

import json
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy_api import latest
from freesteer.core.camera_files import files as camera_files
from freesteer.core.camera_files.files import CameraFileError
from freesteer.core.splats import reconstruction
from freesteer.core.splats.reconstruction import Preset
from freesteer.nodes.common.checks import InputError
from freesteer.nodes.splats import reconstruct as splat_reconstruct
from freesteer.nodes.splats import render as splat_render
from freesteer.nodes.tracking import clip_inputs as splat_clip_inputs
from freesteer.nodes.tracking import estimate as splat_cameras
from torch import Tensor

from ..conftest import CLASSES, host_camera, needs_splat, noise, path, run, splat

NAN, INFINITY = float("nan"), float("inf")
FRAMES, HEIGHT, WIDTH = 4, 36, 48
Act = Callable[[], object]


def broken(values: Tensor, value: float) -> Tensor:
    values = values.clone()
    values.view(-1)[5] = value
    return values


def pictures(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return noise(frames, height, width, 3)


def without(tensor: Tensor, frame: int, value: float | Tensor) -> Tensor:
    tensor = tensor.clone()
    tensor[frame] = value
    return tensor


def flat_with_holes() -> Tensor:
    depth = torch.full((FRAMES, HEIGHT, WIDTH, 3), 0.5)
    depth[:, :4] = 0
    return depth


def node(node_id: str, /, **usual: Any) -> Callable[..., Act]:
    """Calls of a node with some of its inputs changed."""
    return lambda **inputs: lambda: run(f"FreeSteer{node_id}", **{**usual, **inputs})


clip = node("PlaygroundClip", frames=2, width=32, height=32)
seen = {"image": pictures(), "depth": pictures(), "depth_kind": "far is bright"}
reconstruct, estimate = node("ReconstructSplats", **seen), node("EstimateCameras", **seen)
refine = node("RefinePoses", image=pictures(3), splat=splat(), cameras=path(), steps=2)
draw = node("RenderSplatPath", splat=splat(), cameras=path())
views = node("EvaluateViews", images=pictures(2), reference=pictures(2))
orbit = node("CameraOrbit", splat=splat(), frames=3, width=WIDTH, height_px=HEIGHT)
save = node("SaveCameraPath", cameras=path(), name="cameras")
load = node("LoadCameraPath")
preview = node("PreviewCameraPath", cameras=path())
one = node("CameraOfPath", cameras=path(), frame=0, distance=4.0)
judge = node("EvaluateTrajectory", cameras=path(), reference=path())

CASES: dict[str, tuple[Act, str]] = {
    # Camera Of Path
    "no path": (one(cameras=None), "cameras has to be a camera path.*what came is nothing"),
    "a camera after the last": (one(frame=3), "frame is 3: choose -3 to 2"),
    "a camera before the first": (one(frame=-4), "frame is -4: choose -3 to 2"),
    "half a camera": (one(frame=0.5), "frame is 0.5: choose a whole number"),
    "a target behind": (one(distance=-1.0), "distance is -1.0: choose 0.001"),
    # Draw Clip
    "unknown kind of clip": (clip(kind="spiral"), "kind is 'spiral': choose one of forward"),
    "a list of kinds": (clip(kind=["orbit"]), "kind is \\['orbit'\\]"),
    "a clip of one frame": (clip(frames=1), "frames is 1: choose 2 to 120"),
    "half a frame": (clip(frames=2.5), "frames is 2.5: choose a whole number"),
    "a narrow clip": (clip(width=31), "width is 31: choose 32 to 512"),
    "a high clip": (clip(height=513), "height is 513: choose 32 to 512"),
    "half a pixel": (clip(width=32.5), "width is 32.5: choose a whole number"),
    "no seed": (clip(seed=None), "seed is None"),
    "a negative seed": (clip(seed=-1), "seed is -1"),
    # Reconstruct Splats From Video, Estimate Camera Path
    "no pictures": (reconstruct(image=None), "image has to be an IMAGE.* what came is nothing"),
    "a path of a file": (estimate(image="clip.mp4"), "what came is str"),
    "an empty batch": (reconstruct(image=pictures(0)), "image has no pixels"),
    "a single frame": (reconstruct(image=pictures(1), depth=pictures(1)), "image is a single picture"),
    "a single frame to estimate": (estimate(image=pictures(1), depth=pictures(1)), "two or more frames"),
    "more frames than can be": (estimate(image=noise(501, 32, 32, 3), depth=noise(501, 32, 32, 3)), "501 frames; 500 are the most"),
    "frames too small": (reconstruct(image=pictures(4, 31), depth=pictures(4, 31)), "image is 48 x 31: frames need at least 32"),
    "pictures with NaN": (reconstruct(image=broken(pictures(), NAN)), "image has pixels that are not numbers"),
    "pictures with infinity": (estimate(image=broken(pictures(), INFINITY)), "image has pixels that are not numbers"),
    "pictures of integers": (estimate(image=torch.zeros(4, 36, 48, 3, dtype=torch.uint8)), "what came is 4 x 36 x 48 x 3 uint8"),
    "a black frame": (reconstruct(image=without(pictures(), 2, 0.0)), "image is of one colour in frame 2"),
    "a red frame": (estimate(image=without(pictures(), 1, torch.tensor([1.0, 0, 0]))), "image is of one colour in frame 1"),
    "white frames": (estimate(image=torch.ones(4, 36, 48, 3)), "image is of one colour in frame 0"),
    "depth as a mask": (reconstruct(depth=noise(FRAMES, HEIGHT, WIDTH)), "depth has to be an IMAGE.* what came is 4 x 36 x 48"),
    "a mask as depth": (estimate(depth=noise(4, 36, 48)), "depth has to be an IMAGE"),
    "a latent as depth": (estimate(depth={"samples": noise(4, 4, 6, 6)}), "what came is dict"),
    "depth with NaN": (reconstruct(depth=broken(pictures(), NAN)), "depth has pixels that are not numbers"),
    "depth with infinity": (estimate(depth=broken(pictures(), INFINITY)), "depth has pixels that are not numbers"),
    "depth beyond measure": (estimate(depth=pictures() * 3e38), "depth has values too large"),
    "depth of one frame": (reconstruct(depth=pictures(1)), "depth has 1 pictures, image 4"),
    "depth of more frames": (estimate(depth=pictures(5)), "depth has 5 pictures, image 4"),
    "depth of another shape": (estimate(depth=pictures(4, 48, 48)), "depth is 48 x 48, not of the shape of 48 x 36"),
    "black depth": (reconstruct(depth=torch.zeros(4, 36, 48, 3)), "depth is black in most of frame 0"),
    "one black depth": (reconstruct(depth=without(pictures(), 3, 0.0)), "depth is black in most of frame 3"),
    "negative depth": (estimate(depth=-pictures()), "depth is black in most of frame 0"),
    "flat depth": (reconstruct(depth=without(pictures(), 1, 0.5)), "depth is flat in frame 1"),
    "flat depth with holes": (estimate(depth=flat_with_holes()), "depth is flat in frame 0"),
    "flat metric depth": (estimate(depth=without(8 * pictures(), 1, 5000.0)), "depth is flat in frame 1"),
    "unknown kind of depth": (reconstruct(depth_kind="grey"), "depth_kind is 'grey': choose one of near is bright"),
    "no field of view": (estimate(field_of_view=0.0), "field_of_view is 0.0: choose 5 to 150"),
    "a field of view all around": (reconstruct(field_of_view=360.0), "field_of_view is 360.0: choose 5 to 150"),
    "field of view is no number": (estimate(field_of_view=NAN), "field_of_view is nan"),
    "field of view in words": (estimate(field_of_view="wide"), "field_of_view is wide"),
    "field of view is None": (estimate(field_of_view=None), "field_of_view is None"),
    "unknown preset": (reconstruct(preset="best"), "preset is 'best': choose one of preview, standard, quality"),
    "a mask of another shape": (reconstruct(mask=torch.zeros(1, 48, 36)), "mask is 36 x 48, the picture 48 x 36"),
    "masks of another number": (reconstruct(mask=torch.zeros(3, 36, 48)), "mask has 3 masks for 4 pictures"),
    "a mask with NaN": (reconstruct(mask=torch.full((1, 36, 48), NAN)), "mask has values that are not numbers"),
    "a mask of all": (reconstruct(mask=torch.ones(1, 36, 48)), "black in most of frame 0: check the depth node, or the mask"),
    "a picture as mask": (reconstruct(mask=pictures()), "mask has to be a MASK"),
    # Refine Camera Path
    "fewer pictures than cameras": (refine(image=pictures(2)), "image has 2 pictures, cameras 3"),
    "no picture to refine by": (refine(image=None), "image has to be an IMAGE"),
    "tiny pictures to refine by": (refine(image=pictures(3, 4, 5)), "image is 5 x 4: pictures need 32"),
    "pictures of another shape than the cameras'": (refine(image=pictures(3, 48, 36)), "image is 36 x 48, not of the shape of 48 x 36"),
    "NaN to refine by": (refine(image=broken(pictures(3), NAN)), "image has pixels that are not numbers"),
    "no steps": (refine(steps=0), "steps is 0: choose 1 to 1000"),
    "half a step": (refine(steps=1.5), "steps is 1.5: choose a whole number"),
    "no scene to refine in": (refine(splat=None), "splat has to be a SPLAT.* what came is nothing"),
    "no cameras to refine": (refine(cameras=None), "cameras has to be a camera path.* what came is nothing"),
    # a SPLAT
    "no scene": (draw(splat=None), "splat has to be a SPLAT.* what came is nothing"),
    "a picture as scene": (draw(splat=pictures()), "splat has to be a SPLAT.* what came is Tensor"),
    "the name of a scene": (orbit(splat="scene.ply"), "splat has to be a SPLAT.* what came is str"),
    "a scene of lists": (preview(splat=splat(positions=[[0, 0, 1]])), "splat has to be a SPLAT"),
    "an empty scene": (draw(splat=splat(0)), "splat has no splats in it"),
    "a batch of no scenes": (draw(splat=splat(positions=torch.zeros(0, 40, 3))), "shapes do not fit"),
    "a scene with a count of 0": (orbit(splat=splat(counts=torch.tensor([0]))), "splat has no splats in it"),
    "a scene with a negative count": (draw(splat=splat(counts=torch.tensor([-3]))), "splat says that it has -3 of its 40 splats"),
    "a scene with a count beyond": (refine(splat=splat(counts=torch.tensor([41]))), "splat says that it has 41 of its 40 splats"),
    "a scene with half a count": (draw(splat=splat(counts=torch.tensor([1.5]))), "splat says that it has 1.5"),
    "a scene with a count that is no number": (draw(splat=splat(counts=torch.tensor([NAN]))), "splat says that it has nan"),
    "a scene without a count": (draw(splat=splat(counts=torch.zeros(0))), "splat says that it has"),
    "a scene with counts in words": (draw(splat=splat(counts="many")), "splat says that it has many"),
    "a scene without batch": (draw(splat=splat(positions=noise(40, 3))), "shapes do not fit"),
    "a scene with flat tensors": (draw(splat=splat(positions=noise(40))), "shapes do not fit"),
    "fewer sizes than places": (preview(splat=splat(scales=torch.ones(1, 39, 3))), "shapes do not fit"),
    "one size for all axes": (draw(splat=splat(scales=torch.ones(1, 40, 1))), "shapes do not fit"),
    "angles as rotations": (draw(splat=splat(rotations=torch.ones(1, 40, 3))), "shapes do not fit"),
    "two opacities": (draw(splat=splat(opacities=torch.ones(1, 40, 2) / 2)), "shapes do not fit"),
    "fewer colours than places": (refine(splat=splat(sh=torch.zeros(1, 39, 1, 3))), "shapes do not fit"),
    "grey colours": (draw(splat=splat(sh=torch.zeros(1, 40, 1, 1))), "shapes do not fit"),
    "colours of degree 1/2": (draw(splat=splat(sh=torch.zeros(1, 40, 2, 3))), "shapes do not fit"),
    "colours without harmonics": (orbit(splat=splat(sh=torch.zeros(1, 40, 3))), "shapes do not fit"),
    "places with NaN": (draw(splat=splat(positions=broken(noise(1, 40, 3), NAN))), "splat has values that are not numbers"),
    "sizes with infinity": (orbit(splat=splat(scales=broken(noise(1, 40, 3), INFINITY))), "splat has values that are not numbers"),
    "colours with NaN": (refine(splat=splat(sh=broken(torch.zeros(1, 40, 1, 3), NAN))), "splat has values that are not numbers"),
    "opacities with NaN": (preview(splat=splat(opacities=torch.full((1, 40, 1), NAN))), "splat has values that are not numbers"),
    "places beyond measure": (orbit(splat=splat(positions=noise(1, 40, 3) * 1e30)), "splat has values beyond 1e\\+09"),
    "sizes beyond measure": (draw(splat=splat(scales=noise(1, 40, 3) * 1e30)), "splat has values beyond 1e\\+09"),
    "opacities as logits": (draw(splat=splat(opacities=torch.full((1, 40, 1), 4.0))), "opacities beyond 0 to 1"),
    "negative opacities": (refine(splat=splat(opacities=torch.full((1, 40, 1), -0.1))), "opacities beyond 0 to 1"),
    "sizes as logarithms": (draw(splat=splat(scales=torch.full((1, 40, 3), -4.0))), "splat has negative sizes"),
    # cameras
    "no cameras": (draw(cameras=None), "cameras has to be a camera path.* what came is nothing"),
    "a camera of the host as path": (draw(cameras=host_camera()), "cameras has to be a camera path.* what came is dict"),
    "a path without frames": (draw(cameras=path(0)), "cameras has no frames"),
    "a path of lists": (preview(cameras=path(poses=[[1.0]])), "other shapes"),
    "poses of 3 x 4": (draw(cameras=path(poses=torch.eye(4)[:3].repeat(3, 1, 1))), "other shapes"),
    "one pose that is no batch": (draw(cameras=path(poses=torch.eye(4))), "other shapes"),
    "one focal length": (preview(cameras=path(focal=torch.ones(1))), "other shapes"),
    "pictures of no size": (draw(cameras=path(size=(0, 48))), "other shapes"),
    "pictures of half a pixel": (draw(cameras=path(size=(36.5, 48))), "other shapes"),
    "cameras with NaN": (refine(cameras=path(poses=broken(torch.eye(4).repeat(3, 1, 1), NAN))), "values that are not numbers"),
    "a focal length with infinity": (draw(cameras=path(focal=torch.tensor([INFINITY, 40.0]))), "values that are not numbers"),
    "no focal length": (preview(cameras=path(focal=torch.zeros(2))), "no focal length"),
    "a negative focal length": (draw(cameras=path(focal=torch.tensor([-40.0, 40.0]))), "no focal length"),
    "cameras that scale": (draw(cameras=path(poses=2 * torch.eye(4).repeat(3, 1, 1))), "cameras has poses that scale"),
    "cameras that are zero": (draw(cameras=path(poses=torch.zeros(3, 4, 4))), "cameras has poses that scale"),
    "cameras beyond measure": (preview(cameras=path(poses=torch.eye(4).repeat(3, 1, 1) * torch.tensor([1, 1, 1, 1e30]))), "beyond 1e\\+09"),
    # a reconstruction with cameras or a scene that are given
    "cameras of another clip": (reconstruct(cameras=path(3)), "cameras has 3 frames, image 4: connect as many of both"),
    "cameras of another shape": (reconstruct(cameras=path(4, size=(36, 36))), "image is 48 x 36, not of the shape of 36 x 36"),
    "cameras that stand still": (reconstruct(cameras=path(4, poses=torch.eye(4).repeat(4, 1, 1))), "cameras stand still"),
    "cameras that are none": (reconstruct(cameras=host_camera()), "cameras has to be a camera path.* what came is dict"),
    "a scene without its cameras": (reconstruct(splat=splat()), "splat is a scene to go on from, and cameras is missing"),
    "a scene with NaN to go on from": (
        reconstruct(cameras=path(4), splat=splat(positions=broken(noise(1, 40, 3), NAN))), "splat has values that are not numbers",
    ),
    # Render Splat Path
    "a negative width": (draw(width=-1), "width is -1: choose 0 to 8192"),
    "too large a height": (draw(height=8193), "height is 8193: choose 0 to 8192"),
    "half a pixel of width": (draw(width=33.5), "width is 33.5: choose a whole number"),
    "a wide path made high": (draw(cameras=path(size=(10, 8000)), height=4000), "would be 3200000 x 4000: choose a width and a height"),
    "cameras of a huge picture": (draw(cameras=path(size=(65536, 65536))), "would be 65536 x 65536: choose a width and a height"),
    "a colour by name": (draw(background="red"), "background is 'red': write a colour as '#rrggbb'"),
    "a short colour": (draw(background="#fff"), "background is '#fff'"),
    "a colour of other letters": (draw(background="#gg0000"), "background is '#gg0000'"),
    "a colour as numbers": (draw(background=[0, 0, 0]), "write a colour as '#rrggbb'"),
    "no colour": (draw(background=None), "background is 'None'"),
    # Evaluate Views
    "views of another number": (views(images=pictures(1)), "images has 1 pictures, reference 2"),
    "views of another size": (views(reference=pictures(2, 36, 40)), "images are 48 x 36, reference 40 x 36"),
    "views too small for SSIM": (views(images=pictures(1, 8, 9), reference=pictures(1, 8, 9)), "images are 9 x 8: SSIM needs 11"),
    "views with NaN": (views(reference=broken(pictures(2), NAN)), "reference has pixels that are not numbers"),
    "no reference": (views(reference=None), "reference has to be an IMAGE"),
    # Camera Orbit
    "no frames on the way": (orbit(frames=0), "frames is 0: choose 1 to 1000"),
    "too many frames on the way": (orbit(frames=1001), "frames is 1001: choose 1 to 1000"),
    "half a frame on the way": (orbit(frames=2.5), "frames is 2.5: choose a whole number"),
    "degrees that are no number": (orbit(degrees=NAN), "degrees is nan"),
    "too far around": (orbit(degrees=1e6), "degrees is 1000000.0: choose -3600 to 3600"),
    "in the middle": (orbit(distance=0.0), "distance is 0.0: choose 0.05 to 20"),
    "too high": (orbit(height=INFINITY), "height is inf"),
    "an orbit with no field of view": (orbit(field_of_view=180.0), "field_of_view is 180.0: choose 5 to 150"),
    "an orbit of tiny pictures": (orbit(height_px=15), "height_px is 15: choose 16 to 8192"),
    "camera_info is a list": (orbit(camera_info=[1, 2, 3]), "camera_info has to be a camera.* what came is list"),
    "camera_info is empty": (orbit(camera_info={}), "camera_info does not say where the camera is"),
    "camera_info is orthographic": (orbit(camera_info=host_camera(cameraType="orthographic")), "camera_info is orthographic"),
    "camera_info with a list": (orbit(camera_info=host_camera(position=[0, 0, 3])), "camera_info has no numbers x, y, z as its position"),
    "camera_info with words": (orbit(camera_info=host_camera(fov="wide")), "camera_info has 'wide' for fov"),
    "camera_info with a field of view of 180": (orbit(camera_info=host_camera(fov=180.0)), "180 degrees"),
    "camera_info with hardly a zoom": (orbit(camera_info=host_camera(zoom=1e-30)), "camera_info has .*no focal length"),
    "camera_info with a target of words": (orbit(camera_info=host_camera(target="middle")), "no numbers x, y, z as its target"),
    "camera_info with a target of NaN": (orbit(camera_info=host_camera(target={"x": NAN})), "camera_info has 'nan' for x"),
    "camera_info with a place of infinity": (orbit(camera_info=host_camera(position={"x": INFINITY})), "camera_info has 'inf' for x"),
    # Save, Load, Preview Camera Path, Evaluate Trajectory
    "nothing to save": (save(cameras=None), "cameras has to be a camera path"),
    "cameras with NaN to save": (save(cameras=path(poses=torch.full((3, 4, 4), NAN))), "values that are not numbers"),
    "an unknown format": (save(format="FBX"), "format is 'FBX': choose one of nerfstudio"),
    "no file": (load(file=None), "file is 'None': there is no such file"),
    "nothing to show": (preview(cameras=None), "cameras has to be a camera path"),
    "paths of different lengths": (judge(reference=path(4)), "cameras has 3 frames, reference 4"),
    "paths of one frame": (judge(cameras=path(1), reference=path(1)), "connect two paths of the same two or more frames"),
    "a path that stands still": (judge(reference=path(poses=torch.eye(4).repeat(3, 1, 1))), "A camera that never moves has no path"),
    "nothing to compare with": (judge(reference=None), "reference has to be a camera path"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def all_is_as_before() -> Iterator[None]:
    """After every case: gradients and the interrupt are as they were."""
    yield
    comfy.model_management.interrupt_current_processing(False)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def work(*args, **kwargs):
        raise AssertionError("worked before the input was checked")

    with monkeypatch.context() as patch:
        for module, name in (
            (splat_cameras, "track"), (splat_cameras, "refine_pose"), (splat_render, "render"), (reconstruction, "track"),
        ):  # fmt: skip
            patch.setattr(module, name, work)
        yield


def assert_one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text.endswith(".") and "\n" not in text and ". " not in text and 20 < len(text) < 300, text


@pytest.mark.parametrize(("act", "says"), CASES.values(), ids=CASES)
def test_it_is_refused_in_one_sentence_before_any_work(no_work: None, act: Act, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        act()
    assert_one_sentence(refused.value)


@needs_splat
@pytest.mark.parametrize(
    ("image", "says"),
    [(pictures(), r"around frame \d do not tell it"), (pictures(1).repeat(FRAMES, 1, 1, 1), "image stays the same in all frames")],
    ids=["noise", "still"],
)
def test_a_clip_that_does_not_tell_its_depth_is_refused(image: Tensor, says: str) -> None:
    with pytest.raises(InputError, match=f"depth is not connected, and .*{says}.*: connect a depth node") as refused:
        run("FreeSteerReconstructSplats", image=image, depth_kind="far is bright")
    assert_one_sentence(refused.value)


@needs_splat
@pytest.mark.parametrize("kind", splat_clip_inputs.DEPTH_KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_frames_that_have_nothing_in_common_are_refused_before_anything_is_fitted(monkeypatch, kind: str, known: bool) -> None:
    monkeypatch.setattr(reconstruction, "fit", None)
    with pytest.raises(InputError, match="image has 4 frames, and the cameras of 4 could not be found") as refused:
        reconstruct(depth_kind=kind, field_of_view_known=known)()
    assert_one_sentence(refused.value)


def test_a_host_without_splats_is_named_before_any_work(no_work: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "Types", SimpleNamespace(), raising=False)
    with pytest.raises(InputError, match="need ComfyUI"):
        reconstruct()()


# Names and places of files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's input folder; its output folder is beside it, and a file that is nobody's business."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    camera_files.save(path(), tmp_path / "secret.json")
    camera_files.save(path(), tmp_path / "secret")
    return tmp_path / "input"


@pytest.mark.parametrize(
    "name",
    [
        "", "  ", "../up", "a/../../up", "/tmp/absolute", "C:\\windows", "..\\up", "a//b", "nul\0", "what?", "a\nb", ".", "x" * 300,
        "\N{PILE OF POO}" * 60, "\ud800", None, 5, ["a"], "aux/x", "cameras/NUL.old", "com1",
    ],
)  # fmt: skip
def test_only_into_the_output_folder_is_saved(folder: Path, name: Any) -> None:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(InputError, match="write a plain file name") as refused:
        save(name=name)()
    assert_one_sentence(refused.value)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_file_in_the_way_is_named(folder: Path) -> None:
    (folder.parent / "output" / "file").write_text("")
    for format in CLASSES["FreeSteerSaveCameraPath"].GET_SCHEMA().inputs[2].options:
        with pytest.raises(InputError, match="name is 'file/cameras', which cannot be written") as refused:
            save(name="file/cameras", format=format)()
        assert_one_sentence(refused.value)


@pytest.mark.parametrize(
    "file",
    [
        "nothing.json", "../secret.json", "../secret", "{}/secret.json", "..\\secret.json", "a/../../secret.json", "link.json", "link",
        "nul\0.json", "/etc/passwd", "x" * 5000, "\ud800", "~/secret.json",
    ],
)  # fmt: skip
def test_only_what_lies_in_the_folders_is_loaded(folder: Path, file: str) -> None:
    (folder / "link.json").symlink_to(folder.parent / "secret.json")
    (folder / "link").symlink_to(folder.parent / "secret")
    file = file.format(folder.parent)
    with pytest.raises(InputError, match="there is no such file in ComfyUI's input or output folder") as refused:
        load(file=file)()
    assert_one_sentence(refused.value)
    assert CLASSES["FreeSteerLoadCameraPath"].fingerprint_inputs(file=file) == ""


@pytest.mark.parametrize("file", ["", "."])
def test_the_folders_themselves_are_no_camera_file(folder: Path, file: str) -> None:
    with pytest.raises(CameraFileError, match=f"file is '{file}': cameras.txt cannot be read") as refused:
        load(file=file)()
    assert_one_sentence(refused.value)


# What is in files


def content(**changed: object) -> dict[str, Any]:
    """Of a transforms.json with two frames."""
    simple = [[1.0, 0, 0, 2], [0, 1, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1]]
    frames = [{"file_path": f"images/{n}.png", "transform_matrix": deepcopy(simple)} for n in range(2)]
    return {"fl_x": 500.0, "fl_y": 500.0, "cx": 320, "cy": 240, "w": 640, "h": 480, "frames": frames, **changed}


def with_pose(row: int, column: int, value: object) -> dict[str, Any]:
    changed = content()
    changed["frames"][1]["transform_matrix"][row][column] = value
    return changed


def with_frame(**changed: object) -> dict[str, Any]:
    found = content()
    found["frames"][1].update(changed)
    return found


def lacking(key: str) -> dict[str, Any]:
    found = content()
    del found[key]
    return found


TRANSFORMS: dict[str, tuple[object, str]] = {
    "empty": (b"", "gift.json is damaged or is no JSON"),
    "cut": (json.dumps(content())[:200].encode(), "damaged or is no JSON"),
    "nested deeply": (b"[" * 200_000, "damaged or is no JSON"),
    "bytes of a picture": (b"\x89PNG\r\n\x1a\n\xff\xfe", "no text file"),
    "zeros": (bytes(1000), "damaged or is no JSON"),
    "larger than any": (2**24 + 1, "larger than any camera file"),
    "a number": (b"7", "no list of frames"),
    "a list": (b"[]", "no list of frames"),
    "without frames": (lacking("frames"), "no list of frames"),
    "frames of words": (content(frames="all"), "no list of frames"),
    "a list of words": (content(frames=["a"]), "no list of frames"),
    "no frames": (content(frames=[]), "has 0 frames: 1 to 10000"),
    "very many frames": (content(frames=[{}] * 10_001), "has 10001 frames: 1 to 10000"),
    "a frame without name": (with_frame(file_path=None), "which picture frame 2 is"),
    "a frame with a very long name": (with_frame(file_path="x" * 1001), "which picture frame 2 is"),
    "two frames of one name": (with_frame(file_path="images/0.png"), "two frames called"),
    "no matrix": (with_frame(transform_matrix=None), "no transform_matrix of 4 x 4"),
    "a matrix of 3 x 4": (with_frame(transform_matrix=[[1, 0, 0, 0]] * 3), "no transform_matrix of 4 x 4"),
    "words in a matrix": (with_pose(0, 3, "far"), "'far' for the pose"),
    "null in a matrix": (with_pose(0, 3, None), "NoneType for the pose"),
    "truth in a matrix": (with_pose(0, 0, True), "bool for the pose"),
    "NaN in a matrix": (with_pose(0, 3, NAN), "nan for the pose"),
    "a number without end": (json.dumps(content()).replace("500.0", "1e999").encode(), "inf for fl_x"),
    "a number of many digits": (json.dumps(content()).replace("640", "9" * 5000).encode(), "inf for w"),
    "a matrix that scales": (with_pose(0, 0, 2.0), "scales, skews or mirrors"),
    "a matrix that mirrors": (with_pose(2, 2, -1.0), "scales, skews or mirrors"),
    "a last row": (with_pose(3, 0, 1.0), "last row is not 0 0 0 1"),
    "no focal length": (lacking("fl_x"), "lacks fl_x"),
    "a focal length of 0": (content(fl_x=0), "a focal length of 0"),
    "a negative focal length": (content(fl_y=-500), "a focal length of -500"),
    "half a pixel": (content(w=640.5), "pictures of 640.5 x 480"),
    "no pixels": (content(h=0), "pictures of 640 x 0"),
    "more pixels than a picture has": (content(w=10**6), "pictures of 1e\\+06 x 480"),
    "a fisheye lens": (content(camera_model="OPENCV_FISHEYE"), "only pinhole cameras"),
    "a list as lens": (content(camera_model=["PINHOLE"]), "only pinhole cameras"),
    "distortion": (content(k1=0.1), "lens distortion \\(k1\\)"),
    "a zoom": ({**lacking("fl_x"), "frames": [{**f, "fl_x": 500 + n} for n, f in enumerate(content()["frames"])]}, "fl_x differs"),
}  # fmt: skip


@pytest.mark.parametrize(("holds", "says"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_damaged_or_hostile_json_is_refused_in_one_sentence(folder: Path, holds: object, says: str) -> None:
    with (folder / "gift.json").open("wb") as file:
        if isinstance(holds, int):
            file.truncate(holds)  # sparse: takes no space
        else:
            file.write(holds if isinstance(holds, bytes) else json.dumps(holds).encode())
    with pytest.raises(CameraFileError, match=says) as refused:
        load(file="gift.json")()
    assert "gift.json" in str(refused.value)
    assert_one_sentence(refused.value)


CAMERA, IMAGE = "1 PINHOLE 640 480 500 500 320 240\n", "1 1 0 0 0 0 0 0 1 a.png\n\n"
MODELS: dict[str, tuple[str | bytes | None, str | bytes | None, str]] = {
    "nothing": (None, None, "cameras.txt cannot be read"),
    "no images": (CAMERA, None, "images.txt cannot be read"),
    "bytes as cameras": (b"\xff\xfe\x00", IMAGE, "cameras.txt is no text file"),
    "bytes as images": (CAMERA, b"\xff\xfe\x00", "images.txt is no text file"),
    "empty cameras": ("", IMAGE, "which cameras.txt lacks"),
    "empty images": (CAMERA, "# none\n", "images.txt has 0 frames"),
    "a lens with distortion": ("1 OPENCV 640 480 500 500 320 240 0 0 0 0\n", IMAGE, "undistort the pictures first"),
    "a short camera": ("1 PINHOLE 640 480 500 500 320\n", IMAGE, "line 1 that describes no camera"),
    "a camera of words": ("1 PINHOLE 640 480 a b c d\n", IMAGE, "'a' for camera"),
    "a camera of NaN": ("1 PINHOLE 640 480 nan 500 320 240\n", IMAGE, "'nan' for camera"),
    "a camera without pixels": ("1 PINHOLE -640 480 500 500 320 240\n", IMAGE, "pictures of -640 x 480"),
    "a camera without focal length": ("1 PINHOLE 640 480 0 500 320 240\n", IMAGE, "a focal length of 0"),
    "a short image": (CAMERA, "1 1 0 0 0 0 0 0 1\n\n", "line 1 that describes no picture"),
    "an image by another camera": (CAMERA, IMAGE.replace(" 1 a", " 2 a"), "by camera '2', which cameras.txt lacks"),
    "a quaternion of 0": (CAMERA, IMAGE.replace("1 1 0", "1 0 0"), "a quaternion .*whose length is not 1"),
    "a place of NaN": (CAMERA, IMAGE.replace("0 0 0 1 a", "0 0 nan 1 a"), "'nan' for the pose"),
    "a place beyond measure": (CAMERA, IMAGE.replace("0 0 0 1 a", "0 0 1e10 1 a"), "'1e10' for the pose"),
    "two images of one name": (CAMERA, IMAGE * 2, "two frames called"),
    "images without lines of points": (CAMERA, IMAGE.replace("\n\n", "\n") + IMAGE.replace("a.", "b."), "no line of points"),
    "two cameras": (CAMERA + "2 PINHOLE 640 480 400 400 320 240\n", IMAGE + IMAGE.replace(" 1 a", " 2 b"), "2 different cameras"),
}  # fmt: skip


@pytest.mark.parametrize(("cameras", "images", "says"), MODELS.values(), ids=MODELS)
def test_a_damaged_or_hostile_colmap_model_is_refused_in_one_sentence(folder: Path, cameras, images, says: str) -> None:
    (folder / "sparse").mkdir()
    for name, text in (("cameras.txt", cameras), ("images.txt", images)):
        if text is not None:
            (folder / "sparse" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CameraFileError, match=says) as refused:
        load(file="sparse")()
    assert_one_sentence(refused.value)


def test_binary_models_and_other_files_are_named(folder: Path) -> None:
    (folder / "sparse").mkdir()
    (folder / "sparse" / "cameras.bin").write_bytes(b"")
    with pytest.raises(CameraFileError, match="convert it"):
        load(file="sparse")()
    with pytest.raises(CameraFileError, match="bin is no camera file"):
        load(file="sparse/cameras.bin")()
    with pytest.raises(CameraFileError, match="txt cannot be read"):
        load(file="")()


# Half-way


INTERRUPT = comfy.model_management.InterruptProcessingException


@pytest.fixture(params=[True, False], ids=["as the executor calls it", "with gradients"])
def mode(request: pytest.FixtureRequest) -> Iterator[Callable[[], tuple[bool, bool]]]:
    def now() -> tuple[bool, bool]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with torch.inference_mode(request.param):
        yield now


def executed(name: str, **inputs: Any) -> tuple:
    """As `run`, in the mode that is on."""
    cls = CLASSES[f"FreeSteer{name}"]
    defaults = {i.id: i.default for i in cls.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
    return cls.execute(**{**defaults, **inputs}).result or ()


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    """A clip that can be reconstructed."""
    image, depth, _, degrees = run("FreeSteerPlaygroundClip", kind="sideways", frames=4, width=WIDTH, height=HEIGHT, as_estimated=False)
    return {"image": image, "depth": depth, "depth_kind": "far is bright", "field_of_view": degrees, "field_of_view_known": True}


def stops(monkeypatch: pytest.MonkeyPatch, module: object, name: str, when: Callable[..., bool]) -> list[int]:
    """Interrupts, as the user's button does, where a function is called with what `when` is waiting for; the list counts calls."""
    calls: list[int] = []
    original = getattr(module, name)

    def interrupted(*args: Any, **kwargs: Any) -> object:
        calls.append(1)
        if when(len(calls), *args):
            comfy.model_management.interrupt_current_processing(True)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)
    return calls


def stages_until(monkeypatch: pytest.MonkeyPatch, stage: str) -> list[str]:
    """Those of a reconstruction, which is interrupted at one of them."""
    monkeypatch.setitem(splat_reconstruct.PRESETS, "preview", Preset(20, 2))
    stages = []
    stops(monkeypatch, splat_clip_inputs.Watch, "__call__", lambda n, watch, now, *_: (stages.append(now), now == stage)[1])
    return stages


@needs_splat
def test_an_interrupt_stops_a_reconstruction_that_looks_for_cameras(monkeypatch, mode, drawn) -> None:
    before, stages = mode(), stages_until(monkeypatch, "finding cameras")
    with pytest.raises(INTERRUPT):
        executed("ReconstructSplats", **drawn)
    assert mode() == before and stages == ["finding cameras"]


@needs_splat
def test_an_interrupt_of_a_fit_gives_what_there_is_so_far(monkeypatch, mode, drawn) -> None:
    before, stages = mode(), stages_until(monkeypatch, "fitting splats")
    scene, cameras, preview, report = executed("ReconstructSplats", **drawn)
    assert mode() == before and stages.count("fitting splats") == 1
    assert len(cameras) == len(preview) == 4 and scene.positions.shape[1] > 500 and preview.std() > 0.05
    assert "Stopped before the end; connect splat and cameras" in report


def test_an_interrupt_stops_a_search_for_cameras(monkeypatch, mode, drawn) -> None:
    before = mode()
    calls = stops(monkeypatch, splat_clip_inputs.Watch, "__call__", lambda n, *_: n == 2)
    with pytest.raises(INTERRUPT):
        executed("EstimateCameras", **drawn)
    assert mode() == before and len(calls) == 2


@pytest.mark.parametrize(
    ("name", "module", "function", "inputs"),
    [
        ("RenderSplatPath", splat_render, "render", {}),
        ("RefinePoses", splat_cameras, "refine_pose", {"image": pictures(3), "steps": 1}),
    ],
)  # fmt: skip
def test_an_interrupt_stops_after_the_frame_at_hand(monkeypatch, mode, name: str, module, function: str, inputs: dict) -> None:
    before = mode()
    calls = stops(monkeypatch, module, function, lambda n, *_: n == 2)
    with pytest.raises(INTERRUPT):
        executed(name, splat=splat(), cameras=path(), **inputs)
    assert mode() == before and len(calls) == 2


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("simulated"), RuntimeError("from a driver")], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        pytest.param("ReconstructSplats", reconstruction, "fit", marks=needs_splat), ("EstimateCameras", splat_cameras, "track"),
        ("RefinePoses", splat_cameras, "refine_pose"), ("RenderSplatPath", splat_render, "render"),
    ],
)  # fmt: skip
def test_an_error_half_way_is_passed_on_and_leaves_nothing_behind(monkeypatch, mode, drawn, name, module, function, error) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, function, fails)
    before = mode()
    inputs = drawn if name in ("ReconstructSplats", "EstimateCameras") else {"splat": splat(), "cameras": path()}
    with pytest.raises(type(error)):
        executed(name, **inputs, **({"image": pictures(3)} if name == "RefinePoses" else {}))
    assert mode() == before


@pytest.mark.parametrize(
    ("name", "module", "function", "least"),
    [
        pytest.param("ReconstructSplats", reconstruction, "fit", 2000, marks=needs_splat), ("EstimateCameras", splat_cameras, "track", 400),
        ("RefinePoses", splat_cameras, "refine_pose", 600), ("RenderSplatPath", splat_render, "render", 100),
    ],
)  # fmt: skip
def test_the_host_is_asked_for_room_before_long_work(monkeypatch, drawn, name, module, function, least: int) -> None:
    """least: bytes of a pixel."""
    asked: list[tuple[int, torch.device]] = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda needed, device: asked.append((needed, device)))

    def work(*_: object, **__: object) -> None:
        assert len(asked) == 1 and asked[0][0] > least * WIDTH * HEIGHT and asked[0][1] == comfy.model_management.get_torch_device()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, work)
    inputs = drawn if name in ("ReconstructSplats", "EstimateCameras") else {"splat": splat(), "cameras": path()}
    with pytest.raises(KeyboardInterrupt):
        executed(name, **inputs, **({"image": pictures(3)} if name == "RefinePoses" else {}))


def test_a_full_disk_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(camera_files.os, "replace", full)
    with pytest.raises(InputError, match="cannot be written \\(No space left on device\\)"):
        save()()
    assert os.listdir(folder.parent / "output") == []
