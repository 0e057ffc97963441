"""The cameras of pictures: found from a clip, or refined against a scene."""

from dataclasses import replace

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ...core.splats import memory
from ...core.splats.fitting import refine_pose
from ...core.tracking.tracking import track
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY, camera_path, copied_to
from ..common.room import make_room
from ..common.scenes import SPLAT, to_gaussians
from .clip_inputs import SMALLEST, Lens, Watch, clip_in_motion, clip_of, depth_inputs, pictures_of, report, same_aspect


class EstimateCameras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerEstimateCameras",
            display_name="Estimate Camera Path",
            category=CATEGORY,
            description=(
                "Finds how the camera moved between two pictures, or through a clip, from how they look when they are warped into each "
                "other. Quicker than Reconstruct Splats From Video, and without splats."
            ),
            search_aliases=["relative pose", "camera pose", "visual odometry", "camera tracking", "matchmove", "slam"],
            inputs=[io.Image.Input("image", tooltip="Two pictures or a clip of a scene that holds still."), *depth_inputs()],
            outputs=[
                CAMERA_PATH.Output(display_name="cameras", tooltip="The camera of every picture, in the frame of the first one."),
                io.String.Output(display_name="report", tooltip="How well the pictures agree, and which ones are lost, in words."),
            ],
        )

    @classmethod
    def execute(cls, image, depth_kind, field_of_view, field_of_view_known, depth=None) -> io.NodeOutput:
        watch, lens, device = Watch(), Lens(field_of_view, field_of_view_known), comfy.model_management.get_torch_device()
        clip = None if depth is None else clip_of(image, depth, depth_kind, lens)
        frames, height, width = pictures_of(image).shape[:3]
        room = make_room(memory.of_tracking(frames, (height, width)), device)
        clip = copied_to(clip or clip_in_motion(image, depth_kind, lens, None, None, watch), device)
        tracked = track(
            clip.pictures, clip.depths, clip.valid, clip.focal, clip.focal_known, clip.inverse,
            lambda done, total: watch("finding cameras", done / total, None), clip.from_motion,
        )  # fmt: skip
        text = f"{report(tracked)} {room}"
        return io.NodeOutput(copied_to(tracked.path(clip.size), "cpu"), text, ui=ui.PreviewText(text))


class RefinePoses(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerRefinePoses",
            display_name="Refine Camera Path",
            category=CATEGORY,
            description="Moves cameras until a scene of splats looks like the pictures that they took. The scene stays as it is.",
            search_aliases=["pose refinement", "camera pose", "localise", "relocalization", "align camera", "gaussian splatting"],
            inputs=[
                io.Image.Input("image", tooltip="What the cameras saw: a picture for each of them."),
                SPLAT.Input("splat", tooltip="The scene."),
                CAMERA_PATH.Input("cameras", tooltip="Where the cameras are, up to a few pixels."),
                io.Int.Input("steps", default=60, min=1, max=1000, tooltip="For each picture. More: nearer, and slower."),
            ],
            outputs=[CAMERA_PATH.Output(display_name="cameras", tooltip="The same cameras, moved.")],
        )

    @classmethod
    def execute(cls, image, splat, cameras, steps) -> io.NodeOutput:
        pictures, path = checks.image("image", image), camera_path("cameras", cameras)
        checks.whole("steps", steps, 1, 1000)
        if len(pictures) != len(path):
            raise checks.InputError(f"image has {len(pictures)} pictures, cameras {len(path)}: connect as many of both.")
        if min(pictures.shape[1:3]) < SMALLEST:
            raise checks.InputError(f"image is {pictures.shape[2]} x {pictures.shape[1]}: pictures need {SMALLEST} pixels on each side.")
        same_aspect("image", pictures, path.size)
        device = comfy.model_management.get_torch_device()
        scene = to_gaussians("splat", splat)
        height, width = pictures.shape[1:3]
        make_room(memory.of_rendering(len(scene), scene.sh.shape[1], (height, width), device, gradients=True), device)
        bar = comfy.utils.ProgressBar(len(path))
        poses = []
        with torch.inference_mode(False), torch.enable_grad():
            scene = copied_to(scene, device)
            for frame in range(len(path)):
                comfy.model_management.throw_exception_if_processing_interrupted()
                camera = copied_to(path[frame].resized(height, width), device)
                poses.append(refine_pose(scene, pictures[frame].clone().to(device), camera, steps).cpu())
                bar.update(1)
        return io.NodeOutput(replace(path, poses=torch.stack(poses)))


NODES = [EstimateCameras, RefinePoses]
