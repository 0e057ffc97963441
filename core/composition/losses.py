"""Losses on attention to words: every object that a prompt names gets a place, one of its own and only one.

Separate-and-Enhance (arXiv 2312.06712), of maps M_i of the objects:

    L_separate  =  sum over pairs i < j  max  M_i M_j / (M_i + M_j)          (the paper's product of all M_i by their sum, for two)
    L_enhance   =  1 - min_i max  G * M_i                                    G: a Gaussian of 3 x 3, sigma 0.5

These are never 0, so they go on moving a picture that is right. In place of them, of maps N_i of the word that tells an object from the
others, so that what is well already stays as it is:

    L_apart     =  sum over pairs i < j  max(0, r(G * N_i, G * N_j) + .1)    r: Pearson's correlation over all places
    L_seen      =  sum_i  max(0, 1 - P_i / enough)                           P_i: mean of N_i over the places where it is highest
    L_gather    =  sum_i  f_i max(0, V_i / wide - 1)                         V_i: variance of places, each weighed by
                                                                             max(0, S_i - median S_i)^2, S_i = G * G * N_i, over a
                                                                             whole picture's; f_i = max(0, 1 - max_j r / shared), held
                                                                             constant: those still at one place are parted first

Attend-and-Excite (arXiv 2301.13826), of maps A_i, a softmax over the words of 100 times the attention:

    L           =  max_i max(0, 1 - max  G * A_i)

Layout guidance (arXiv 2304.03373), of maps M_i and boxes:

    L_boxes     =  mean_i (1 - sum over the box of M_i / sum of M_i)^2

The maximum without an index is over all places. Maps are (B, objects, F, h, w) in 0..1, of F frames, 1 for a picture; `present`
(B, objects) says which there are, for prompts name more or fewer. Losses are (B,), and 0 where nothing is present.
"""

import math

import torch
from torch import Tensor

SIGMA = 0.5  # of the Gaussian, in tokens
SHARPNESS = 100.0  # of Attend-and-Excite's softmax over words
MARGIN = 0.1  # of L_apart: without one, objects may touch
SHARE = 1 / 40  # of all places, that an object is to be looked for at
SHARED = 0.5  # correlation to another object, from which on one is not gathered
WIDE = 0.15  # of a picture's variance: as much as a square of .39 of its side has
LEAST = 1e-6  # of a sum that is divided by


def separate(maps: Tensor, present: Tensor) -> Tensor:
    """L_separate: how much two objects are looked for at the same place."""
    first, second = torch.triu_indices(maps.shape[1], maps.shape[1], 1, device=maps.device)
    a, b = maps[:, first], maps[:, second]
    shared = (a * b / (a + b + LEAST)).flatten(2).amax(2) if len(first) else maps.new_zeros(len(maps), 0)
    return (shared * (present[:, first] & present[:, second])).sum(1)


def enhance(maps: Tensor, present: Tensor) -> Tensor:
    """L_enhance: how little the least object is looked for anywhere."""
    peaks = smooth(maps).flatten(2).amax(2)
    return 1 - peaks.masked_fill(~present, 1.0).amin(1)


def apart(maps: Tensor, present: Tensor) -> Tensor:
    """L_apart: whether two objects are looked for at the same places."""
    alike = (_correlations(smooth(maps)) + MARGIN).clamp(min=0)
    return (alike * _pairs(present)).triu(1).sum((1, 2))


def seen(maps: Tensor, present: Tensor, enough: float) -> Tensor:
    """L_seen: how much less than `enough` each object is looked for, where it is most."""
    places = maps.flatten(2)
    highest = places.topk(max(round(SHARE * places.shape[2]), 1), dim=2).values.mean(2)
    return ((1 - highest / enough).clamp(min=0) * present).sum(1)


