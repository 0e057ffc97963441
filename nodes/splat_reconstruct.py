"""COLMAP-Free 3D Gaussian Splatting (https://arxiv.org/abs/2312.07504): a video becomes cameras and splats."""
import math
from dataclasses import replace

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..core.splat.fitting import Fit, refine_pose
from ..core.splat.rasteriser import render
from ..core.splat.reconstruction import PRESETS, reconstruct
from ..core.splat.tracking import LOST, Tracked, track
from . import checks
from .splat_types import CAMERA_PATH, CATEGORY, SPLAT, camera_path, moved, one_size, splat_kind, to_gaussians, to_splat

INVERSE, DISTANCE, LINEAR = "near is bright", "far is bright", "near is bright, linear"
DEPTH_KINDS = (INVERSE, DISTANCE, LINEAR)
MOST_FRAMES, SMALLEST = 300, 32
FIELD_OF_VIEW = 55.0
LARGEST = 1e30  # number in a depth
PLAUSIBLE = (0.1, 1e4)  # distances of a scene, in units of the world: nearer than a hundredth of one, nothing is drawn
PLAIN = 1e-3  # of white: a picture that varies less shows nothing
FLAT = 1e-4  # of the largest depth: what varies less is none
NEAREST = 1.5  # where distance is drawn from the nearest to the farthest, the nearest is taken to be half of that range away


def depth_inputs() -> list:
    return [
        io.Image.Input(
            "depth", tooltip="How far everything is, a picture for each frame, from any depth node (Depth Anything, MoGe...). Each frame's "
            "may have its own scale and offset: they are found. Black: unknown.",
        ),
        io.Combo.Input(
            "depth_kind", options=list(DEPTH_KINDS), default=INVERSE, tooltip="Near is bright: 1 / distance, as of Depth Anything 1 "
            "and 2, and MoGe. Far is bright: distance itself, in any unit. Linear: the negative of distance, as Depth Anything 3 is drawn.",
        ),
        io.Float.Input(
            "field_of_view", default=FIELD_OF_VIEW, min=5.0, max=150.0, step=0.5, tooltip="Of the camera, over the picture's width, in "
            "degrees: a phone has about 65, a 50 mm lens 40.",
        ),
        io.Boolean.Input(
            "field_of_view_known", default=False, tooltip="On: it is exactly as given. Off: it is a guess, and the clip tells the rest; "
            "that needs some movement to the side.",
        ),
    ]  # fmt: skip


