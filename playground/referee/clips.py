"""What clips show: the referee frame by frame, the way that each named object goes, and which motion that is.

Motions are told from the centre, the area and the turning of an object's masks, with thresholds half-way between what the moving world
draws (`world.motion`): 34 to 56 pixels of travel, circles of 12 to 20 pixels, growth by 1.5 to 1.9, half a turn or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..world.motion import GROWTH, ORBIT, SPIN, TRAVEL, WAYS
from .polar import polar_profile
from .referee import Picture, Seen, Segmenter, look

SEEN_IN = 0.6  # of the frames: else its motion cannot be told
TRAVELLED = 15.0  # pixels between the ends of the straight line through the centres
STRAIGHT = 0.7  # of the variance of the centres, that such a line explains; 0.3 on a circle
CIRCLED = 6.0  # pixels, deviation of the centres
GREW = 1.22  # ratio of the radii at the ends
TURNED = 80.0  # degrees from the first frame to the last
ANGLES = 120


@dataclass(frozen=True)
class Track:
    """One named object in a clip: its mask in each frame (None where it is not seen), and how it moves ("unseen" if in too few)."""

    masks: tuple[np.ndarray | None, ...]
    motion: str

    @property
    def seen(self) -> float:
        """Share of the frames."""
        return sum(mask is not None for mask in self.masks) / len(self.masks)


@dataclass(frozen=True)
class Clip:
    """The frames of one clip, as the referee sees them."""

    frames: tuple[Picture, ...]

    def follow(self, colour: str, shape: str) -> Track:
        """The object of that name: in each frame the one nearest to where it was, if there are several."""
        masks: list[np.ndarray | None] = []
        last: np.ndarray | None = None
        for frame in self.frames:
            named = [o for o in frame.objects if (o.colour, o.shape) == (colour, shape)]
            best = min(named, key=lambda o: _distance(o, last)) if named else None
            masks.append(best.mask if best else None)
            last = _centre(best.mask) if best else last
        return Track(tuple(masks), motion_of(masks))


def look_at_clips(network: Segmenter, clips: Tensor) -> list[Clip]:
    """Of clips (B, F, 3, H, W) in 0..1."""
    frames = look(network, clips.flatten(0, 1))
    length = clips.shape[1]
    return [Clip(tuple(frames[i : i + length])) for i in range(0, len(frames), length)]


def _centre(mask: np.ndarray) -> np.ndarray:
    """x, y in pixels."""
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


def _distance(seen: Seen, place: np.ndarray | None) -> float:
    """Of an object to where it was; without one, the largest is the nearest."""
    return -seen.area if place is None else float(np.hypot(*(_centre(seen.mask) - place)))


@dataclass(frozen=True)
class Traces:
    """What an object's masks tell of its motion. travel: x and y from the first frame to the last, in pixels, along the straight line that
    explains the share `straight` of the variance of its centres; deviation: of the centres from their mean, in pixels; growth: ratio of
    its radii; turned: degrees."""

    travel: np.ndarray
    straight: float
    deviation: float
    growth: float
    turned: float


def traces(masks: Sequence[np.ndarray | None]) -> Traces | None:
    """Of masks (H, W), frame by frame; None if there are too few."""
    times = np.array([i for i, mask in enumerate(masks) if mask is not None])
    if len(times) < SEEN_IN * len(masks):
        return None
    there, last = [mask for mask in masks if mask is not None], len(masks) - 1
    centres = np.stack([_centre(mask) for mask in there])
    growth = np.exp(0.5 * np.polyfit(times, np.log([mask.sum() for mask in there]), 1)[0] * last)
    return Traces(*_line(times, centres, last), float(growth), turning(there) * last / max(len(there) - 1, 1))


def motion_of(masks: Sequence[np.ndarray | None]) -> str:
    """The motion whose traces are plainest in the masks of an object."""
    found = traces(masks)
    if found is None:
        return "unseen"
    if np.hypot(*found.travel) > TRAVELLED and found.straight > STRAIGHT:
        return max(WAYS, key=lambda way: float(np.dot(WAYS[way], found.travel)))
    if found.deviation > CIRCLED:
        return "circle"
    if found.growth > GREW or found.growth < 1 / GREW:
        return "grow" if found.growth > 1 else "shrink"
    return "spin" if abs(found.turned) > TURNED else "still"


def movement(masks: Sequence[np.ndarray | None]) -> float:
    """How much an object moves, whichever way, by what the world draws at most of that; 0 if it is not seen."""
    found = traces(masks)
    if found is None:
        return 0.0
    way = float(np.hypot(*found.travel)) / TRAVEL[1] if found.straight > STRAIGHT else found.deviation / ORBIT[1]
    return max(way, abs(float(np.log(found.growth))) / float(np.log(GROWTH[1])), abs(found.turned) / (360 * SPIN[1]))


def _line(times: np.ndarray, centres: np.ndarray, last: int) -> tuple[np.ndarray, float, float]:
    """Of the straight line through the centres: x and y from its first frame to its last, and the share of the variance that it
    explains; and the deviation of the centres from their mean."""
    slope, offset = np.polyfit(times, centres, 1)
    left = centres - np.outer(times, slope) - offset
    variance = centres.var(0).sum()
    return slope * last, 1 - left.var(0).sum() / max(variance, 1e-9), float(np.sqrt(variance))


def turning(masks: Sequence[np.ndarray]) -> float:
    """Degrees that an object turns, by the best shift of its outline in polar coordinates from frame to frame, below 40 degrees."""
    profiles = polar_profile(torch.from_numpy(np.stack(masks)).float(), ANGLES)
    spectra = torch.fft.rfft(profiles - profiles.mean(-1, keepdim=True))
    fit = torch.fft.irfft(spectra[1:] * spectra[:-1].conj(), ANGLES)
    shifts = torch.arange(ANGLES)
    shifts = torch.where(shifts > ANGLES // 2, shifts - ANGLES, shifts) * 360 / ANGLES
    best = fit.masked_fill(shifts.abs() > 40, -torch.inf).argmax(-1)
    return float(shifts[best].sum())
