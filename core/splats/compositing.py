"""Blending sorted Gaussians front to back, tile by tile, with a backward pass that needs no stored intermediate.

    alpha_i = min(.999, o_i exp(-d' C_i d / 2)),  0 below 1/255;   T_i = prod_{j<i} (1 - alpha_j);   f = sum_i T_i alpha_i f_i

(3D Gaussian Splatting, 2308.04079, eq. 3.) In a tile, log alpha is a polynomial of six terms in the pixel's place, so that it
is one matrix product for all pixels and Gaussians. A tile takes its Gaussians in chunks, until T < DARK at all of its pixels.

Backward, with g = dE/df, q_i = f_i . g and R = f . g + T (dE/dT), needs only sums from the front:

    dE/dalpha_i = T_i q_i - (R - sum_{j<=i} T_j alpha_j q_j) / (1 - alpha_i)
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import neg
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import accelerated
from .tiles import FAINTEST, Tiles

DARK = 1e-5  # transmittance below which a pixel is done
OPAQUE = 0.999  # greatest alpha, as in gsplat to 1.5; the paper's code has .99
CHUNK = 64  # Gaussians of a tile at a time
AT_ONCE = {"cpu": 2**19}  # pixels x Gaussians of a batch: on a CPU, what its cache holds
AT_ONCE_ELSEWHERE = 2**25


def composite(
    means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles, kernel: accelerated.Kernel | None = None
) -> tuple[Tensor, Tensor]:
    """Features (N, C) to (tiles, pixels, C), and the transmittance that is left: (tiles, pixels). Differentiable in all four."""
    if kernel is not None and kernel.takes(tiles):
        return accelerated.composite(kernel.blend, means, conics, opacities, features, tiles)
    return _Composite.apply(means, conics, opacities, features, tiles)  # pyright: ignore[reportReturnType]


def pixels_at_once(device: torch.device) -> int:
    """Pixels x Gaussians that are blended at once on a device."""
    return AT_ONCE.get(device.type, AT_ONCE_ELSEWHERE)


@torch.no_grad()
def median_depth(means: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, tiles: Tiles) -> Tensor:
    """The depth at which the transmittance falls below a half, (tiles, pixels); 0 where it never does."""
    median = depths.new_zeros(len(tiles.count), tiles.side**2)
    blend = _Blend(means, conics, opacities, tiles)
    for part in _parts(tiles, blend.left):
        chunk = blend.next(part)
        after = chunk.transmittance * chunk.passing
        crossed = (chunk.transmittance >= 0.5) & (after < 0.5)
        median[part.tiles] += (crossed * depths[chunk.rows][..., None]).sum(1)
    return median


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, tiles: Tiles):
        blended = features.new_zeros(len(tiles.count), tiles.side**2, features.shape[1])
        blend = _Blend(means, conics, opacities, tiles)
        ctx.tiles, ctx.parts = tiles, []
        for part in _parts(tiles, blend.left):
            chunk = blend.next(part)
            blended[part.tiles] += chunk.weights.mT @ features[chunk.rows]
            ctx.parts.append(part)
        ctx.save_for_backward(means, conics, opacities, features, blended, blend.left)
        return blended, blend.left

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        means, conics, opacities, features, blended, transmittance = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        blended_by, transmittance_by = gradients
        behind = (blended * blended_by).sum(-1) + transmittance * transmittance_by  # R, less the Gaussians that have been passed
        terms = features.new_zeros(len(tiles.gaussian) + 1, 6 + features.shape[1])
        blend = _Blend(means, conics, opacities, tiles)
        for part in ctx.parts:  # those of the forward pass: which tiles are dark is not asked again
            chunk = blend.next(part)
            here = blended_by[part.tiles]
            weights = chunk.weights
            along = weights * (features[chunk.rows] @ here.mT)  # T alpha q
            remaining = _remainders(behind[part.tiles], along)
            behind[part.tiles] = remaining[:, -1]
            by_power = along.sub_(chunk.alpha / chunk.passing * remaining[:, 1:])  # alpha dE/dalpha
            by_power.masked_fill_(chunk.alpha >= OPAQUE, 0)
            terms[chunk.places] = torch.cat([by_power @ blend.monomials.mT, weights @ here], -1)
        return *_to_gaussians(terms[:-1], means, conics, opacities, tiles), None


def _to_gaussians(terms: Tensor, means: Tensor, conics: Tensor, opacities: Tensor, tiles: Tiles) -> tuple[Tensor, ...]:
    """Derivatives by the polynomials' coefficients and by features, (M, 6 + C), to those by means, conics, opacities, features."""
    rows = tiles.gaussian
    x, y = (means[rows] - _middles(tiles, means)[_tile_of(tiles)]).unbind(-1)
    a, b, c = conics[rows].unbind(-1)
    one, u, v, uu, uv, vv = terms[:, :6].unbind(-1)
    # of sums over pixels p of dE/dpower: dx = p_x - x
    sx, sy = u - one * x, v - one * y
    by_x, by_y = a * sx + b * sy, b * sx + c * sy
    by_a = -0.5 * (uu - 2 * x * u + x * x * one)
    by_b = -(uv - x * v - y * u + x * y * one)
    by_c = -0.5 * (vv - 2 * y * v + y * y * one)
    each = torch.cat([torch.stack([by_x, by_y, by_a, by_b, by_c, one], -1), terms[:, 6:]], -1)
    total = each.new_zeros(len(means), each.shape[1]).index_add_(0, rows, each)
    return total[:, :2], total[:, 2:5], total[:, 5] / opacities.clamp(min=1e-12), total[:, 6:]


