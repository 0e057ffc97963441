"""Measures of likeness against their formulas, written down plainly."""

import math

import pytest
import torch
from freesteer.core.measures import views


def pictures(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed))


def weights() -> torch.Tensor:
    """Of a window, (11, 11, 1); they sum to 1."""
    place = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(place**2) / (2 * 1.5**2))
    window = line[:, None] * line
    return (window / window.sum())[..., None]


def formula(a: torch.Tensor, b: torch.Tensor) -> float:
    """SSIM of one window, (11, 11, 3)."""
    a, b, w = a.double(), b.double(), weights()
    ma, mb = (w * a).sum((0, 1)), (w * b).sum((0, 1))
    va, vb, both = (w * (a - ma) ** 2).sum((0, 1)), (w * (b - mb) ** 2).sum((0, 1)), (w * (a - ma) * (b - mb)).sum((0, 1))
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def test_psnr_is_counted_frame_by_frame():
    a = torch.full((3, 8, 8, 3), 0.5)
    b = a + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    found = views.psnr(a, b)
    assert found[:2].tolist() == pytest.approx([20, 40], abs=1e-3)
    assert found[2] == math.inf
    b = a.clone()
    b[:, 0, 0, 0] = 1.0  # one of 192 values is .5 off
    assert views.psnr(a, b).tolist() == pytest.approx([10 * math.log10(192 / 0.25)] * 3)


def test_ssim_of_one_window_is_the_formula():
    a, b = pictures(0, 2, 11, 11), pictures(1, 2, 11, 11)
    assert views.ssim(a, b).tolist() == pytest.approx([formula(x, y) for x, y in zip(a, b, strict=True)], abs=1e-5)


def test_ssim_is_the_mean_over_whole_windows():
    a = pictures(0, 1, 13, 12)
    b = (a + 0.2 * pictures(1, 1, 13, 12)).clamp(0, 1)
    windows = [(slice(y, y + 11), slice(x, x + 11)) for y in range(3) for x in range(2)]
    assert float(views.ssim(a, b)) == pytest.approx(sum(formula(a[0][w], b[0][w]) for w in windows) / 6, abs=1e-5)


def test_ssim_of_known_pictures():
    grey = torch.full((1, 16, 16, 3), 0.5)
    assert float(views.ssim(grey, grey * 0.5)) == pytest.approx((2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4), abs=1e-4)
    noise = pictures(2, 1, 32, 32)
    assert float(views.ssim(noise, noise)) == pytest.approx(1, abs=1e-6)
    assert float(views.ssim(torch.zeros_like(noise), torch.zeros_like(noise))) == pytest.approx(1, abs=1e-6)
    assert float(views.ssim(noise, 1 - noise)) < -0.5
    shifted = (noise * 0.9 + 0.05).clamp(0, 1)
    assert float(views.ssim(noise, noise.roll(3, 1))) < 0.3 < float(views.ssim(noise, shifted))


@pytest.mark.parametrize("measure", [views.psnr, views.ssim])
def test_what_cannot_be_compared_is_said(measure):
    with pytest.raises(ValueError, match="these are 2 x 16 x 16 x 3 and 1 x 16 x 16 x 3"):
        measure(pictures(0, 2, 16, 16), pictures(0, 1, 16, 16))
    with pytest.raises(ValueError, match="same number and size"):
        measure(pictures(0, 16, 16), pictures(0, 16, 16))


def test_ssim_needs_a_whole_window():
    with pytest.raises(ValueError, match="these are 20 x 10"):
        views.ssim(pictures(0, 1, 10, 20), pictures(1, 1, 10, 20))
