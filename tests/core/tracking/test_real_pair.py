"""Two photographs by a calibrated pair of cameras: Middlebury 2014, "Motorcycle", at a quarter of its size, which scikit-image brings."""

import math

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from freesteer.core.geometry import cameras
from freesteer.core.tracking.motion import nearness
from freesteer.core.tracking.tracking import track

FOCAL, CENTRE, APART, BASELINE = 994.978, (311.193, 254.877), 31.086, 0.193001  # pixels; metres; APART: of the two centres
SIZE, COARSER = (480, 608), 4
WIDTHS = FOCAL / SIZE[1]


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (2, h, w, 3) around both centres, and their depth (2, h, w) in metres: that of the right one is carried over."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    height, width = SIZE
    top, here, there = (round(c - n / 2) for c, n in zip((CENTRE[1], CENTRE[0], CENTRE[0] + APART), (height, width, width), strict=True))
    pictures = torch.from_numpy(np.stack([left[top:, here:][:height, :width], right[top:, there:][:height, :width]])).float() / 255
    given = torch.from_numpy(np.nan_to_num(disparity, posinf=0.0)).float()[top:, here:][:height, :width]
    depth = torch.where(given > 0, FOCAL * BASELINE / (given + APART), 0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    seen = (x - FOCAL * BASELINE / depth.clamp(min=1e-6)).round().long()
    known = (depth > 0) & (seen >= 0) & (seen < width)
    other = torch.full((height * width,), torch.inf)
    other.scatter_reduce_(0, (y * width + seen)[known], depth[known], "amin")
    both = torch.stack([depth, other.where(other < torch.inf, 0).view(SIZE)])
    coarse = F.avg_pool2d(pictures.movedim(-1, 1), COARSER).movedim(1, -1)
    return coarse, both[:, COARSER // 2 :: COARSER, COARSER // 2 :: COARSER]


def off(pose: torch.Tensor) -> tuple[float, float]:
    """Degrees: from the way to the right, and of a turn that was not there."""
    way = F.normalize(-(pose[:3, :3].mT @ pose[:3, 3]), dim=0)
    return math.degrees(math.acos(min(1.0, float(way[0])))), math.degrees(float(cameras.logarithm(pose)[3:].norm()))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_second_camera_is_found_by_depth(pair, inverse):
    pictures, depth = pair
    given = torch.where(depth > 0, 1 / depth, 0) if inverse else depth
    tracked = track(pictures, given, depth > 0, WIDTHS, inverse=inverse)
    pose = tracked.state.poses[1]
    way, turn = off(pose)
    assert way < 1 and turn < 0.1
    assert float(pose[:3, 3].norm()) == pytest.approx(BASELINE, rel=0.02)
    assert tracked.confidence.min() > 0.85


def test_camera_and_depth_are_found_in_the_pictures_alone(pair):
    pictures, depth = pair
    near, valid = nearness(pictures, WIDTHS)
    tracked = track(pictures, near, valid, WIDTHS, inverse=True, from_motion=True)
    way, turn = off(tracked.state.poses[1])
    assert way < 3 and turn < 1.5 and tracked.lost == []
    wrong = (near * depth).log()[valid & (depth > 0)]
    assert valid.float().mean() > 0.8 and (wrong - wrong.median()).abs().median() < 0.05
