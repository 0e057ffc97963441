"""A video becomes cameras and Gaussian splats (https://arxiv.org/abs/2312.07504)."""

from dataclasses import replace

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...core.geometry.cameras import CameraPath
from ...core.splats import memory
from ...core.splats.gaussians import Gaussians
from ...core.splats.rasteriser import render
from ...core.splats.reconstruction import PRESETS, reconstruct
from ...core.tracking.tracking import LOST, Tracked
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY, camera_path, copied_to
from ..common.room import make_room
from ..common.scenes import SPLAT, splat_kind, to_gaussians, to_splat
from ..tracking.clip_inputs import Lens, Watch, clip_in_motion, clip_of, depth_inputs, pictures_of, report, same_aspect

STOPPED_EARLY = "Stopped before the end; connect splat and cameras to another Reconstruct Splats From Video to go on."


class ReconstructSplats(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerReconstructSplats",
            display_name="Reconstruct Splats From Video",
            category=CATEGORY,
            description=(
                "Turns the frames of a video into a scene of Gaussian splats and the camera of every frame, without COLMAP and without "
                "anything to compile. The scene must hold still while the camera moves. Cancel while it fits splats, and you get what "
                "there is."
            ),
            search_aliases=[
                "gaussian splatting", "3dgs", "cf-3dgs", "colmap", "structure from motion", "photogrammetry", "video to 3d", "camera pose",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The frames in their order, 10 to 60 of them, with a small step of the camera in between."),
                *depth_inputs(),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="preview", tooltip="Preview: a minute or two on a CPU for 20 small frames. "
                    "Standard: sharper. Quality: for a GPU.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="What to leave out, such as people who walk, or the sky: white there. One for all, or "
                    "one for each.",
                ),
                CAMERA_PATH.Input(
                    "cameras", optional=True, tooltip="Where the cameras are, if you know: of COLMAP or nerfstudio by Load Camera Path, or "
                    "of an earlier run. Splats are then in their unit, and the field of view is theirs.",
                ),
                SPLAT.Input(
                    "splat", optional=True, tooltip="A scene to go on from: the splats of an earlier run, also of one that you stopped, "
                    "with its cameras. Where frames show more, splats are added.",
                ),
            ],
            outputs=[
                SPLAT.Output(
                    display_name="splat", tooltip="The scene, for Render Splat Path, or for Create 3D File before Preview and Save.",
                ),
                CAMERA_PATH.Output(display_name="cameras", tooltip="The camera of every frame, in the frame of the first one."),
                io.Image.Output(display_name="preview", tooltip="The scene as seen from the cameras that were found."),
                io.String.Output(display_name="report", tooltip="How well the frames agree, and which ones are lost, in words."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, image, depth_kind, field_of_view, field_of_view_known, preset, depth=None, mask=None, cameras=None, splat=None
    ) -> io.NodeOutput:
        checks.choice("preset", preset, tuple(PRESETS))
        device, watch, lens = comfy.model_management.get_torch_device(), Watch(), Lens(field_of_view, field_of_view_known)
        path = None if cameras is None else copied_to(path_of(cameras, pictures_of(image)), device)
        scene = None if splat is None else copied_to(scene_of(splat, path), device)
        clip = None if depth is None else clip_of(image, depth, depth_kind, lens, mask)
        splat_kind()
        frames, height, width = pictures_of(image).shape[:3]
        words = [make_room(memory.of_reconstruction(frames, (height, width), device), device)]
        clip = copied_to(clip or clip_in_motion(image, depth_kind, lens, mask, path, watch), device)

        def check(tracked: Tracked) -> None:
            refuse_lost(tracked, path is not None, depth is not None)
            words.insert(0, report(tracked))

        with torch.inference_mode(False), torch.enable_grad():
            try:
                fit = reconstruct(clip, PRESETS[preset], path, scene, watch, check).fit
            except comfy.model_management.InterruptProcessingException:
                if watch.fit is None:
                    raise
                fit = watch.fit
                words.append(STOPPED_EARLY)
        text = " ".join(words)
        with torch.no_grad():
            preview = torch.stack([render(fit.gaussians, fit.path[i]).colour.clamp(0, 1).cpu() for i in range(len(fit.path))])
        return io.NodeOutput(to_splat(fit.gaussians), copied_to(fit.path, "cpu"), preview, text, ui=ui.PreviewText(text))


def path_of(cameras: object, pictures: Tensor) -> CameraPath:
    """Cameras that are given, for pictures (F, H, W, 3)."""
    path = camera_path("cameras", cameras)
    height, width = pictures.shape[1:3]
    if len(path) != len(pictures):
        raise checks.InputError(f"cameras has {len(path)} frames, image {len(pictures)}: connect as many of both.")
    same_aspect("image", pictures, path.size)
    if (path.positions.amax(0) == path.positions.amin(0)).all():
        raise checks.InputError("cameras stand still, so they do not tell how far anything is: disconnect them, and they are found.")
    scale = path.focal.new_tensor([width / path.size[1], height / path.size[0]])
    return replace(path, focal=path.focal * scale, centre=path.centre * scale, size=(height, width))


def scene_of(splat: object, path: CameraPath | None) -> Gaussians:
    """A scene that is given to go on from."""
    if path is None:
        raise checks.InputError("splat is a scene to go on from, and cameras is missing: connect the cameras that came with it.")
    return to_gaussians("splat", splat)


def refuse_lost(tracked: Tracked, given: bool, with_depth: bool) -> None:
    """Raises InputError where most cameras are lost. given: whether they were an input; with_depth: whether depth was."""
    if len(tracked.lost) <= len(tracked.confidence) // 2:
        return
    few = f"less than {LOST:.0%} of their pixels agree with another frame"
    if given:
        raise checks.InputError(
            f"cameras do not fit image in {len(tracked.lost)} of {len(tracked.confidence)} frames, where {few}: check that both are of the "
            "same clip and that depth_kind is right, or disconnect them, and they are found."
        )
    remedy = "mask what moves, or switch depth_kind" if with_depth else "or connect a depth node"
    raise checks.InputError(
        f"image has {len(tracked.confidence)} frames, and the cameras of {len(tracked.lost)} could not be found, since {few}: take more "
        f"frames, {remedy}."
    )


NODES = [ReconstructSplats]
