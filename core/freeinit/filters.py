"""FreeInit: Bridging Initialization Gap in Video Diffusion Models (arXiv 2312.07537): its low-pass filters.

    D(f)^2  =  (d_s / d_t * f_t)^2 + f_h^2 + f_w^2           with frequencies f from -1 to 1, the highest that a grid holds
    gaussian     exp(-D^2 / (2 d_s^2))
    butterworth  1 / (1 + (D / d_s)^(2 n))
    ideal        1 where D <= d_s
    box          1 where |f_t| <= d_t and |f_h|, |f_w| <= d_s

d_s and d_t are how much of space and of time stays. The published code sets frequency 0 of axes of odd length beside the middle of the
grid, where it is not (every video model with 4n + 1 frames has such an axis), compares D^2 with 2 d_s in the ideal filter, and takes
the box's width from its height; here each axis has its own frequencies, in the order of the FFT.
"""

import torch
from torch import Tensor

KINDS = ("gaussian", "butterworth", "ideal", "box")
ORDER = 4  # of the Butterworth filter, as published
TOLERANCE = 1e-6  # a frequency on the edge stays


def frequencies(length: int) -> Tensor:
    """(length,) in -1..1, in the order of the FFT: 0 first."""
    return 2 * torch.fft.fftfreq(length)


def low_pass(shape: tuple[int, int, int], kind: str, spatial: float, temporal: float, order: int = ORDER) -> Tensor:
    """(T, H, W) in 0..1: the share of each frequency that stays. `spatial` (d_s) and `temporal` (d_t) are 0 or more: at 0 nothing
    stays, in space or in time."""
    if kind not in KINDS:
        raise ValueError(f"the filter is {kind!r}: choose one of {', '.join(KINDS)}")
    if spatial <= 0 or temporal <= 0:
        return torch.zeros(shape)
    t, h, w = torch.meshgrid(*(frequencies(length) for length in shape), indexing="ij")
    if kind == "box":
        return ((t.abs() <= temporal + TOLERANCE) & (torch.maximum(h.abs(), w.abs()) <= spatial + TOLERANCE)).float()
    relative = (t / temporal) ** 2 + (h**2 + w**2) / spatial**2  # (D / d_s)^2
    if kind == "gaussian":
        return torch.exp(-relative / 2)
    if kind == "ideal":
        return (relative <= 1 + TOLERANCE).float()
    return 1 / (1 + relative**order)
