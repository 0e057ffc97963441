"""Windows cover a picture, count alike on its sides, and are put back where they were cut."""

import itertools

import pytest
import torch
from freesteer.core import windows


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize(("size", "window", "stride"), [(64, 16, 4), (50, 16, 7), (16, 16, 4), (9, 16, 4), (17, 16, 16)])
def test_windows_cover_a_side_and_no_more(size, window, stride, wraps):
    found = windows.offsets(size, window, stride, wraps)
    length = min(window, size)
    covered = {(start + i) % size for start in found for i in range(length)}
    assert covered == set(range(size)) and len(set(found)) == len(found)
    assert wraps or max(found) + length == size
    assert all(after - before <= stride for before, after in itertools.pairwise(found))


def test_windows_of_a_side_that_wraps_are_equally_far_from_each_other():
    assert windows.offsets(64, 16, 12, True) == [0, 11, 21, 32, 43, 53]


@pytest.mark.parametrize("blending", windows.BLENDINGS)
def test_weights_are_symmetric_and_nowhere_nothing(blending):
    found = windows.weights((8, 6), blending)
    assert found.shape == (8, 6) and (found > 0).all()
    assert torch.equal(found, found.flip(0)) and torch.equal(found, found.flip(1))


def test_what_is_cut_goes_back_to_its_place():
    values = torch.arange(2 * 3 * 10 * 12.0).view(2, 3, 10, 12)
    for place in ((0, 0), (6, 8), (8, 10)):
        window = windows.cut(values, place, (4, 4))
        assert window.shape == (2, 3, 4, 4) and window[0, 0, 0, 0] == values[0, 0, place[0], place[1]]
        total = torch.zeros_like(values)
        windows.add(total, window, place, (4, 4))
        assert total[total > 0].numel() in (96, 95) and torch.equal(total[total > 0], values[total > 0])
    assert torch.equal(windows.cut(values, (8, 10), (4, 4))[..., 2:, 2:], values[..., :2, :2])
