"""One camera of a path, for the host's own nodes."""

from comfy_api.latest import io

from ...host import load3d_camera
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY, camera_path

NEAREST, FARTHEST = 0.001, 1e6


class CameraOfPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerCameraOfPath",
            display_name="Camera Of Path",
            category=CATEGORY,
            description="Takes one camera out of a path, for ComfyUI's own viewers and Render Splat, which then see what it saw.",
            search_aliases=["camera info", "get camera", "load 3d camera", "preview splat camera", "viewpoint"],
            inputs=[
                CAMERA_PATH.Input("cameras", tooltip="The path."),
                io.Int.Input("frame", default=0, min=-10_000, max=10_000, tooltip="Which camera, from 0; -1 is the last one."),
                io.Float.Input(
                    "distance", default=4.0, min=NEAREST, max=FARTHEST, step=0.1, tooltip="To the point that a viewer turns about when you "
                    "drag it, in the scene's units.",
                ),
            ],
            outputs=[io.Load3DCamera.Output(display_name="camera_info", tooltip="For Render Splat, Preview Splat and Camera Orbit.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, cameras, frame, distance) -> io.NodeOutput:
        path = camera_path("cameras", cameras)
        frame = checks.whole("frame", frame, -len(path), len(path) - 1)
        checks.number("distance", distance, NEAREST, FARTHEST)
        return io.NodeOutput(load3d_camera.to_host(path[frame], distance))


NODES = [CameraOfPath]
