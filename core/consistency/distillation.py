"""Consistency models (Song et al. 2023, https://arxiv.org/abs/2303.01469) as distilled in latent space (Luo et al. 2023,
https://arxiv.org/abs/2310.04378, algorithm 1).

    x_n      = x0 + (x_{n+1} - x0) sigma_n / sigma_{n+1},   x0 = u + w (c - u)     one guided step of DDIM by the frozen teacher
    L(theta) = d( f_theta(x_{n+1}, sigma_{n+1}),  f_ema(x_n, sigma_n) )
    d(a, b)  = sqrt(|a - b|^2 + h^2) - h                                            pseudo-Huber, for each number

Noisy latents are as the host has them (x = x0 + sigma noise, or (1 - sigma) x0 + sigma noise for flows: the step is the same for both).
f is the prediction of clean latents; where no noise is left, it is what it is given.
"""

import torch
from torch import Tensor

HUBER = 1e-3  # h, as published


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of clean latents: u + w (c - u), of any shape."""
    return unconditional + scale * (conditional - unconditional)


def ddim_step(x: Tensor, clean: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """x (B, ...) at noise levels sigma (B,), moved to next_sigma (B,) along the line to `clean`."""
    ratio = (next_sigma / sigma).view(-1, *[1] * (x.ndim - 1))
    return clean + (x - clean) * ratio


def pseudo_huber(a: Tensor, b: Tensor, h: float = HUBER) -> Tensor:
    """sqrt((a - b)^2 + h^2) - h of each number."""
    return ((a - b).square() + h * h).sqrt() - h


def distillation_loss(student: Tensor, target: Tensor) -> Tensor:
    """The mean distance of predictions (B, ...) to the targets, which have no gradient."""
    return pseudo_huber(student.float(), target.detach().float()).mean()


def times(levels: int, number: int, generator: torch.Generator) -> Tensor:
    """Numbers n (`number`,) of the levels 1 to `levels` that are left for the level below; level 0 is free of noise."""
    return torch.randint(1, levels + 1, (number,), generator=generator, device=generator.device)
