# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""Clips that the playground draws, as the nodes of tracking and splats are given them."""

from functools import cache
from typing import Any, NamedTuple

import torch
from freesteer.core.geometry import trajectory
from freesteer.core.geometry.cameras import CameraPath
from freesteer.core.measures import views
from freesteer.core.splats import harmonics
from freesteer.core.splats.reconstruction import Preset
from freesteer.nodes.tracking.clip_inputs import DISTANCE, INVERSE, LINEAR
from freesteer.playground.rooms import clips
from torch import Tensor

from .conftest import run, splat

WIDTH, HEIGHT = 48, 36
LIKE = 21.0  # dB, of pictures of a reconstruction after 40 iterations; measured: 22.7 to 23.5
SMALL = Preset(40, 2)


class Clip(NamedTuple):
    image: Tensor
    depth: Tensor
    cameras: CameraPath
    field_of_view: float


@cache
def clip(kind: str = "sideways", frames: int = 6, as_estimated: bool = False, seed: int = 0, width: int = WIDTH) -> Clip:
    inputs = {"kind": kind, "frames": frames, "as_estimated": as_estimated, "seed": seed}
    return Clip(*run("FreeSteerPlaygroundClip", width=width, height=width * HEIGHT // WIDTH, **inputs))


def depth_as(kind: str, depth: Tensor) -> Tensor:
    """Distance, as a node of another kind of depth would show it."""
    return {DISTANCE: depth, INVERSE: depth.amin() / depth, LINEAR: 1 - depth / depth.amax()}[kind]


def of(drawn: Clip, kind: str = DISTANCE, **changed: Any) -> dict[str, Any]:
    """The inputs of Reconstruct Splats From Video and Estimate Camera Path."""
    given = {"image": drawn.image, "depth": depth_as(kind, drawn.depth), "depth_kind": kind, "field_of_view": drawn.field_of_view}
    return {**given, "field_of_view_known": True, **changed}


def ate(found: CameraPath, true: CameraPath) -> float:
    return trajectory.ate(found.positions, true.positions)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(views.psnr(a, b).mean())


def white(**changed: object):
    """Of conftest's cloud."""
    return splat(sh=torch.full((1, 40, 1, 3), 0.5 / harmonics.DC), **changed)


def with_a_stranger(place: int) -> dict[str, Any]:
    """A clip with one frame of another scene."""
    image, depth = clip().image.clone(), clip().depth.clone()
    image[place], depth[place] = clip("handheld").image[2], clip("handheld").depth[2]
    return of(clip(), image=image, depth=depth)


def unrelated() -> Clip:
    """A frame of each kind of clip."""
    image, depth = (torch.cat([getattr(clip(kind, 4), part)[:1] for kind in clips.KINDS]) for part in ("image", "depth"))
    return Clip(image, depth, clip().cameras, 65.0)
