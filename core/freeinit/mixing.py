"""FreeInit (arXiv 2312.07537): low frequencies of one noise with the high ones of another.

    mix(a, b)  =  IFFT( L FFT(a) + H FFT(b) )      L a low-pass filter, over time, height and width

The paper's H is 1 - L. Where L is between 0 and 1 that loses variance: at L = 1/2 half of it. With H = sqrt(1 - L^2), as in FreqPrior
(arXiv 2502.03496), white noise stays white noise. The error of an operator is what FreqPrior measures: how far the covariance of mixed
white noises is from the identity, |L^2 + H^2 - 1| over all frequencies.
"""

import torch
from torch import Tensor

AXES = (-3, -2, -1)  # time, height, width


def high_pass(low: Tensor, keep_variance: bool = True) -> Tensor:
    return (1 - low**2).clamp(min=0).sqrt() if keep_variance else 1 - low


def mix(a: Tensor, b: Tensor, low: Tensor, keep_variance: bool = True) -> Tensor:
    """(..., T, H, W): the frequencies of `a` that `low` (T, H, W) lets through, and the rest of `b`; computed in float32."""
    low = low.to(a.device)
    spectrum = low * torch.fft.fftn(a.float(), dim=AXES) + high_pass(low, keep_variance) * torch.fft.fftn(b.float(), dim=AXES)
    return torch.fft.ifftn(spectrum, dim=AXES).real.to(a.dtype)


def covariance_error(low: Tensor, keep_variance: bool = True) -> float:
    """|| C - I ||_F / || I ||_F of the covariance C of mixed white noises."""
    return float((low**2 + high_pass(low, keep_variance) ** 2 - 1).square().mean().sqrt())


def noised(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """The clean latent under the noise that `sigma` stands for, at the deviation of noise: what a model that predicts noise is given
    at the end of its schedule (equation 5; alpha_bar = 1 / (1 + sigma^2))."""
    return (clean + sigma * noise) / (1 + sigma**2) ** 0.5


def band_power(values: Tensor, bands: int) -> Tensor:
    """(bands,) mean power by distance from frequency 0, of values (..., T, H, W); white noise of deviation 1 has 1 in all of them."""
    shape = values.shape[-3:]
    axes = torch.meshgrid(*(torch.fft.fftfreq(n, device=values.device) for n in shape), indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()
    band = (radius / radius.max().clamp(min=1e-9) * bands).long().clamp(max=bands - 1).flatten()
    power = (torch.fft.fftn(values.float(), dim=AXES, norm="ortho").abs() ** 2).flatten(-3).reshape(-1, len(band)).mean(0)
    count = torch.bincount(band, minlength=bands)
    return torch.zeros(bands, device=values.device).index_add_(0, band, power) / count.clamp(min=1)
