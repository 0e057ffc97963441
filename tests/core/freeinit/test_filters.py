import math
from importlib import import_module

import pytest
import torch
from freesteer.core.freeinit import filters, mixing

SHAPES = [(16, 16, 16), (13, 16, 24), (21, 45, 60), (5, 7, 8), (1, 16, 16), (1, 9, 9)]


def by_hand(shape, kind, spatial, temporal, order):
    """The formulas, one frequency after the other."""
    found = torch.zeros(shape)
    signed = [[2 * (k if k < (n + 1) // 2 else k - n) / n for k in range(n)] for n in shape]
    for a, t in enumerate(signed[0]):
        for b, h in enumerate(signed[1]):
            for c, w in enumerate(signed[2]):
                d = math.sqrt((spatial / temporal * t) ** 2 + h * h + w * w)
                found[a, b, c] = {
                    "gaussian": math.exp(-(d**2) / (2 * spatial**2)),
                    "butterworth": 1 / (1 + (d / spatial) ** (2 * order)),
                    "ideal": float(d <= spatial + 1e-7),
                    "box": float(abs(t) <= temporal + 1e-7 and abs(h) <= spatial + 1e-7 and abs(w) <= spatial + 1e-7),
                }[kind]
    return found


@pytest.mark.parametrize("kind", filters.KINDS)
@pytest.mark.parametrize("shape", [(13, 6, 9), (8, 5, 8), (1, 8, 8)])
def test_a_filter_is_its_formula(kind, shape):
    found = filters.low_pass(shape, kind, 0.4, 0.3, 3)
    torch.testing.assert_close(found, by_hand(shape, kind, 0.4, 0.3, 3), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", filters.KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_at_odd_sizes(kind, shape):
    """A filter that is centred treats a frequency and its mirror image alike, so what is mixed is real."""
    low = filters.low_pass(shape, kind, 0.25, 0.25)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mixed = torch.fft.ifftn(low * torch.fft.fftn(noise))
    assert mixed.imag.abs().max() < 1e-6
    assert low.flatten()[0] == 1  # what is constant stays


@pytest.mark.parametrize("kind", filters.KINDS)
def test_nothing_stays_at_0(kind):
    assert not filters.low_pass((5, 6, 7), kind, 0, 0.5).any()
    assert not filters.low_pass((5, 6, 7), kind, 0.5, 0).any()


def test_an_unknown_filter_is_named():
    with pytest.raises(ValueError, match="'lanczos': choose one of gaussian"):
        filters.low_pass((1, 2, 2), "lanczos", 0.25, 0.25)


@pytest.mark.parametrize("kind", filters.KINDS)
@pytest.mark.parametrize("shape", [(13, 32, 32), (16, 32, 32)])
def test_mixed_white_noise_is_white_noise_in_every_band(kind, shape):
    low = filters.low_pass(shape, kind, 0.25, 0.25)
    a, b = torch.randn(2, 64, *shape, generator=torch.Generator().manual_seed(1))
    mixed = mixing.mix(a, b, low)
    assert abs(float(mixed.std()) - 1) < 0.01
    assert (mixing.band_power(mixed, 6) - 1).abs().max() < 0.03  # of a few thousand values each
    assert mixing.covariance_error(low) < 1e-6


def test_the_published_mix_is_too_weak_between_the_bands():
    low = filters.low_pass((16, 32, 32), "gaussian", 0.25, 0.25)
    a, b = torch.randn(2, 64, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    assert mixing.band_power(mixing.mix(a, b, low, keep_variance=False), 6).min() < 0.9
    projection = torch.diag_embed(low.flatten()[:500])  # what FreqPrior measures, on a part of the spectrum
    wanted = (2 * (projection - projection @ projection)).norm() / 500**0.5
    assert mixing.covariance_error(low.flatten()[:500], keep_variance=False) == pytest.approx(float(wanted), rel=1e-4)


def test_low_frequencies_are_of_one_and_high_ones_of_the_other():
    low = filters.low_pass((1, 16, 16), "ideal", 0.5, 0.5)
    slow = torch.cos(2 * math.pi * torch.arange(16) / 16).expand(1, 16, 16)
    quick = torch.cos(2 * math.pi * 7 * torch.arange(16) / 16).expand(1, 16, 16)
    torch.testing.assert_close(mixing.mix(slow + quick, 2 * slow + 3 * quick, low), slow + 3 * quick, atol=1e-5, rtol=0)


def test_it_agrees_with_diffusers_where_that_is_right():
    """Sizes that are even, and no ideal filter."""
    utils = import_module("diffusers.pipelines.free_init_utils")
    mixin = utils.FreeInitMixin()
    shape = (1, 4, 16, 24, 16)
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    for kind in ("gaussian", "butterworth"):
        theirs = mixin._get_free_init_freq_filter(shape, "cpu", kind, 4, 0.25, 0.3)
        ours = filters.low_pass(shape[-3:], kind, 0.25, 0.3)
        torch.testing.assert_close(ours, torch.fft.ifftshift(theirs, dim=(-3, -2, -1))[0, 0].float(), atol=1e-6, rtol=1e-5)
        mixed = mixin._apply_freq_filter(a, b, theirs)
        torch.testing.assert_close(mixing.mix(a, b, ours, keep_variance=False), mixed, atol=1e-5, rtol=1e-4)
