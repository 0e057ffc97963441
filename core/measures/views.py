"""How near one picture comes to another.

    PSNR = -10 log10 mean (a - b)^2,   SSIM = mean (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2))

SSIM: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", with means m and covariances s
in windows of 11 x 11 weighted by a Gaussian of 1.5 pixels, C1 = .01^2, C2 = .03^2. As there, only windows that lie whole in the
picture count, and each colour is a picture of its own.
"""

import kornia.metrics
import torch
from torch import Tensor

WINDOW = 11  # pixels


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """In dB, (F,), of pictures (F, H, W, 3) in 0..1; infinite where two are the same."""
    _check(a, b)
    return -10 * (a.float() - b.float()).square().flatten(1).mean(1).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """-1..1, (F,), of pictures (F, H, W, 3) in 0..1, each side 11 pixels or more; 1 where two are the same."""
    _check(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of {WINDOW} x {WINDOW} pixels or more; these are {a.shape[2]} x {a.shape[1]}.")
    return torch.stack([_ssim(one, other) for one, other in zip(a, b, strict=True)])


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    one, other = (picture.float().movedim(-1, 0)[None] for picture in (a, b))  # HWC -> BCHW
    return kornia.metrics.ssim(one, other, WINDOW, eps=0.0, padding="valid").mean()


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4 or 0 in a.shape:
        raise ValueError(f"Only pictures of the same number and size can be compared; these are {_shape(a)} and {_shape(b)}.")


def _shape(pictures: Tensor) -> str:
    return " x ".join(map(str, pictures.shape))
