"""Where objects are to be, at each time of a clip."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...core.boxes import boxes
from ...core.boxes.places import BoxPlaces, MaskPlaces
from ..common import checks
from ..common.previews import outlined
from ..common.tracks import TRACKS, Placed, Tracks
from .types import ALIASES, CATEGORY

MOST_OBJECTS = 8
BLANK = 256  # pixels, of a preview without a clip


def phrase_input() -> io.Input:
    return io.String.Input(
        "phrase", default="red ball", tooltip="The words that the prompt has for the object, exactly as they stand there, such as 'red "
        "ball'.",
    )  # fmt: skip


def tracks_input() -> io.Input:
    return TRACKS.Input("tracks", optional=True, tooltip="Other objects, which this one is added to.")


def added(earlier: Tracks | None, placed: Placed) -> Tracks:
    if not placed.phrase:
        raise checks.InputError("phrase is empty: write the words that the prompt has for this object.")
    found = (*(earlier or ()), placed)
    if len(found) > MOST_OBJECTS:
        raise checks.InputError(f"tracks has {MOST_OBJECTS} objects already, which are the most.")
    return found


def per_frame(bboxes: Any) -> tuple[list[float], list[dict[str, Any]]]:
    """Times and boxes of what ComfyUI's nodes give: one box, or for each frame a box or a list of boxes, which may be empty."""
    given: list[Any] = list(bboxes) if isinstance(bboxes, (list, tuple)) else [bboxes]
    frames: list[list[Any]] = [list(frame) if isinstance(frame, (list, tuple)) else [frame] for frame in given]
    for number, frame in enumerate(frames, 1):
        if not all(isinstance(box, dict) and {"x", "y", "width", "height"} <= box.keys() for box in frame):
            raise checks.InputError("bboxes has to be boxes of x, y, width and height, as from ComfyUI's bounding box nodes.")
        if len(frame) > 1:
            raise checks.InputError(f"bboxes has {len(frame)} boxes in frame {number}, and a track is of one object: leave one of them.")
    times = torch.linspace(0, 1, len(frames)).tolist() if len(frames) > 1 else [0.0] * len(frames)
    seen = [(time, frame[0]) for time, frame in zip(times, frames, strict=True) if frame]
    return [time for time, _ in seen], [box for _, box in seen]


class BoxTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerBoxTrack",
            display_name="Box Track",
            category=CATEGORY,
            description="Says where one object is, by a box that may move and change its size over the clip. For Peekaboo.",
            search_aliases=ALIASES,
            inputs=[
                phrase_input(),
                io.String.Input(
                    "keyframes", default="0%: 0.05 0.3 0.4 0.7\n100%: 0.6 0.3 0.95 0.7", multiline=True, tooltip="One a line: when, and "
                    "then left, top, right and bottom of the box as shares of the picture. Between keyframes the box goes evenly. One "
                    "line: it stays. Without times: evenly spread.",
                ),
                io.Custom("BOUNDING_BOX").Input(
                    "bboxes", optional=True, extra_dict={"forceInput": True}, tooltip="ComfyUI's own boxes in place of the text: one "
                    "for each frame, evenly spread. Frames without one lie between their neighbours.",
                ),
                io.Int.Input("width", default=512, min=1, max=16384, advanced=True, tooltip="Of the picture that bboxes was drawn on."),
                io.Int.Input("height", default=512, min=1, max=16384, advanced=True, tooltip="Of the picture that bboxes was drawn on."),
                tracks_input(),
            ],
            outputs=[TRACKS.Output(display_name="tracks", tooltip="For Peekaboo, or for the next Box Track.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, phrase, keyframes, width, height, bboxes=None, tracks=None) -> io.NodeOutput:
        if bboxes is None:
            made = boxes.parse(keyframes)
        else:
            times, given = per_frame(bboxes)
            made = boxes.from_pixels(given, checks.whole("width", width, 1), checks.whole("height", height, 1), times)
        return io.NodeOutput(added(tracks, Placed(phrase.strip(), BoxPlaces(made))))


class MaskTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerMaskTrack",
            display_name="Mask Track",
            category=CATEGORY,
            description="Says where one object is, by masks in place of boxes: one for the whole clip, or one a frame. For Peekaboo.",
            search_aliases=ALIASES,
            inputs=[
                phrase_input(),
                io.Mask.Input("masks", tooltip="Where the object is. Several are spread evenly over the clip."),
                tracks_input(),
            ],
            outputs=[TRACKS.Output(display_name="tracks", tooltip="For Peekaboo, or for the next track.")],
        )

    @classmethod
    def execute(cls, phrase, masks, tracks=None) -> io.NodeOutput:
        if not isinstance(masks, Tensor) or masks.ndim not in (2, 3) or 0 in masks.shape or not torch.isfinite(masks).all():
            raise checks.InputError("masks has to be a MASK (frames, height, width) of numbers: check the node before it.")
        masks = (masks[None] if masks.ndim == 2 else masks).float().clamp(0, 1).cpu()
        if not (masks > 0).any():
            raise checks.InputError("masks is empty, so the object would be nowhere: paint on it (Load Image gives an empty one).")
        masks = masks / masks.amax()  # one that is painted faintly is a mask, too
        return io.NodeOutput(added(tracks, Placed(phrase.strip(), MaskPlaces(masks))))


class TrackPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerTrackPreview",
            display_name="Track Preview",
            category=CATEGORY,
            description="Draws where objects are to be: on grey frames, or over a finished clip.",
            search_aliases=ALIASES,
            inputs=[
                TRACKS.Input("tracks", tooltip="The objects to draw."),
                io.Int.Input("frames", default=13, min=1, max=4096, tooltip="How many frames to draw, without a clip."),
                io.Image.Input("image", optional=True, tooltip="A clip to draw on: its frames are those of the track, from first to last."),
            ],
            outputs=[io.Image.Output(tooltip="The frames, with the outline of each object.")],
        )

    @classmethod
    def execute(cls, tracks, frames, image=None) -> io.NodeOutput:
        blank = torch.full((checks.whole("frames", frames, 1), BLANK, BLANK, 3), 0.5)
        shown = blank if image is None else checks.image("image", image)
        for placed in tracks:
            covered = placed.where.coverage(len(shown), (shown.shape[1], shown.shape[2]))
            shown = outlined(shown, covered)
        return io.NodeOutput(shown)


NODES = [BoxTrack, MaskTrack, TrackPreview]
