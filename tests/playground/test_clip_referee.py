"""The referee of clips, on drawn ones."""

import numpy as np
import pytest
import torch
from freesteer.benchmarks.playground import playground_video
from freesteer.playground.referee import clips, referee
from freesteer.playground.referee.polar import polar_profile


def disc(x: float, y: float, radius: float = 12.0) -> np.ndarray:
    down, right = np.mgrid[:128, :128] + 0.5
    return np.hypot(right - x, down - y) < radius


def bar(degrees: float) -> np.ndarray:
    """A long rectangle that is thicker at one end, about the middle, turned to the right."""
    turn = np.deg2rad(degrees)
    down, right = np.mgrid[:128, :128] + 0.5 - 64
    along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
    return (np.abs(along) < 24) & (np.abs(across) < 6 + 4 * (along > 0))


TIMES = np.linspace(0, 1, 13)
MOTIONS = {
    "left": [disc(90 - 40 * t, 64) for t in TIMES],
    "right": [disc(40 + 40 * t, 64) for t in TIMES],
    "up": [disc(64, 90 - 40 * t) for t in TIMES],
    "down": [disc(64, 40 + 40 * t) for t in TIMES],
    "circle": [disc(64 + 16 * np.cos(2 * np.pi * t), 64 + 16 * np.sin(2 * np.pi * t)) for t in TIMES],
    "grow": [disc(64, 64, 12 + 8 * t) for t in TIMES],
    "shrink": [disc(64, 64, 20 - 8 * t) for t in TIMES],
    "spin": [bar(200 * t) for t in TIMES],
    "still": [disc(64, 64) for _ in TIMES],
}


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_motion_is_told_from_masks(motion):
    assert clips.motion_of(MOTIONS[motion]) == motion
    gaps = [None if i in (3, 8) else mask for i, mask in enumerate(MOTIONS[motion])]
    assert clips.motion_of(gaps) == motion
    assert (clips.movement(MOTIONS[motion]) > 0.3) == (motion != "still")


def test_too_few_masks_tell_nothing():
    assert clips.motion_of([disc(64, 64), *[None] * 12]) == "unseen"
    assert clips.movement([None] * 13) == 0


@pytest.mark.parametrize("speed", [-200, 90, 300])
def test_turning_is_measured_in_degrees(speed):
    assert clips.turning([bar(speed * t) for t in TIMES]) == pytest.approx(speed, abs=20)


def test_a_turn_shifts_the_profile():
    before, after = polar_profile(torch.from_numpy(np.stack([bar(0), bar(30)])).float(), 36)
    assert (after - before.roll(3)).abs().max() < 0.1 < (after - before).abs().max()


@pytest.mark.slow
def test_drawn_clips_are_told_rightly():
    right, mistaken = playground_video.referee_right(referee.load(referee.CLIP_WEIGHTS), 40)
    assert right > 0.93, mistaken
