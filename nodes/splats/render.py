"""Splats as pictures, from any camera, and how good they are."""

from dataclasses import replace

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ...core.geometry.cameras import CameraPath
from ...core.measures import views
from ...core.splats import memory
from ...core.splats.rasteriser import render
from ..common import checks
from ..common.camera_paths import CAMERA_PATH, CATEGORY, as_many, camera_path, copied_to
from ..common.room import make_room
from ..common.scenes import SPLAT, to_gaussians

MOST_PIXELS = 8192


def resized(path: CameraPath, width: int, height: int) -> CameraPath:
    """The path with other picture sizes, 0 for its own; what is seen along the other side grows or shrinks with the shape."""
    own_height, own_width = path.size
    if not width and not height:
        width, height = own_width, own_height
    width = width or max(1, round(height * own_width / own_height))
    height = height or max(1, round(width * own_height / own_width))
    if max(width, height) > MOST_PIXELS:
        raise checks.InputError(f"The pictures would be {width} x {height}: choose a width and a height, {MOST_PIXELS} at most.")
    if (height, width) == path.size:
        return path
    scale = min(width / own_width, height / own_height)
    centre = (path.centre - path.centre.new_tensor([own_width, own_height]) / 2) * scale + path.centre.new_tensor([width, height]) / 2
    return replace(path, focal=path.focal * scale, centre=centre, size=(height, width))


class RenderSplatPath(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerRenderSplatPath",
            display_name="Render Splat Path",
            category=CATEGORY,
            description=(
                "Draws a scene of Gaussian splats from every camera of a path: exact, sorted, without holes or cut edges. Gives the frames "
                "of a video, their alpha, and their depth."
            ),
            search_aliases=["gaussian splatting", "3dgs", "render splat", "novel view", "camera path", "fly through", "turntable"],
            inputs=[
                SPLAT.Input("splat", tooltip="The scene. Of several in one SPLAT, the first is drawn."),
                CAMERA_PATH.Input("cameras", tooltip="Where to look from, a camera for each frame."),
                io.Int.Input("width", default=0, min=0, max=MOST_PIXELS, tooltip="In pixels. 0: as the cameras or the other side say."),
                io.Int.Input("height", default=0, min=0, max=MOST_PIXELS, tooltip="In pixels. 0: as the cameras or the other side say."),
                io.Color.Input("background", default="#000000", tooltip="What is seen where there are no splats."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="A picture for each camera."),
                io.Mask.Output(display_name="alpha", tooltip="How much of each pixel the splats cover."),
                io.Image.Output(display_name="depth", tooltip="Near is bright: the nearest distance of all, divided by the distance."),
            ],
        )

    @classmethod
    def execute(cls, splat, cameras, width, height, background) -> io.NodeOutput:
        width, height = checks.whole("width", width, 0, MOST_PIXELS), checks.whole("height", height, 0, MOST_PIXELS)
        path = resized(camera_path("cameras", cameras), width, height)
        device = comfy.model_management.get_torch_device()
        scene = to_gaussians("splat", splat)
        make_room(memory.of_rendering(len(scene), scene.sh.shape[1], path.size, device), device)
        scene, path = copied_to(scene, device), copied_to(path, device)
        ground = colour_of("background", background).to(device)
        bar = comfy.utils.ProgressBar(len(path))
        frames = []
        for frame in range(len(path)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            shown = render(scene, path[frame], ground)
            frames.append((shown.colour.clamp(0, 1).cpu(), shown.alpha.clamp(0, 1).cpu(), shown.depth.cpu()))
            bar.update(1)
        colours, alphas, depths = (torch.stack(part) for part in zip(*frames, strict=True))
        return io.NodeOutput(colours, alphas, near_is_bright(depths, alphas))


def near_is_bright(depths: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Depths (F, H, W) as an IMAGE: 1 / depth over its largest, 0 where nothing is."""
    inverse = torch.where((depths > 0) & (alphas > 0.5), 1 / depths.clamp(min=1e-6), 0)
    return (inverse / inverse.amax().clamp(min=1e-6))[..., None].expand(-1, -1, -1, 3).contiguous()


def colour_of(name: str, value: str) -> torch.Tensor:
    digits = value.lstrip("#") if isinstance(value, str) else ""
    if len(digits) != 6 or any(d not in "0123456789abcdefABCDEF" for d in digits):
        raise checks.InputError(f"{name} is {str(value)[:20]!r}: write a colour as '#rrggbb'.")
    return torch.tensor([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])


class EvaluateViews(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerEvaluateViews",
            display_name="Evaluate Views",
            category=CATEGORY,
            description="Measures how near pictures are to those they should be: PSNR in dB and SSIM, the mean over all of them.",
            search_aliases=["psnr", "ssim", "compare images", "quality", "metric"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to judge, such as those of Render Splat Path."),
                io.Image.Input("reference", tooltip="What they should look like: as many, of the same size."),
            ],
            outputs=[
                io.Float.Output(display_name="psnr", tooltip="In dB: above 25 is near, above 30 hard to tell apart. At most 100."),
                io.Float.Output(display_name="ssim", tooltip="From -1 to 1, which is the same."),
            ],
        )

    @classmethod
    def execute(cls, images, reference) -> io.NodeOutput:
        a, b = checks.image("images", images), checks.image("reference", reference)
        as_many("images", a, "reference", b)
        if a.shape != b.shape:
            raise checks.InputError(f"images are {a.shape[2]} x {a.shape[1]}, reference {b.shape[2]} x {b.shape[1]}: resize one of them.")
        if min(a.shape[1:3]) < views.WINDOW:
            raise checks.InputError(f"images are {a.shape[2]} x {a.shape[1]}: SSIM needs {views.WINDOW} pixels on each side.")
        psnr, ssim = float(views.psnr(a, b).clamp(max=100).mean()), float(views.ssim(a, b).mean())
        return io.NodeOutput(psnr, ssim, ui=ui.PreviewText(f"PSNR {psnr:.2f} dB, SSIM {ssim:.3f}"))


NODES = [RenderSplatPath, EvaluateViews]
