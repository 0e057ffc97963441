# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# The host leaves the types of inputs and outputs open.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportMissingImports=false
"""Draw Clip: what the nodes of splats are tried with."""

import math

import pytest
import torch
from freesteer.playground.rooms import clips

from ..conftest import run
from ..drawn_clips import HEIGHT, WIDTH, Clip, clip, psnr

# Draw Clip


def test_a_clip_is_drawn_exactly_or_as_it_would_be_estimated() -> None:
    true = clips.draw("arc", 4, (HEIGHT, WIDTH), 0)
    exact, estimated = clip("arc", 4), clip("arc", 4, as_estimated=True)
    assert torch.equal(exact.image, true.frames)
    torch.testing.assert_close(exact.depth, (true.depth / true.depth.max())[..., None].expand(-1, -1, -1, 3))
    assert not torch.equal(estimated.image, exact.image) and psnr(estimated.image, exact.image) > 20
    assert (estimated.depth == 0).any() and not (exact.depth == 0).any()
    scales = (estimated.depth / exact.depth)[..., 0].flatten(1).median(1).values
    assert scales.max() > 1.2 * scales.min()
    for drawn in (exact, estimated):
        assert drawn.image.shape == drawn.depth.shape == (4, HEIGHT, WIDTH, 3)
        assert drawn.depth.min() >= 0 and drawn.depth.max() == 1 and drawn.image.min() >= 0 and drawn.image.max() <= 1
        assert torch.equal(drawn.cameras.poses, true.path.poses) and drawn.cameras.size == (HEIGHT, WIDTH)
        assert 2 * math.degrees(math.atan(WIDTH / 2 / float(drawn.cameras.focal[0]))) == pytest.approx(drawn.field_of_view)


def test_a_clip_repeats_by_its_seed() -> None:
    again = Clip(*run("FreeSteerPlaygroundClip", kind="arc", frames=4, width=WIDTH, height=HEIGHT, as_estimated=True, seed=0))
    assert torch.equal(again.image, clip("arc", 4, True).image) and torch.equal(again.depth, clip("arc", 4, True).depth)
    other = run("FreeSteerPlaygroundClip", kind="arc", frames=2, width=32, height=32, as_estimated=True, seed=2**64 - 1)[0]
    assert other.shape == (2, 32, 32, 3)
    assert not torch.equal(other, run("FreeSteerPlaygroundClip", kind="arc", frames=2, width=32, height=32, seed=1)[0])