def gather(maps: Tensor, present: Tensor, single: Tensor) -> Tensor:
    """L_gather: how far each object is spread, as one that is drawn twice is. single: (B, objects) bool, which of those that are present
    are one thing each. Frames of a clip each have a middle of their own, for things move."""
    soft = smooth(maps)
    others = _pairs(present) & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    nearest = torch.where(others, _correlations(soft.detach()), 0.0).amax(2)
    free = (1 - nearest / SHARED).clamp(0, 1)
    softer = smooth(soft).flatten(2)
    above = (softer - softer.median(2, keepdim=True).values).clamp(min=0).square().unflatten(2, maps.shape[2:])
    weight = above / (above.sum((2, 3, 4), keepdim=True) + LEAST**2)
    height, width = maps.shape[3:]
    varied = _variance(weight.sum(3)) + _variance(weight.sum(4))
    share = varied / ((height**2 + width**2) / 12)
    return (free * (share / WIDE - 1).clamp(min=0) * single).sum(1)


def attend_and_excite(maps: Tensor, present: Tensor) -> Tensor:
    """The loss of Attend-and-Excite, of maps by `excited`."""
    peaks = smooth(maps).flatten(2).amax(2)
    return (1 - peaks).clamp(min=0).masked_fill(~present, 0.0).amax(1)


def boxes(maps: Tensor, inside: Tensor, present: Tensor) -> Tensor:
    """L_boxes: how much of each object is looked for outside of its box. inside: (B, objects, F, h, w) in 0..1; `present` here are the
    objects that have a box."""
    inward = (maps * inside).flatten(2).sum(2) / (maps.flatten(2).sum(2) + LEAST)
    return ((1 - inward).square() * present).sum(1) / present.sum(1).clamp(min=1)


def _pairs(present: Tensor) -> Tensor:
    """(B, objects, objects): both are present."""
    return present[:, :, None] & present[:, None]


def _correlations(maps: Tensor) -> Tensor:
    """Pearson's, over all places, of each two maps: (B, objects, F, h, w) to (B, objects, objects)."""
    flat = maps.flatten(2)
    around = flat - flat.mean(2, keepdim=True)
    unit = around / (around.norm(dim=2, keepdim=True) + LEAST)
    return unit @ unit.mT


def _variance(weight: Tensor) -> Tensor:
    """Of places along an axis, each frame about its own mean: (B, objects, F, places) that sum to 1 over F and places."""
    places = torch.arange(weight.shape[3], device=weight.device, dtype=weight.dtype)
    mean = (weight * places).sum(3, keepdim=True) / (weight.sum(3, keepdim=True) + LEAST)
    return (weight * (places - mean).square()).sum((2, 3))


def excited(attention: Tensor, content: Tensor) -> Tensor:
    """A of each token: the attention (B, tokens, F, h, w), sharpened over the tokens that are `content` (B, tokens); 0 for others."""
    other = ~content[:, :, None, None, None]
    return (SHARPNESS * attention).masked_fill(other, -torch.inf).softmax(1).masked_fill(other, 0.0)


def means(phrases: Tensor) -> Tensor:
    """What makes means over the tokens of each phrase of attention to tokens, by a product: phrases (B, objects, tokens) bool to
    (B, tokens, objects)."""
    weights = phrases.float()
    return (weights / weights.sum(2, keepdim=True).clamp(min=1)).mT


def sums(maps: Tensor, phrases: Tensor) -> Tensor:
    """Sums over the tokens of each phrase: maps (B, tokens, F, h, w) to (B, objects, F, h, w)."""
    return torch.einsum("bkt,bt...->bk...", phrases.to(maps.dtype), maps)


def smooth(maps: Tensor) -> Tensor:
    """G * maps, mirrored at the edges; an axis with one place is left as it is."""
    aside = math.exp(-1 / (2 * SIGMA**2))
    middle = 1 / (1 + 2 * aside)
    for axis in (-2, -1):
        count = maps.shape[axis]
        if count > 1:
            before, after = maps.narrow(axis, 1, 1), maps.narrow(axis, count - 2, 1)
            wide = torch.cat([before, maps, after], axis)
            maps = middle * maps + (1 - middle) / 2 * (wide.narrow(axis, 0, count) + wide.narrow(axis, 2, count))
    return maps
