"""What reconstruction from a clip takes in: frames, their depth in any of the usual kinds, and the lens."""

import math
from typing import NamedTuple

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...core.geometry.cameras import CameraPath
from ...core.splats.clip import Clip
from ...core.splats.fitting import Fit
from ...core.splats.rasteriser import render
from ...core.tracking.motion import nearness
from ...core.tracking.tracking import LOST, Tracked
from ..common import checks
from ..common.camera_paths import as_many, copied_to

INVERSE, DISTANCE, LINEAR = "near is bright", "far is bright", "near is bright, linear"
DEPTH_KINDS = (INVERSE, DISTANCE, LINEAR)
MOST_FRAMES, SMALLEST = 500, 32
FIELD_OF_VIEW = 55.0
LARGEST = 1e30  # number in a depth
PLAUSIBLE = (0.1, 1e4)  # distances of a scene, in units of the world: nearer than a hundredth of one, nothing is drawn
TYPICAL = 4.0  # distance of a scene whose depth has no unit: the host's viewer shows it large, and whole
PLAIN = 1e-3  # of white: a picture that varies less shows nothing
FLAT = 1e-4  # of the largest depth: what varies less is none
KNOWN = 0.2  # of a frame's pixels: depth of fewer says too little
NEAREST = 1.5  # where distance is drawn from the nearest to the farthest, the nearest is taken to be half of that range away


