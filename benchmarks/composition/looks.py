"""What pictures look like to the referee: how far from true renders, and how different from each other."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from torch import Tensor

from ...playground.referee import referee


@torch.no_grad()
def features(network: referee.Segmenter, images: Tensor) -> np.ndarray:
    """(B, 176) means of what the referee sees at four sizes, of pictures (B, 3, H, W)."""
    found = []
    for part in images.float().clone().split(32):
        half = network.stem(2 * part - 1)
        quarter = network.down_quarter(half)
        eighth = network.down_eighth(quarter)
        deep = network.down_sixteenth(eighth)
        found.append(torch.cat([F.adaptive_avg_pool2d(x, 1).flatten(1) for x in (half, quarter, eighth, deep)], 1))
    return torch.cat(found).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of Gaussians through samples (N, C) (Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6)."""
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    first, second = (np.cov(x, rowvar=False) + 1e-6 * np.eye(x.shape[1]) for x in (a, b))
    return float(apart + np.trace(first + second - 2 * np.real(sqrtm(first @ second))))


def diversity(found: np.ndarray, of_each: int) -> float:
    """Mean distance between pictures of one prompt, of which there are `of_each`, one after the other."""
    groups = found.reshape(-1, of_each, found.shape[1])
    apart = np.linalg.norm(groups[:, :, None] - groups[:, None], axis=-1)
    return float(apart.sum((1, 2)).mean() / (of_each * (of_each - 1)))
