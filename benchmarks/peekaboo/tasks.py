"""What the Peekaboo benchmark asks for, and how it is judged: held-out things, in boxes that move as the prompt says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.boxes.tracks import Track, frame_times
from ...playground.referee.clips import Clip
from ...playground.world import motion
from ...playground.world.captions import PLACES, article
from ...playground.world.motion import MOTIONS
from ...playground.world.motion_captions import VERBS
from ...playground.world.world import SIZE

HELD_OUT = 5 * 10**9


@dataclass(frozen=True)
class Task:
    """A thing, where it stands, how the prompt says so, and where it is to be: boxes (F, 4) in pixels."""

    text: str
    phrase: str
    colour: str
    shape: str
    ground: str
    boxes: Tensor

    @property
    def track(self) -> Track:
        return Track(frame_times(len(self.boxes)), self.boxes / SIZE)


def tasks(count: int, video: bool, seed: int = 0) -> list[Task]:
    """Of drawn clips, or of their first frames."""
    drawn = motion.sample_clips(count, torch.Generator().manual_seed(HELD_OUT + seed), counts=(1.0, 0.0))
    found = []
    for start in range(0, count, 16):
        part = drawn[start : start + 16]
        boxes = motion.boxes(motion.render_clips(part)[1][:, :, 0]).float()
        for i in range(len(part)):
            first = i * part.frames
            colour, shape = part.scenes.name(first)
            ground, phrase = part.scenes.ground(first), f"{colour} {shape}"
            verb = f" {VERBS[MOTIONS[int(part.motion[i, 0])]][0]}" if video else ""
            text = f"{article(colour)} {phrase}{verb} {PLACES[ground]}"
            found.append(Task(text, phrase, colour, shape, ground, boxes[i] if video else boxes[i, :1]))
    return found


@dataclass(frozen=True)
class Score:
    """Of one clip, as the paper's table has them: IoU of asked and seen boxes over the whole volume, the share of frames with the thing,
    those of them with an IoU of half or more, and the distance of the centres in units of the picture's diagonal (over frames with the
    thing; NaN without any); and whether it has the right colour and shape, and the ground is right, in most frames."""

    iou: float
    seen: float
    half: float
    distance: float
    right: bool


def score(clip: Clip, task: Task) -> Score:
    """The thing is that of its name, or else the largest of its colour."""
    inside, union, halves, distances, named, grounds = 0.0, 0.0, [], [], 0, 0
    for frame, asked in zip(clip.frames, task.boxes.tolist(), strict=True):
        exact = frame.find(task.colour, task.shape)
        thing = exact or next((o for o in frame.objects if o.colour == task.colour), None)
        named += exact is not None
        grounds += frame.background == task.ground
        if thing is None:
            union += _area(asked)
            continue
        seen = motion.boxes(torch.from_numpy(thing.mask).float()).tolist()
        common = _area([max(asked[0], seen[0]), max(asked[1], seen[1]), min(asked[2], seen[2]), min(asked[3], seen[3])])
        either = _area(asked) + _area(seen) - common
        inside, union = inside + common, union + either
        halves.append(common >= either / 2)
        distances.append(float(np.hypot(*(_centre(asked) - _centre(seen)))) / (SIZE * 2**0.5))
    frames = len(clip.frames)
    mean = float(np.mean(distances)) if distances else float("nan")
    return Score(inside / union, len(halves) / frames, float(np.mean(halves or [0])), mean, 2 * named > frames and 2 * grounds > frames)


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _centre(box: Sequence[float]) -> np.ndarray:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