def depth_inputs() -> list:
    return [
        io.Image.Input(
            "depth", optional=True, tooltip="How far everything is, a picture for each frame, from any depth node (Depth Anything, MoGe). "
            "Each frame's may have its own scale and offset: they are found. Black: unknown. Without it, depth comes from how the pictures "
            "move, which takes longer and a camera that does not only turn.",
        ),
        io.Combo.Input(
            "depth_kind", options=list(DEPTH_KINDS), default=INVERSE, tooltip="Near is bright: 1 / distance, as of Depth Anything 1 and 2, "
            "and MoGe. Far is bright: distance itself, in any unit. Linear: the negative of distance, as Depth Anything 3 is drawn.",
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


class Lens(NamedTuple):
    """The inputs field_of_view, in degrees over the picture's width, and field_of_view_known."""

    degrees: float
    known: bool

    @property
    def focal(self) -> float:
        """In widths of the picture."""
        return 0.5 / math.tan(math.radians(self.degrees) / 2)


def pictures_of(image: Tensor) -> Tensor:
    pictures = checks.image("image", image)
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
    return pictures


def clip_of(image: Tensor, depth: Tensor, kind: str, lens: Lens, mask: Tensor | None = None) -> Clip:
    """The inputs, checked."""
    given = checks.image("depth", depth, clamp=False).mean(-1)
    if not (given.abs() <= LARGEST).all():
        raise checks.InputError("depth has values too large to be added up: divide it by the largest that there can be.")
    as_many("depth", given, "image", checks.image("image", image))
    pictures, hidden = pictures_and_mask(image, kind, lens, mask)
    height, width = pictures.shape[1:3]
    if given.shape[1:] != (height, width):
        same_aspect("depth", given, (height, width))
        given = F.interpolate(given[:, None], (height, width), mode="nearest")[:, 0]
    valid = (given > 0) & ~hidden
    if kind == LINEAR:
        given = given.amax((1, 2), keepdim=True) * NEAREST - given
    empty = mostly_unknown(valid)
    if empty is not None:
        raise checks.InputError(f"depth is black in most of frame {empty}: check the depth node, or the mask.")
    nearest, farthest = (given.where(valid, beyond).flatten(1) for beyond in (torch.inf, -torch.inf))
    flat = farthest.amax(1) - nearest.amin(1) < FLAT * given.where(valid, 0).abs().flatten(1).amax(1)
    if flat.any():
        raise checks.InputError(f"depth is flat in frame {int(flat.nonzero()[0])}: connect the output of a depth node.")
    given = in_plausible_unit(given, given[0][valid[0]], kind)
    return Clip(pictures, given, valid, lens.focal, lens.known, kind == INVERSE, hidden)


def clip_in_motion(image: Tensor, kind: str, lens: Lens, mask: Tensor | None, path: CameraPath | None, watch: "Watch") -> Clip:
    """The inputs, checked, with depth from how the pictures move."""
    pictures, hidden = pictures_and_mask(image, kind, lens, mask)
    if (pictures[1:] - pictures[:-1]).abs().mean((1, 2, 3)).amax() < PLAIN:
        raise checks.InputError("depth is not connected, and image stays the same in all frames, telling nothing: connect a depth node.")
    device = comfy.model_management.get_torch_device()
    focal = lens.focal if path is None else float(path.focal[0]) / path.size[1]
    path = None if path is None else copied_to(path, device)
    near, valid = (part.cpu() for part in nearness(pictures.to(device), focal, path, lambda share: watch("finding depth", share, None)))
    valid = valid & (near > 0) & ~hidden
    empty = mostly_unknown(valid)
    if empty is not None:
        raise checks.InputError(
            f"depth is not connected, and the pictures around frame {empty} do not tell it: connect a depth node, or take a clip whose "
            "camera moves in small steps and does not only turn."
        )
    if path is None:
        near = in_plausible_unit(near, near[0][valid[0]], INVERSE)
    return Clip(pictures, near, valid, focal, lens.known, True, hidden, from_motion=True)


def pictures_and_mask(image: Tensor, kind: str, lens: Lens, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pictures (F, H, W, 3), and what is hidden in them, (F, H, W)."""
    checks.choice("depth_kind", kind, DEPTH_KINDS)
    checks.number("field_of_view", lens.degrees, 5, 150)
    pictures = pictures_of(image)
    hidden = torch.zeros(pictures.shape[:3], dtype=torch.bool)
    if mask is not None:
        hidden = (checks.mask("mask", mask, (hidden.shape[1], hidden.shape[2]), len(hidden), empty=True)[:, 0] > 0.5).expand_as(hidden)
    return pictures, hidden


def mostly_unknown(valid: Tensor) -> int | None:
    """The first frame in which less than KNOWN of the pixels are valid."""
    few = (valid.flatten(1).float().mean(1) < KNOWN).nonzero()
    return int(few[0]) if len(few) else None


def in_plausible_unit(given: Tensor, first: Tensor, kind: str) -> Tensor:
    """Distances in a unit stay as they are. Those that can have none, as drawn in 0..1, get one, and those at which splats cannot be
    drawn well get another: the median of the first frame's, (N,), is then TYPICAL units away."""
    (near, far), median = PLAUSIBLE, float(first.median())
    if kind == DISTANCE and first.amax() > 1 and near <= median <= far:
        return given
    return given / median * (1 / TYPICAL if kind == INVERSE else TYPICAL)


def same_aspect(name: str, pictures: Tensor, wanted: tuple[int, int]) -> None:
    """Of pictures (F, H, W, ...) that are to be scaled to a size (height, width)."""
    (h, w), (height, width) = pictures.shape[1:3], wanted
    if abs(math.log((w / h) / (width / height))) > checks.SAME_ASPECT:
        raise checks.InputError(f"{name} is {w} x {h}, not of the shape of {width} x {height}: crop or resize one of them.")


class Watch:
    """The progress bar, with a picture of what there is so far, which is kept; stops when the user does."""

    def __init__(self):
        self.bar = comfy.utils.ProgressBar(100)
        self.stages = {"finding depth": (0, 30), "finding cameras": (30, 50), "fitting splats": (50, 100)}
        self.shown = 0
        self.fit: Fit | None = None

    def __call__(self, stage: str, share: float, fit: Fit | None) -> None:
        self.fit = fit
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


def report(tracked: Tracked) -> str:
    """For a person: how many frames are lost, which, and what to do."""
    confidence = tracked.confidence
    text = f"{len(confidence)} cameras; agreement of the frames {float(confidence.mean()):.0%} (worst {float(confidence.min()):.0%})"
    degrees = 2 * float(torch.rad2deg(torch.atan(0.5 / tracked.state.focal)))
    text += f"; field of view {degrees:.1f} degrees."
    if tracked.still and not tracked.lost:
        text += (
            " The camera stands still, or only turns: nothing is seen from another side, and depth is that of the depth node. Take a clip "
            "whose camera moves."
        )
    if tracked.lost:
        frames = ", ".join(map(str, tracked.lost[:10])) + ("..." if len(tracked.lost) > 10 else "")
        text += (
            f" Lost at frame {frames}: less than {LOST:.0%} of their pixels agree with another frame. The camera moves too far between "
            "frames there, things move, or depth is of the wrong kind: take more frames, mask what moves, or switch depth_kind."
        )
    return text
