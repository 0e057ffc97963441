"""Attention by label, in chosen layers of a model: queries attend to the keys of their own label (core.attention.grouped.py).

It is put around the host's attention, and around what another pack has put there: each part of it is a plain call of that, so every
attention backend serves; a small table of queries by words is one call of torch's under a mask. Rows of other prompts, and of the
unconditional branch, attend to all of their text.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn

from ...core.attention.grouped import ANYTHING, Part, grouped_attention, parts, table, take
from ..models.attention_sites import Site
from ..models.running import watching
from ..models.taps import OVERRIDE

Plan = list[Part] | Tensor  # blocks, or a table of queries by words
Plans = dict[Hashable, Plan]

SMALL = 2**19  # queries by words: up to here one call under a mask is quicker than one for each label


TO_TEXT = ("text", "text in time")  # kinds of sites whose keys are words alone


class LabelError(ValueError):
    """Written for the user: why tokens cannot be told apart by their places."""


class Labels(Protocol):
    """What has which label: 0 for the ground, 1 to `objects` for objects."""

    @property
    def objects(self) -> int: ...

    def places(self, frames: int, grid: tuple[int, int]) -> Tensor:
        """(frames, h, w) labels of image tokens."""
        ...

    @property
    def words(self) -> Tensor:
        """(1 + objects, tokens) bool, which tokens of its prompt each label attends to."""
        ...


@dataclass(frozen=True)
class Rows:
    """What the rows of one evaluation are. branches: for each of the host's `cond_or_uncond`, whether it is conditional, and whether its
    prompt is the one whose words have labels. clips: of each branch. frames: of each clip, as rows, or None where the latent has an
    axis for them. size: of the latent. copies: how often each prompt stands in its row, as the host makes prompts equally long."""

    branches: tuple[tuple[bool, bool], ...]
    clips: int
    frames: int | None
    size: tuple[int, ...]
    copies: int = 1


@dataclass(frozen=True)
class How:
    """where: the sites that are changed. strength: 1 by label alone, below that mixed with plain attention. everywhere: other branches
    keep image tokens apart, too. words, space: whether words are kept apart, and image tokens, where one attention is over both."""

    where: Sequence[Site]
    strength: float = 1.0
    everywhere: bool = True
    words: bool = True
    space: bool = True


def labelled(
    run: Callable[[dict[str, Any]], Tensor], options: dict[str, Any], labels: Labels, rows: Rows, how: How, diffusion_model: nn.Module,
    plans: Plans,
) -> Tensor:  # fmt: skip
    """One evaluation of a model, with attention by label; `run` is given the transformer_options to use. plans: what earlier evaluations
    with the same labels found out; this adds to it."""
    before = options.get(OVERRIDE)
    with watching(diffusion_model, how.where) as running:

        def attention(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, *rest: Any, **named: Any) -> Tensor:
            def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, function: Any = function) -> Tensor:
                call, given = ((q, k, v, heads, mask, *rest), named) if rest else ((q, k, v, heads), {**named, "mask": mask})
                return function(*call, **given) if before is None else before(function, *call, **given)

            site = running()
            v = v.flatten(2) if v.ndim > q.ndim else v  # Stable Diffusion 3 leaves the heads of values apart
            if site is None:
                return attend(q, k, v, mask)
            small = before is None and site.kind in TO_TEXT and mask is None and q.shape[-2] * k.shape[-2] <= SMALL
            key = (rows, site.kind, site.grid(rows.size), q.shape[-2], k.shape[-2], q.device, q.dtype, small)
            if key not in plans:
                plans[key] = plan(tables(site, rows, labels, how, q.shape[-2], k.shape[-2]), q, small)
            shape = (len(q), q.shape[-2], k.shape[-2])

            def attend_part(part: Part, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return attend(q, k, v, mask_of(mask, part, shape))

            own = plans[key]
            tabled = isinstance(own, Tensor)  # under a mask, which some kernels pass over without a word
            masked = attend(q, k, v, own, attention_pytorch) if tabled else grouped_attention(attend_part, q, k, v, own)
            return masked if how.strength == 1 else torch.lerp(attend(q, k, v, mask), masked, how.strength)

        return run({**options, OVERRIDE: attention})


def plan(labelled_tokens: tuple[Tensor, Tensor], like: Tensor, small: bool) -> Plan:
    """How attention of labelled queries to members (see `tables`) is computed, on a device."""
    return table(*labelled_tokens).to(like) if small else [part.to(like.device) for part in parts(*labelled_tokens)]


def mask_of(mask: Tensor | None, part: Part, shape: tuple[int, int, int]) -> Tensor | None:
    """The host's own mask, (Lq or 1, Lk), (R or 1, Lq or 1, Lk) or with heads before these, for a part of attention (R, Lq, Lk)."""
    if mask is None or part == Part(None, None, None):
        return mask
    mask = mask[None, None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask
    mask = mask.expand(shape[0], -1, -1, -1)
    of_queries = part.queries if mask.shape[-2] > 1 else None
    return take(take(mask, part.rows, of_queries).mT, None, part.keys).mT


def tables(site: Site, rows: Rows, labels: Labels, how: How, queries: int, keys: int) -> tuple[Tensor, Tensor]:
    """Labels of the queries of a site (R, queries), and which keys each label attends to (R, labels, keys)."""
    grid = site.grid(rows.size)
    tokens = _image_tokens(site, rows, labels.places(grid[0] if rows.frames is None else rows.frames, (grid[-2], grid[-1])))
    tokens = F.pad(tokens, (0, -tokens.shape[1] % site.pad_to), value=ANYTHING)
    text = keys - tokens.shape[1] if site.kind == "joint" else keys
    if queries != tokens.shape[1] + (text if site.kind == "joint" else 0) or text < 0:
        raise LabelError(
            f"Layer {site.module} has {queries} tokens where the latent has {' x '.join(map(str, grid))}. A patch that merges, tiles or "
            "shrinks (ToMe, HyperTile, Deep Shrink) or a reference picture is probably on this model: please take it off."
        )
    anything = torch.ones(1 + labels.objects, text, dtype=torch.bool)
    words = labels.words.repeat(1, rows.copies)
    words = F.pad(words, (0, -words.shape[1] % site.pad_to), value=True)
    if site.kind == "joint" and 0 < text != words.shape[1] and any(told for _, told in rows.branches):
        raise LabelError(
            f"Layer {site.module} has {text} tokens besides those of the picture, where the prompt has {words.shape[1]}: words cannot be "
            "told from reference pictures and from text that other encoders add. Please leave those out."
        )
    words = words if words.shape[1] == text and how.words else anything  # some attention is without the prompt
    each = []
    for conditional, told in rows.branches:
        apart = (conditional or how.everywhere) and (how.space or site.kind != "joint")
        each.append(_branch(site, tokens, words if told else anything, told, apart))
    label, member = zip(*each, strict=True)
    return torch.cat(label), torch.cat(member)


def _image_tokens(site: Site, rows: Rows, places: Tensor) -> Tensor:
    """Labels (rows of one branch, tokens) of a site's image tokens."""
    if rows.frames is None:
        return places.flatten()[None].expand(rows.clips, -1)
    if site.kind in ("time", "text in time"):
        return places.flatten(1).T.repeat(rows.clips, 1)  # a row for each place
    return places.flatten(1).repeat(rows.clips, 1)  # a row for each frame


def _branch(site: Site, tokens: Tensor, words: Tensor, told: bool, apart: bool) -> tuple[Tensor, Tensor]:
    """Query labels (R, Lq) and members (R, labels, Lk) of one branch. told: whether its words have labels; apart: whether its image
    tokens have."""
    spoken = words.expand(len(tokens), -1, -1)
    if site.kind in TO_TEXT:
        return (tokens if told else torch.full_like(tokens, ANYTHING)), spoken
    image = (tokens[:, None] == torch.arange(len(words))[None, :, None]) | (tokens[:, None] == ANYTHING)  # (R, labels, image tokens)
    if site.kind != "joint":
        return (tokens if apart else torch.full_like(tokens, ANYTHING)), image
    owner = torch.where(words.sum(0) == 1, words.byte().argmax(0), ANYTHING)  # words that all labels have may attend to anything
    image = image if apart else torch.ones_like(image)
    queries = tokens if apart or told else torch.full_like(tokens, ANYTHING)
    return torch.cat([owner.expand(len(tokens), -1), queries], 1), torch.cat([spoken, image], 2)
