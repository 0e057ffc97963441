"""Camera paths: made, saved, loaded, looked at, compared."""

import math
import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui

from ...core.camera_files import files as camera_files
from ...core.camera_files.checks import CameraFileError
from ...core.geometry import cameras, trajectory
from ...core.geometry.cameras import CameraPath
from ...core.splats.projection import NEAR
from ...host import load3d_camera
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY, camera_path
from ..common.scenes import SPLAT, to_gaussians
from .previews import drawn

FORMATS = ("nerfstudio transforms.json", "COLMAP text")
COLMAP = (camera_files.CAMERAS, camera_files.IMAGES)
MOST_FRAMES, MOST_SIDE = 1000, 8192


class CameraOrbit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerCameraOrbit",
            display_name="Camera Orbit",
            category=CATEGORY,
            description=(
                "A camera that circles a scene of splats, looking at its middle; or, where you give it a camera, one that starts there and "
                "turns about the target of that camera."
            ),
            search_aliases=["turntable", "camera path", "fly around", "trajectory", "spiral", "novel view"],
            inputs=[
                SPLAT.Input("splat", tooltip="What to look at: its middle and its size decide where the camera is."),
                io.Int.Input("frames", default=25, min=1, max=MOST_FRAMES, tooltip="Cameras on the way."),
                io.Float.Input(
                    "degrees", default=360.0, min=-3600.0, max=3600.0, step=1.0, tooltip="How far around; negative: the other way.",
                ),
                io.Float.Input("start", default=0.0, min=-360.0, max=360.0, step=1.0, tooltip="Angle of the first camera, in degrees."),
                io.Float.Input("height", default=0.2, min=-5.0, max=5.0, step=0.05, tooltip="Above the middle, in radii of the circle."),
                io.Float.Input("distance", default=1.0, min=0.05, max=20.0, step=0.05, tooltip="1: the scene just fits. Less: nearer."),
                io.Float.Input("field_of_view", default=40.0, min=5.0, max=150.0, step=0.5, tooltip="Over the smaller side, in degrees."),
                io.Int.Input("width", default=512, min=16, max=MOST_SIDE, tooltip="Of the pictures, in pixels."),
                io.Int.Input("height_px", default=512, min=16, max=MOST_SIDE, tooltip="Of the pictures, in pixels."),
                io.Load3DCamera.Input(
                    "camera_info", optional=True, tooltip="A camera of Load 3D or Preview 3D: the orbit starts there and keeps its target. "
                    "Height, distance, start and field of view are then its own.",
                ),
            ],
            outputs=[CAMERA_PATH.Output(display_name="cameras", tooltip="For Render Splat Path.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, splat, frames, degrees, start, height, distance, field_of_view, width, height_px, camera_info=None) -> io.NodeOutput:
        for name, value, low, high in (
            ("degrees", degrees, -3600, 3600), ("start", start, -360, 360), ("height", height, -5, 5), ("distance", distance, 0.05, 20),
            ("field_of_view", field_of_view, 5, 150),
        ):  # fmt: skip
            checks.number(name, value, low, high)
        frames = checks.whole("frames", frames, 1, MOST_FRAMES)
        size = (checks.whole("height_px", height_px, 16, MOST_SIDE), checks.whole("width", width, 16, MOST_SIDE))
        angles = start + degrees * torch.arange(frames) / frames
        if camera_info is not None:
            return io.NodeOutput(around(camera_info, angles - start, size))
        scene = to_gaussians("splat", splat)
        middle = scene.positions.median(0).values
        some = scene[:: len(scene) // 10**6 + 1]
        extent = float(((some.positions - middle).norm(dim=1) + 2 * some.scales.amax(1)).quantile(0.9))
        radius = distance * max(extent, 4 * NEAR) / math.tan(math.radians(field_of_view) / 2)
        poses = cameras.orbit(middle, radius, angles, height * radius)
        camera = cameras.from_field_of_view(poses[0], field_of_view, size)
        return io.NodeOutput(CameraPath(poses, camera.focal, camera.centre, size))


def around(camera_info: dict, angles: torch.Tensor, size: tuple[int, int]) -> CameraPath:
    """An orbit about the target of a camera of the host."""
    if isinstance(camera_info, dict) and not camera_info.get("position"):
        raise checks.InputError("camera_info does not say where the camera is: connect one of Load 3D or Create Camera Info, or none.")
    try:
        camera, target = load3d_camera.from_host(camera_info, size), load3d_camera.target_of(camera_info)
    except ValueError as error:
        raise checks.InputError(str(error)) from None
    radians = torch.deg2rad(angles)
    twist = torch.zeros(len(angles), 6)
    twist[:, 4] = radians
    turned = cameras.exponential(twist)
    about = cameras.rigid(turned[:, :3, :3], target - (turned[:, :3, :3] @ target[:, None]).squeeze(-1))
    return camera_path("camera_info", CameraPath(camera.pose @ cameras.inverse(about), camera.focal, camera.centre, size))


class SaveCameraPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerSaveCameraPath",
            display_name="Save Camera Path",
            category=CATEGORY,
            description="Writes cameras to the output folder, for nerfstudio, COLMAP, Blender add-ons, or Load Camera Path.",
            search_aliases=["export cameras", "transforms.json", "colmap", "nerfstudio", "poses"],
            is_output_node=True,
            inputs=[
                CAMERA_PATH.Input("cameras", tooltip="What to write."),
                io.String.Input("name", default="freesteer/cameras", tooltip="Of the file or folder; a number is added."),
                io.Combo.Input(
                    "format", options=list(FORMATS), default=FORMATS[0], tooltip="Nerfstudio: one JSON file. COLMAP: a folder of texts.",
                ),
            ],
            outputs=[],
        )  # fmt: skip

    @classmethod
    def execute(cls, cameras, name, format) -> io.NodeOutput:
        path = camera_path("cameras", cameras)
        checks.choice("format", format, FORMATS)
        name = checks.file_name(name)
        try:
            folder, stem, counter, below, _ = folder_paths.get_save_image_path(name, folder_paths.get_output_directory())
            while any(os.path.exists(os.path.join(folder, f"{stem}_{counter:05}_{end}")) for end in (".json", "")):
                counter += 1
            file = f"{stem}_{counter:05}_" + (".json" if format == FORMATS[0] else "")
            camera_files.save(path, Path(folder) / file)
        except OSError as error:
            raise checks.unwritable(name, error) from None
        return io.NodeOutput(ui=ui.PreviewText(f"Saved as {below + '/' if below else ''}{file} in the output folder."))


class LoadCameraPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerLoadCameraPath",
            display_name="Load Camera Path",
            category=CATEGORY,
            description="Reads cameras from the input or output folder: nerfstudio's transforms.json, or COLMAP's two texts.",
            search_aliases=["import cameras", "transforms.json", "colmap", "nerfstudio", "poses"],
            inputs=[
                io.String.Input(
                    "file", default="transforms.json", tooltip="A file below ComfyUI's input or output folder; of COLMAP, the folder.",
                )
            ],
            outputs=[CAMERA_PATH.Output(display_name="cameras", tooltip="For Render Splat Path, Refine Camera Path, Evaluate Trajectory.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        path = file_below_folders(file)
        read = [path, *(path.parent / each for each in COLMAP), *(path / each for each in COLMAP)] if path else []
        return " ".join(f"{each} {each.stat().st_mtime_ns}" for each in read if each.exists())

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = file_below_folders(file)
        if path is None:
            raise checks.InputError(f"file is {str(file)[:80]!r}: there is no such file in ComfyUI's input or output folder.")
        try:
            return io.NodeOutput(camera_files.load(path))
        except CameraFileError as error:
            raise CameraFileError(f"file is {str(file)[:80]!r}: {error}") from None


def file_below_folders(file: str) -> Path | None:
    """A file or folder that lies, links resolved, in the host's input or output folder."""
    for root in (folder_paths.get_input_directory(), folder_paths.get_output_directory()):
        base = Path(root).resolve()
        try:
            path = (base / str(file)).resolve()
            if path.is_relative_to(base) and path.exists():
                return path
        except (OSError, ValueError):
            continue
    return None


class PreviewCameraPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerPreviewCameraPath",
            display_name="Preview Camera Path",
            category=CATEGORY,
            description="Draws where the cameras are and what they see: from above, from the side and from the front.",
            search_aliases=["show cameras", "frustum", "trajectory", "poses"],
            is_output_node=True,
            inputs=[
                CAMERA_PATH.Input("cameras", tooltip="What to draw: the first camera green, the last one red."),
                SPLAT.Input("splat", optional=True, tooltip="A scene to draw behind them, as points."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="Three views of the path.")],
        )

    @classmethod
    def execute(cls, cameras, splat=None) -> io.NodeOutput:
        scene = None if splat is None else to_gaussians("splat", splat)
        image = drawn(camera_path("cameras", cameras), scene)[None]
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


class EvaluateTrajectory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerEvaluateTrajectory",
            display_name="Evaluate Trajectory",
            category=CATEGORY,
            description="Measures how near a camera path is to the true one, after the best shift, turn and scale.",
            search_aliases=["ate", "rpe", "pose error", "metric", "compare cameras", "evo"],
            is_output_node=True,
            inputs=[
                CAMERA_PATH.Input("cameras", tooltip="The path to judge."),
                CAMERA_PATH.Input("reference", tooltip="The true path, with as many frames."),
            ],
            outputs=[
                io.Float.Output(display_name="ate", tooltip="Absolute error, of paths of size 1 (as in COLMAP-Free 3DGS): .01 is good."),
                io.Float.Output(display_name="rpe_translation", tooltip="Error from frame to frame, in the units of the reference."),
                io.Float.Output(display_name="rpe_rotation", tooltip="Error of the turn from frame to frame, in degrees."),
            ],
        )

    @classmethod
    def execute(cls, cameras, reference) -> io.NodeOutput:
        a, b = camera_path("cameras", cameras), camera_path("reference", reference)
        if len(a) != len(b) or len(a) < 2:
            raise checks.InputError(f"cameras has {len(a)} frames, reference {len(b)}: connect two paths of the same two or more frames.")
        try:
            ate = trajectory.ate(a.positions, b.positions)
            translation, rotation = trajectory.rpe(a.poses, b.poses)
        except ValueError as error:
            raise checks.InputError(f"cameras and reference cannot be compared: {error}") from None
        text = f"ATE {ate:.4f}, RPE {translation:.4f} and {rotation:.3f} degrees"
        return io.NodeOutput(ate, translation, rotation, ui=ui.PreviewText(text))


NODES = [CameraOrbit, SaveCameraPath, LoadCameraPath, PreviewCameraPath, EvaluateTrajectory]
