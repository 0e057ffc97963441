"""Every derivative of the residuals, in float64, against central differences."""

from dataclasses import fields, replace

import pytest
import torch
from freesteer.core.tracking import residuals
from freesteer.core.tracking.pyramid import SAME_SURFACE, pyramid, slopes
from freesteer.core.tracking.residuals import PER_PAIR, depth_residual, jacobian, picture_residual
from freesteer.core.tracking.state import GAIN, LOG_SCALE, OFFSET, PER_FRAME, SHIFT, State, retract
from freesteer.core.tracking.warp import bilinear, sampled_depth, warp
from freesteer.tests.core.tracking.analytic import COUNT, SIZE, level, state
from torch import Tensor

PAIRS = torch.tensor([(0, 1), (3, 2)])  # no frame twice, so that one step serves both
STEP = 1e-5
WITHOUT = {"picture": (PER_FRAME + LOG_SCALE, PER_FRAME + SHIFT), "depth": (GAIN, OFFSET, PER_FRAME + GAIN, PER_FRAME + OFFSET)}


def evaluated(kind: str, at: State, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of PAIRS: where seen, values and derivatives."""
    warped = warp(level(inverse), at, PAIRS)
    residual = {"picture": picture_residual, "depth": depth_residual}[kind](at, PAIRS, warped)
    return warped.seen, residual.value, jacobian(at, PAIRS, warped, residual)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", ["picture", "depth"])
def test_every_column_of_the_jacobian_is_a_difference(kind, inverse):
    """Relative to the largest derivative in the column; only noise that is held at a bound of NOISE_RANGE is not smooth."""
    at = state(inverse)
    seen, _, found = evaluated(kind, at, inverse)
    for column in range(PER_PAIR):
        step = torch.zeros(COUNT * PER_FRAME + 1, dtype=torch.float64)
        step[[-1] if column == PER_PAIR - 1 else PAIRS[:, column // PER_FRAME] * PER_FRAME + column % PER_FRAME] = STEP
        (before, low, _), (after, high, _) = (evaluated(kind, retract(at, sign * step), inverse) for sign in (-1, 1))
        wanted, both = (high - low) / (2 * STEP), seen & before & after
        assert both.float().mean() > 0.6
        size, off = wanted[both].abs().max(), (found[:, column] - wanted)[both].abs().max()
        assert off <= 1e-7 * size, (column, off, size)
        assert (size == 0) == (column in WITHOUT[kind]), column


def test_noise_at_its_bound_does_not_change():
    at, given, ones = state(False), torch.full((1, 3), 2.0, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    for factor, wanted in ((10.0, residuals.NOISE_RANGE), (0.1, 1 / residuals.NOISE_RANGE)):
        noise, by_log, by_shift = residuals.relative_noise(at, torch.tensor([0]), given, given / factor * ones)
        assert (noise == wanted).all() and not by_log.any() and not by_shift.any()


def test_the_pyramid_has_the_derivatives_of_its_pictures_and_depths():
    exact = level(False)
    made = pyramid(exact.grey[..., None].expand(-1, -1, -1, 3), exact.depth, exact.valid > 0)[-1]
    for field in fields(made):
        found, wanted = (getattr(each, field.name)[:, 2:-2, 2:-2] for each in (made, exact))
        torch.testing.assert_close(found, wanted)


def test_slopes_are_those_of_one_surface():
    """A slanted plane before another one, with holes; in front of the holes' middle nothing is known around."""
    y, x = torch.meshgrid(torch.arange(12.0).double(), torch.arange(16.0).double(), indexing="ij")
    depth = torch.where(x < 8, 2 + 0.02 * x - 0.01 * y, 4 + 0.03 * y)
    valid = torch.ones_like(depth)
    valid[4:8, 1:5] = 0
    dx, dy = (each[0] for each in slopes((depth * valid)[None], valid[None]))
    known = valid > 0
    torch.testing.assert_close(dx[known], torch.where(x < 8, 0.02, 0.0).double()[known])
    torch.testing.assert_close(dy[known], torch.where(x < 8, -0.01, 0.03).double()[known])
    alone = torch.zeros_like(valid)
    alone[5, 5] = 1
    assert not any(each.any() for each in slopes((depth * alone)[None], alone[None]))


@pytest.mark.parametrize("steps", [0.02, 1.0])
def test_depth_is_sampled_on_one_surface_among_what_is_valid(steps):
    """steps: how far depths of neighbours are apart, of a depth; large ones are of different surfaces."""
    draw = torch.Generator().manual_seed(0)
    depth = (steps * torch.rand(2, *SIZE, generator=draw, dtype=torch.float64)).exp()
    valid = (torch.rand(2, *SIZE, generator=draw) > 0.3).double()
    u, v = 1 + 15 * torch.rand(2, 2, 400, generator=draw, dtype=torch.float64)
    at = bilinear(u, v, SIZE)
    found, around, known = sampled_depth(at, depth, valid), at.around(depth), at.around(valid)
    some = found.known > 0.05
    assert some.float().mean() > 0.8
    torch.testing.assert_close(found.shares.sum(1)[some], torch.ones_like(found.value[some]))
    used = found.shares > 0
    assert not (used & (known == 0)).any()
    farthest, nearest = around.where(used, 0).amax(1), around.where(used, torch.inf).amin(1)
    assert (farthest / nearest)[some].max() < (1 + SAME_SURFACE) / (1 - SAME_SURFACE)
    assert (used.sum(1) == (known > 0).sum(1))[some].all() if steps < SAME_SURFACE else used.sum(1).float().mean() < 2
    for k in range(4):  # shares are derivatives
        higher = depth.clone()
        higher.flatten(1).scatter_(1, at.pixels[:, k, :1], 1e-6, reduce="add")
        change = (sampled_depth(at, higher, valid).value / found.value).log()[:, 0] * around[:, k, 0] / 1e-6
        torch.testing.assert_close(change, found.shares[:, k, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("moved", [(0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25), (0, 0)])
def test_a_pixel_is_seen_as_far_as_the_centres_of_the_outermost_ones(moved):
    """All at one depth, and moved by a part of a pixel to the right or down."""
    maps, at = level(False), state(False)
    flat = {"depth": torch.full_like(maps.depth, 2.0), "depth_dx": torch.zeros_like(maps.depth), "depth_dy": torch.zeros_like(maps.depth)}
    poses = torch.eye(4, dtype=torch.float64).repeat(COUNT, 1, 1)
    poses[1, :2, 3] = torch.tensor(moved, dtype=torch.float64) * 2 / (at.focal * SIZE[1])
    still = {name: torch.zeros(COUNT, dtype=torch.float64) for name in ("log_scale", "shift", "gain", "offset")}
    seen = warp(replace(maps, **flat), replace(at, poses=poses, **still), torch.tensor([(0, 1)])).seen.view(SIZE)
    y, x = torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij")
    inside = [(place + shift > 0) & (place + shift < n - 1) for place, shift, n in ((x, moved[0], SIZE[1]), (y, moved[1], SIZE[0]))]
    assert torch.equal(seen, inside[0] & inside[1])


def test_places_between_pixels_and_beyond_the_rim_have_weights_of_the_four_around():
    """A curved map is interpolated exactly along lines of pixels, and held at its rim."""
    height, width = 4, 5
    curved = (torch.arange(width) ** 2 + 100 * torch.arange(height)[:, None] ** 2).float()[None]
    u, v = torch.tensor([[0.5, 4.5, 2.5, 3.0, 4.5, -3.0, 9.0]]), torch.tensor([[0.5, 3.5, 1.5, 2.5, 2.0, 1.5, 9.0]])
    at = bilinear(u, v, (height, width))
    assert float(at.weights.min()) >= 0 and at.pixels.min() >= 0 and at.pixels.max() < height * width
    found = (at.weights * at.around(curved)).sum(1)
    torch.testing.assert_close(found, torch.tensor([[0.0, 916.0, 104.0, 406.5, 266.0, 100.0, 916.0]]))
    assert at.nearest[0, [0, 1, 2, 5, 6]].tolist() == [0, 19, 7, 5, 19]