@dataclass(frozen=True)
class _Part:
    """Of the tiles (b,), the Gaussians from the place `start` to `stop` of each one's own list."""

    tiles: Tensor
    start: int
    stop: int


def _parts(tiles: Tiles, left: Tensor) -> Iterator[_Part]:
    """All tiles from the front until they are dark or done, those of like counts together. left: (tiles, P), the transmittance behind
    what is drawn so far; it is read when the next part is asked for, so parts have to be drawn in turn."""
    device = left.device.type
    batch = max(1, pixels_at_once(left.device) // (tiles.side**2 * CHUNK))
    done, longest = 0, 1
    while done < longest:
        remaining, order = torch.where(left.amax(1) > DARK, tiles.count, 0).sort(descending=True)
        counts = remaining.tolist()  # all that is read from the device
        longest = counts[0]
        end = done + CHUNK if device == "cpu" else _end_of_round(done, longest)
        for first in range(0, _longer_than(done, counts), batch):
            for start in range(done, min(end, counts[first]), CHUNK):
                last = min(first + batch, _longer_than(start, counts))
                yield _Part(order[first:last], start, min(start + CHUNK, end, counts[first]))
        done = end


def _longer_than(count: int, counts: list[int]) -> int:
    """How many of the counts, the largest first, are larger."""
    return bisect_left(counts, -count, key=neg)


def _end_of_round(done: int, longest: int) -> int:
    """Where dark tiles are looked for next on a device that has to be waited for: at an eighth, a quarter, a half of the longest list."""
    eighth = -(-longest // (8 * CHUNK)) * CHUNK
    return eighth if done == 0 else 2 * done


@dataclass(frozen=True)
class _Chunk:
    """Of b tiles, the next m Gaussians, at P pixels.

    places: (b, m), in the list of intersections, or its length where there are none left; rows: (b, m), of the scene; alpha,
    passing: (b, m, P), 1 - alpha; transmittance: (b, m, P), T before each Gaussian.
    """

    places: Tensor
    rows: Tensor
    alpha: Tensor
    passing: Tensor
    transmittance: Tensor

    @property
    def weights(self) -> Tensor:
        return self.alpha * self.transmittance


class _Blend:
    """What all parts of a picture share. left: (tiles, P), the transmittance behind what is drawn so far; monomials: (6, P)."""

    def __init__(self, means: Tensor, conics: Tensor, opacities: Tensor, tiles: Tiles):
        self.tiles, self.last = tiles, len(means) - 1
        self.monomials = _monomials(tiles.side, means)
        self.packed, self.middles = _packed(means, conics, opacities), _middles(tiles, means)
        self.listed = F.pad(tiles.gaussian, (0, 1), value=len(means))
        self.left = means.new_ones(len(tiles.count), tiles.side**2)

    def next(self, part: _Part) -> _Chunk:
        tiles, these = self.tiles, part.tiles
        offset = torch.arange(part.start, part.stop, device=these.device)
        places = torch.where(offset < tiles.count[these, None], tiles.start[these, None] + offset, len(tiles.gaussian))
        rows = self.listed[places]
        alpha = (_coefficients(self.packed[rows], self.middles[these][:, None]) @ self.monomials).exp_().clamp_(max=OPAQUE)
        alpha = F.threshold(alpha, FAINTEST, 0.0)
        passing = 1 - alpha
        transmittance = _products(self.left[these], passing)
        self.left[these] = transmittance[:, -1]
        return _Chunk(places, rows.clamp(max=self.last), alpha, passing, transmittance[:, :-1])


def _products(first: Tensor, factors: Tensor) -> Tensor:
    """first (b, P) times none, one, ... all of the factors (b, m, P): (b, m + 1, P)."""
    if factors.device.type != "cpu":
        return torch.cumprod(torch.cat([first[:, None], factors], 1), 1)
    return _row_by_row(torch.mul, first, factors)


def _remainders(first: Tensor, values: Tensor) -> Tensor:
    """first (b, P) less none, one, ... all of the values (b, m, P): (b, m + 1, P)."""
    if values.device.type != "cpu":
        return torch.cumsum(torch.cat([first[:, None], -values], 1), 1)
    return _row_by_row(torch.sub, first, values)


def _row_by_row(step: Callable[..., Tensor], first: Tensor, values: Tensor) -> Tensor:
    """On a CPU, torch's own scans along m take ten times as long."""
    results = first.new_empty(len(first), values.shape[1] + 1, first.shape[1])
    results[:, 0] = first
    for (before, after), value in zip(pairwise(results.unbind(1)), values.unbind(1), strict=True):
        step(before, value, out=after)
    return results


def _coefficients(values: Tensor, middles: Tensor) -> Tensor:
    """Of log alpha around tiles' middles (b, 1, 2), for Gaussians packed as in `_packed`, (b, m, 6): (b, m, 6)."""
    x, y = values[..., 0] - middles[..., 0], values[..., 1] - middles[..., 1]
    a, b, c, visible = values[..., 2:].unbind(-1)
    by_u, by_v = a * x + b * y, b * x + c * y
    return torch.stack([visible - 0.5 * (by_u * x + by_v * y), by_u, by_v, -0.5 * a, -b, -0.5 * c], -1)


def _packed(means: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """Means, conics and the logarithms of opacities, (N + 1, 6); the last row is nothing."""
    places, logarithms = torch.cat([means, conics], 1), opacities.log()
    return torch.cat([F.pad(places, (0, 0, 0, 1)), F.pad(logarithms, (0, 1), value=-torch.inf)[:, None]], 1)


def _monomials(side: int, like: Tensor) -> Tensor:
    """1, u, v, u^2, uv, v^2 at the pixels of a tile, from its middle: (6, P)."""
    place = torch.arange(side, device=like.device, dtype=like.dtype) + 0.5 - side / 2
    v, u = torch.meshgrid(place, place, indexing="ij")
    u, v = u.flatten(), v.flatten()
    return torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v])


def _middles(tiles: Tiles, like: Tensor) -> Tensor:
    """Of every tile, in pixels: (tiles, 2)."""
    rows, columns = (torch.arange(n, device=like.device, dtype=like.dtype) for n in tiles.grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * tiles.side


def _tile_of(tiles: Tiles) -> Tensor:
    """Of every intersection, (M,)."""
    return torch.repeat_interleave(tiles.count, output_size=len(tiles.gaussian))