def clip_of(
    image: Tensor, depth: Tensor, kind: str, field_of_view: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Pictures (F, H, W, 3), given depths and their validity (F, H, W), focal length in widths; checked."""
    pictures, given = checks.image("image", image), checks.image("depth", depth, clamp=False).mean(-1)
    if not (given.abs() <= LARGEST).all():
        raise checks.InputError("depth has values too large to be added up: divide it by the largest that there can be.")
    checks.choice("depth_kind", kind, DEPTH_KINDS)
    checks.number("field_of_view", field_of_view, 5, 150)
    one_size("depth", given, "image", pictures)
    count, height, width = pictures.shape[:3]
    if count < 2:
        raise checks.InputError("image is a single picture: a camera can only be found from two or more frames of a clip.")
    if count > MOST_FRAMES:
        raise checks.InputError(f"image has {count} frames; {MOST_FRAMES} are the most: take every second one, or a part of the clip.")
    if min(height, width) < SMALLEST:
        raise checks.InputError(f"image is {width} x {height}: frames need at least {SMALLEST} pixels on each side.")
    plain = (pictures.amax((1, 2)) - pictures.amin((1, 2))).amax(1) < PLAIN
    if plain.any():
        raise checks.InputError(f"image is of one colour in frame {int(plain.nonzero()[0])}, which shows nothing: leave such frames out.")
    if given.shape[1:] != (height, width):
        same_aspect("depth", given, (height, width))
        given = F.interpolate(given[:, None], (height, width), mode="nearest")[:, 0]
    valid = given > 0
    if kind == LINEAR:
        given = given.amax((1, 2), keepdim=True) * NEAREST - given
    if mask is not None:
        hidden = checks.mask("mask", mask, (height, width), count, empty=True)[:, 0] > 0.5
        valid = valid & ~hidden.expand(count, -1, -1)
    empty = [i for i, share in enumerate(valid.flatten(1).float().mean(1).tolist()) if share < 0.2]
    if empty:
        raise checks.InputError(f"depth is black in most of frame {empty[0]}: check the depth node, or the mask.")
    nearest, farthest = (given.where(valid, beyond).flatten(1) for beyond in (torch.inf, -torch.inf))
    flat = farthest.amax(1) - nearest.amin(1) < FLAT * given.where(valid, 0).abs().flatten(1).amax(1)
    if flat.any():
        raise checks.InputError(f"depth is flat in frame {int(flat.nonzero()[0])}: connect the output of a depth node.")
    given = in_plausible_unit(given, float(given[0][valid[0]].median()), kind == INVERSE)
    return pictures, given, valid, 0.5 / float(torch.tan(torch.deg2rad(torch.tensor(field_of_view)) / 2))


def in_plausible_unit(given: Tensor, median: float, inverse: bool) -> Tensor:
    """As it is, or with a median of 1 where that of the first frame is at a distance at which splats cannot be drawn well."""
    near, far = PLAUSIBLE
    return given if near <= (1 / median if inverse else median) <= far else given / median


def same_aspect(name: str, pictures: Tensor, wanted: tuple[int, int]) -> None:
    """Of pictures (F, H, W, ...) that are to be scaled to a size (height, width)."""
    (h, w), (height, width) = pictures.shape[1:3], wanted
    if abs(math.log((w / h) / (width / height))) > checks.SAME_ASPECT:
        raise checks.InputError(f"{name} is {w} x {h}, not of the shape of {width} x {height}: crop or resize one of them.")


class Watch:
    """The progress bar, with a picture of what there is so far; stops when the user does."""

    def __init__(self, pictures: Tensor):
        self.bar = comfy.utils.ProgressBar(100)
        self.stages = {"finding cameras": (0, 40), "fitting splats": (40, 100)}
        self.frames = len(pictures)
        self.shown = 0

    def __call__(self, stage: str, share: float, fit: Fit | None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        low, high = self.stages[stage]
        preview = None
        if fit is not None:
            self.shown = (self.shown + 1) % len(fit.path)
            with torch.no_grad():
                colour = render(fit.gaussians, fit.path[self.shown]).colour
            picture = Image.fromarray((colour.clamp(0, 1) * 255).round().byte().cpu().numpy())
            preview = ("JPEG", picture, 512)
        self.bar.update_absolute(round(low + (high - low) * share), 100, preview)


class ReconstructSplats(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerReconstructSplats",
            display_name="Reconstruct Splats From Video",
            category=CATEGORY,
            description=(
                "Turns the frames of a video into a scene of Gaussian splats and the camera of every frame, without COLMAP and without "
                "anything to compile. The scene must hold still while the camera moves."
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
                    "mask", optional=True, tooltip="What to leave out, such as people who walk, or the sky: white there. One for all, "
                    "or one for each.",
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
    def execute(cls, image, depth, depth_kind, field_of_view, field_of_view_known, preset, mask=None) -> io.NodeOutput:
        pictures, given, valid, focal = clip_of(image, depth, depth_kind, field_of_view, mask)
        checks.choice("preset", preset, tuple(PRESETS))
        splat_kind()
        device = comfy.model_management.get_torch_device()
        with torch.inference_mode(False), torch.enable_grad():
            frames, depths, known = (part.clone().to(device) for part in (pictures, given, valid))
            look = Watch(pictures)
            made = reconstruct(frames, depths, known, focal, field_of_view_known, depth_kind == INVERSE, PRESETS[preset], look, found)
        text = report(made.tracked)
        with torch.no_grad():
            shown = torch.stack([render(made.fit.gaussians, made.fit.path[i]).colour.clamp(0, 1).cpu() for i in range(len(pictures))])
        return io.NodeOutput(to_splat(made.fit.gaussians), moved(made.fit.path, "cpu"), shown, text, ui=ui.PreviewText(text))


def found(tracked: Tracked) -> None:
    """Stops before splats are fitted to cameras that are mostly wrong."""
    if len(tracked.lost) > len(tracked.confidence) // 2:
        raise checks.InputError(
            f"image has {len(tracked.confidence)} frames, and the cameras of {len(tracked.lost)} could not be found, since less than "
            f"{LOST:.0%} of their pixels agree with another frame: take more frames, mask what moves, or switch depth_kind."
        )


def report(tracked: Tracked) -> str:
    """For a person: how many frames are lost, which, and what to do."""
    confidence = tracked.confidence
    text = f"{len(confidence)} cameras; agreement of the frames {float(confidence.mean()):.0%} (worst {float(confidence.min()):.0%})"
    degrees = 2 * float(torch.rad2deg(torch.atan(0.5 / tracked.state.focal)))
    text += f"; field of view {degrees:.1f} degrees."
    if tracked.lost:
        frames = ", ".join(map(str, tracked.lost[:10])) + ("..." if len(tracked.lost) > 10 else "")
        text += (
            f" Lost at frame {frames}: less than {LOST:.0%} of their pixels agree with another frame. The camera moves too far between "
            "frames there, things move, or depth is of the wrong kind: take more frames, mask what moves, or switch depth_kind."
        )
    return text


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
    def execute(cls, image, depth, depth_kind, field_of_view, field_of_view_known) -> io.NodeOutput:
        pictures, given, valid, focal = clip_of(image, depth, depth_kind, field_of_view)
        watch = Watch(pictures)
        device = comfy.model_management.get_torch_device()
        tracked = track(
            pictures.to(device), given.to(device), valid.to(device), focal, field_of_view_known, depth_kind == INVERSE,
            lambda done, total: watch("finding cameras", done / total, None),
        )  # fmt: skip
        text = report(tracked)
        return io.NodeOutput(moved(tracked.path((pictures.shape[1], pictures.shape[2])), "cpu"), text, ui=ui.PreviewText(text))


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
        bar = comfy.utils.ProgressBar(len(path))
        poses = []
        with torch.inference_mode(False), torch.enable_grad():
            scene = moved(scene, device)
            for frame in range(len(path)):
                comfy.model_management.throw_exception_if_processing_interrupted()
                camera = moved(path[frame].resized(pictures.shape[1], pictures.shape[2]), device)
                poses.append(refine_pose(scene, pictures[frame].clone().to(device), camera, steps).cpu())
                bar.update(1)
        return io.NodeOutput(replace(path, poses=torch.stack(poses)))


NODES = [ReconstructSplats, EstimateCameras, RefinePoses]
