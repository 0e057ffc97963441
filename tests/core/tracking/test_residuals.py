"""Every derivative of the residuals, in float64, against central differences."""

import pytest
import torch
from freesteer.core.tracking import residuals
from freesteer.core.tracking.pyramid import pyramid
from freesteer.core.tracking.residuals import PER_PAIR, depth_residual, jacobian, picture_residual
from freesteer.core.tracking.state import GAIN, LOG_SCALE, OFFSET, PER_FRAME, SHIFT, State, retract
from freesteer.core.tracking.warp import SAME_SURFACE, SampledDepth, bilinear, sampled_depth, warp
from torch import Tensor

from .analytic import COUNT, SIZE, level, state

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


def test_the_pyramid_has_the_derivatives_of_its_pictures():
    exact = level(False)
    found = pyramid(exact.grey[..., None].expand(-1, -1, -1, 3), exact.depth, exact.valid > 0)[-1]
    for name in ("grey", "dx", "dy", "depth", "valid"):
        torch.testing.assert_close(getattr(found, name)[:, 1:-1, 1:-1], getattr(exact, name)[:, 1:-1, 1:-1])


@pytest.mark.parametrize("steps", [0.02, 1.0])
def test_depth_is_sampled_on_one_surface_among_what_is_valid(steps):
    """steps: how far depths of neighbours are apart, of a depth; large ones are of different surfaces."""
    draw = torch.Generator().manual_seed(0)
    depth = (steps * torch.rand(2, *SIZE, generator=draw, dtype=torch.float64)).exp()
    valid = (torch.rand(2, *SIZE, generator=draw) > 0.3).double()
    place = 1 + 15 * torch.rand(2, 2, 400, generator=draw, dtype=torch.float64)
    place = place.floor() + 0.5 + place.frac().clamp(0.01, 0.99)  # differences stay between the centres of four pixels
    u, v = place

    def sampled(du: float, dv: float) -> SampledDepth:
        return sampled_depth(bilinear(u + du, v + dv, SIZE), depth, valid)

    at = bilinear(u, v, SIZE)
    found, around, known = sampled(0, 0), at.around(depth), at.around(valid)
    some = found.known > 0.05
    assert some.float().mean() > 0.8
    torch.testing.assert_close(found.shares.sum(1)[some], torch.ones_like(found.value[some]))
    used = found.shares > 0
    assert not (used & (known == 0)).any()
    farthest, nearest = around.where(used, 0).amax(1), around.where(used, torch.inf).amin(1)
    assert (farthest / nearest)[some].max() < (1 + SAME_SURFACE) / (1 - SAME_SURFACE)
    assert (used.sum(1) == (known > 0).sum(1))[some].float().mean() > 0.95 if steps < SAME_SURFACE else used.sum(1).float().mean() < 2
    same_pixels = [(sampled(sign * 1e-6, sign * 1e-6).shares > 0) == used for sign in (1, -1)]
    some &= (same_pixels[0] & same_pixels[1]).all(1)
    for axis, (du, dv) in enumerate(((1e-6, 0.0), (0.0, 1e-6))):
        wanted = (sampled(du, dv).value - sampled(-du, -dv).value) / 2e-6
        torch.testing.assert_close(found.by_place[..., axis][some], wanted[some], rtol=1e-6, atol=1e-6)
