"""Keyframes of a box, as people write them and as the host has them."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .tracks import Track

LINE = re.compile(r"^\s*(?:(?P<time>[-+.\deE]+)\s*(?P<percent>%?)\s*:)?\s*(?P<box>[^:]+)$")
EXAMPLE = "0%: 0.1 0.3 0.4 0.7"


class BoxError(ValueError):
    """Written for the user: which keyframe is wrong, and what would do."""


def parse(text: str) -> Track:
    """A track from lines of `time: left top right bottom`. Times are shares of the clip, 0 to 1 or in percent; lines without any are
    spread evenly. Empty lines and those that begin with # do not count."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise BoxError(f"The track has no box: write one keyframe a line, such as '{EXAMPLE}'.")
    times, boxes = zip(*(_line(line) for line in lines), strict=True)
    if all(time is None for time in times):
        return track(torch.linspace(0, 1, len(boxes)).tolist(), boxes)
    if any(time is None for time in times):
        raise BoxError("Some lines of the track have a time and some have none: write one before each, or before none.")
    return track([time for time in times if time is not None], boxes)


def _line(line: str) -> tuple[float | None, list[float]]:
    found = LINE.match(line)
    numbers = _numbers(found["box"]) if found else []
    if not found or len(numbers) != 4:
        raise BoxError(f"{line.strip()!r} is no keyframe: write a time and four numbers from 0 to 1, such as '{EXAMPLE}'.")
    if found["time"] is None:
        return None, numbers
    (time,) = _numbers(found["time"]) or [float("nan")]
    return time / 100 if found["percent"] else time, numbers


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in re.split(r"[\s,;]+", text.strip()) if part]
    except ValueError:
        return []


def from_pixels(boxes: Sequence[dict[str, Any]], width: int, height: int, times: Sequence[float]) -> Track:
    """A track from the host's bounding boxes (x, y, width, height in pixels of a picture), one keyframe each, at times from 0 to 1."""
    if not boxes:
        raise BoxError("bboxes has no box: draw at least one.")
    shares = [
        [box["x"] / width, box["y"] / height, (box["x"] + box["width"]) / width, (box["y"] + box["height"]) / height] for box in boxes
    ]
    for box, (left, top, right, bottom) in zip(boxes, shares, strict=True):
        if min(left, top) < 0 or max(right, bottom) > 1:
            raise BoxError(
                f"bboxes has a box at {box['x']:g}, {box['y']:g} of {box['width']:g} x {box['height']:g} pixels, which is not inside of "
                f"the picture's {width} x {height}: set width and height to those of the picture that it was drawn on."
            )
    return track(times, shares)


def track(times: Sequence[float], boxes: Sequence[Sequence[float]]) -> Track:
    """Checks keyframes, in the order they were given."""
    made = torch.tensor(boxes, dtype=torch.float)
    for number, (time, box) in enumerate(zip(times, made, strict=True), 1):
        _check(number, time, box)
    for number, (before, after) in enumerate(pairwise(times), 2):
        if after <= before:
            raise BoxError(f"Keyframe {number} is at {after:g}, not after the one before it at {before:g}: put them in order.")
    return Track(torch.tensor(times, dtype=torch.float), made)


def _check(number: int, time: float, box: Tensor) -> None:
    if not 0 <= time <= 1:
        raise BoxError(f"Keyframe {number} is at {time:g}: times go from 0 to 1, or from 0% to 100%.")
    left, top, right, bottom = box.tolist()
    if not torch.isfinite(box).all() or min(left, top) < 0 or max(right, bottom) > 1:
        raise BoxError(
            f"Keyframe {number} has the box {left:g} {top:g} {right:g} {bottom:g}: left, top, right and bottom are shares of the "
            "picture, 0 to 1."
        )
    if right <= left or bottom <= top:
        raise BoxError(f"Keyframe {number} has a box without an area: left {left:g}, right {right:g}, top {top:g}, bottom {bottom:g}.")
