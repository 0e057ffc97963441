"""Losses on attention to words (core.composition.losses) as a guide of host.sampling.steering: every object that a prompt names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.attention.probabilities import attention_probabilities, mean_maps
from ...core.boxes import tracks
from ...core.boxes.places import Places
from ...core.composition import losses
from ...core.composition.phrases import head, is_single
from ...host.models import families, prompt_tokens
from ...host.models.attention_sites import TextLayer, text_layers
from ...host.models.frames import clip_length, pictures_per_latent
from ...host.models.taps import Prompt, Readable
from ...host.sampling import steering
from ...host.sampling.guides import Predict
from ...host.sampling.reading import Features
from ...host.sampling.sigma_range import SigmaRange

Method = Literal["separate and enhance", "as published", "attend and excite"]
METHODS: tuple[Method, ...] = ("separate and enhance", "as published", "attend and excite")
CELLS = 8  # on each side of a grid, at least: on coarser ones two objects are always at one place
ALIKE, TINY = 1e-2, 1e-6  # of its own norm: by so much a token of an encoded prompt differs from itself in another precision
PROMPT = Prompt()


class CompositionError(ValueError):
    """Written for the user: what in the workflow keeps objects from being told apart."""


@dataclass(frozen=True)
class CompositionSettings:
    """strength, start, end, refinements: see host.sampling.guides. separate, enhance, gather, boxes: weights of the losses; those of
    objects without a box, and of the other methods, do not count. enough: see core.composition.losses."""

    strength: float = 0.8
    start: float = 0.0
    end: float = 0.7
    refinements: int = 0
    method: Method = METHODS[0]
    separate: float = 1.0
    enhance: float = 1.0
    gather: float = 0.3
    enough: float = 0.2
    boxes: float = 1.0
    layers: families.Choice = "default"


@dataclass(frozen=True)
class Named:
    """A prompt and the objects that it names. encoded: (1, tokens, channels). phrases: (objects, tokens) bool; telling: of these, what
    tells an object from the others. single: (objects,) bool, which are one thing each. special: (tokens,) bool, those of no word (see
    host.models.prompt_tokens). where: of each object its box, if it has one."""

    encoded: Tensor
    phrases: Tensor
    telling: Tensor
    single: Tensor
    special: Tensor
    where: Sequence[Places | None]

    def fitted(self, context: Tensor) -> "Named":
        """Along the tokens of what a model is given, (rows, tokens, channels): the host repeats a prompt so that it is as long as another,
        or puts zeros before it (Flux.2)."""
        own = self.encoded.shape[1]
        before = context.shape[1] - own
        if before > 0 and not context[:, :before].flatten(1).any(1).all():
            phrases, telling = (F.pad(mark, (before, 0)) for mark in (self.phrases, self.telling))
            encoded, special = F.pad(self.encoded, (0, 0, before, 0)), F.pad(self.special, (before, 0), value=True)
            return replace(self, encoded=encoded, phrases=phrases, telling=telling, special=special)
        copies = max(context.shape[1] // own, 1)
        phrases, telling = (mark.repeat(1, copies) for mark in (self.phrases, self.telling))
        repeated = {"encoded": self.encoded.repeat(1, copies, 1), "special": self.special.repeat(copies)}
        return replace(self, phrases=phrases, telling=telling, **repeated)

    def rows(self, context: Tensor) -> Tensor:
        """Which rows of what a model is given, (rows, tokens, channels), are this prompt: (rows,) bool."""
        own = self.fitted(context).encoded.to(context.device, torch.float32)
        if context.shape[1:] != own.shape[1:]:
            return torch.zeros(len(context), dtype=torch.bool)
        return ((context.float() - own).norm(dim=2) <= ALIKE * own.norm(dim=2) + TINY).all(1).cpu()


@dataclass(frozen=True)
class Words:
    """What the tokens of each row are, and where their objects are to be. phrases, telling: (rows, objects, tokens) bool; content: (rows,
    tokens) bool; inside: (rows, objects, F, h, w) in 0..1; single, boxed: (rows, objects) bool."""

    phrases: Tensor
    telling: Tensor
    single: Tensor
    content: Tensor
    inside: Tensor
    boxed: Tensor

    @property
    def present(self) -> Tensor:
        """(rows, objects) bool."""
        return self.phrases.any(2)


@dataclass(frozen=True)
class CompositionGuide:
    """One on a MODEL. prompts: all that it knows the objects of; rows of other prompts are left alone."""

    prompts: Sequence[Named]
    layers: Sequence[TextLayer]
    settings: CompositionSettings

    @property
    def points(self) -> list[Readable]:
        return points_of(self.layers)

    @property
    def range(self) -> SigmaRange:
        return SigmaRange(self.settings.start, self.settings.end)

    @property
    def strength(self) -> float:
        return self.settings.strength

    @property
    def refinements(self) -> int:
        return self.settings.refinements

    @property
    def fades(self) -> bool:
        return True

    def start(self, model: ModelPatcher, latent: Tensor, positive: list[dict[str, Any]], range: SigmaRange) -> "CompositionSession":
        given = [cond["cross_attn"] for cond in positive if cond.get("cross_attn") is not None]
        if not any(bool(prompt.rows(context).any()) for prompt in self.prompts for context in given):
            raise CompositionError(
                "The sampler's positive prompt is not the one whose objects are to be kept apart: connect the positive output of Separate "
                "& Enhance to the sampler."
            )
        frames = latent.shape[2] if latent.ndim == 5 else clip_length(model.model, len(latent))
        pictures = pictures_per_latent(model.get_model_object("latent_format"))
        return CompositionSession(self, latent.shape, frames, pictures)


@dataclass
class CompositionSession:
    """shape: of the latents. frames: of a clip, as latents; pictures: that each but the first of them stands for."""

    guide: CompositionGuide
    shape: torch.Size
    frames: int
    pictures: int
    _words: dict[tuple, Words] = field(default_factory=dict)

    def energy(self, features: Features, sigma: float) -> Tensor:
        settings, layers = self.guide.settings, told_apart(self.guide.layers, self.shape)
        words = self.words(features[PROMPT.name][..., :-1], finest(layers, self.shape))
        if settings.method == "attend and excite":
            sharp = losses.excited(attention_to(features, layers, self.shape), words.content)
            maps = losses.sums(sharp, words.phrases)
            energy = losses.attend_and_excite(maps, words.present)
        else:
            maps, telling = maps_of(features, words.phrases, words.telling, layers, self.shape)
            found = objects_losses(maps, telling, words.present, words.single, settings.method, settings.enough)
            energy = weighed(found, settings)
        return energy + settings.boxes * losses.boxes(maps, words.inside, words.boxed)

    def words(self, context: Tensor, size: Sequence[int]) -> Words:
        """Of the rows of a pass, and where on maps of that size (F, h, w)."""
        members = [prompt.rows(context) for prompt in self.guide.prompts]
        which = tuple(next((i for i, rows in enumerate(members) if rows[row]), None) for row in range(len(context)))
        key = (which, context.shape[1], context.device, tuple(size))
        if key not in self._words:
            self._words[key] = self._of_rows(which, context, size)
        return self._words[key]

    def _of_rows(self, which: Sequence[int | None], context: Tensor, size: Sequence[int]) -> Words:
        prompts, tokens = [prompt.fitted(context) for prompt in self.guide.prompts], context.shape[1]
        rows, most = len(which), max(len(prompt.phrases) for prompt in prompts)
        phrases, telling = torch.zeros(2, rows, most, tokens, dtype=torch.bool)
        content = torch.zeros(rows, tokens, dtype=torch.bool)
        single, boxed = torch.zeros(2, rows, most, dtype=torch.bool)
        inside = torch.zeros(rows, most, *size)
        for row, i in enumerate(which):
            if i is None:
                continue
            prompt = prompts[i]
            phrases[row, : len(prompt.phrases)], content[row] = prompt.phrases, ~prompt.special
            telling[row, : len(prompt.phrases)], single[row, : len(prompt.phrases)] = prompt.telling, prompt.single
            for number, where in enumerate(prompt.where):
                if where is not None:
                    boxed[row, number], inside[row, number] = True, self._covered(where, row, size)
        return Words(*(values.to(context.device) for values in (phrases, telling, single, content, inside, boxed)))

    def _covered(self, where: Places, row: int, size: Sequence[int]) -> Tensor:
        """(F, h, w), of a clip, or of the frame that a row is."""
        covered = where.coverage((self.frames - 1) * self.pictures + 1, (size[1], size[2]))
        frames = tracks.per_latent_frame(covered, self.frames)
        return frames if len(self.shape) == 5 else frames[row % self.frames, None]

    def look_ahead(self, predict: Predict | None, x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        pass

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        return denoised


def points_of(layers: Sequence[TextLayer]) -> list[Readable]:
    """What `attention_to` reads."""
    return [PROMPT, *(point for layer in layers for point in layer.points)]


def objects_losses(maps: Tensor, telling: Tensor, present: Tensor, single: Tensor, method: Method, enough: float) -> dict[str, Tensor]:
    """Of what `maps_of` gives, by the names of their weights, each (rows,): how much objects share places, how little they are looked for,
    and how far each is spread."""
    if method == "as published":
        return {"separate": losses.separate(maps, present), "enhance": losses.enhance(maps, present)}
    seen = losses.seen(telling, present, enough)
    return {"separate": losses.apart(telling, present), "enhance": seen, "gather": losses.gather(telling, present, single)}


def weighed(found: Mapping[str, Tensor], weights: Any) -> Tensor:
    return torch.stack([getattr(weights, name) * loss for name, loss in found.items()]).sum(0)


def attention_to(features: Features, layers: Sequence[TextLayer], shape: Sequence[int], words: Tensor | None = None) -> Tensor:
    """How much each place attends to each token of the prompt, of all that it attends to the prompt, by the mean of the layers:
    (rows, tokens, F, h, w); or its product with `words` (rows, tokens, objects)."""
    seen = features[PROMPT.name][..., -1] > 0
    tokens = seen.shape[1]
    maps, grids = [], []
    for layer in layers:
        q, k = layer.queries_and_keys(features, shape)
        if not tokens <= k.shape[1] < tokens + layer.pad_to:
            raise CompositionError(
                f"A layer of the model attends to {k.shape[1]} tokens of text, where the prompt has {tokens}: reference pictures, other "
                "encoders or another pack change what it sees. Please leave those out."
            )
        known = F.pad(seen, (0, k.shape[1] - tokens), value=True)
        if words is None:
            maps.append(attention_probabilities(q, k, layer.heads, known=known)[..., :tokens])
        else:
            maps.append(attention_probabilities(q, k, layer.heads, F.pad(words, (0, 0, 0, k.shape[1] - tokens)), known))
        grids.append(_with_time(layer.grid(shape)))
    return mean_maps(maps, grids)


def maps_of(features: Features, phrases: Tensor, telling: Tensor, layers: Sequence[TextLayer], shape: Sequence[int]) -> Sequence[Tensor]:
    """The means of `attention_to` over the tokens of each phrase, and over those that tell it from the others, both (1 or rows, objects,
    tokens) bool: each (rows, objects, F, h, w)."""
    words = losses.means(torch.cat([phrases, telling], 1)).to(features[PROMPT.name].device)
    return attention_to(features, layers, shape, words.expand(len(features[PROMPT.name]), -1, -1)).chunk(2, 1)


def maps_of_prompt(features: Features, named: Named, layers: Sequence[TextLayer], shape: Sequence[int]) -> Sequence[Tensor]:
    """`maps_of` a prompt that all rows have."""
    own = named.fitted(features[PROMPT.name][..., :-1])
    return maps_of(features, own.phrases[None], own.telling[None], layers, shape)


def told_apart(layers: Sequence[TextLayer], shape: Sequence[int]) -> Sequence[TextLayer]:
    """Those whose grids tell places apart."""
    return [layer for layer in layers if min(layer.grid(shape)[-2:]) >= CELLS] or layers


def finest(layers: Sequence[TextLayer], shape: Sequence[int]) -> tuple[int, int, int]:
    """(F, h, w) of the maps that `attention_to` gives."""
    return max(_with_time(layer.grid(shape)) for layer in layers)


def _with_time(grid: tuple[int, ...]) -> tuple[int, int, int]:
    frames, height, width = (1, *grid) if len(grid) == 2 else grid
    return frames, height, width


def name_objects(clip: Any, text: str, encoded: Tensor, phrases: Sequence[str], where: Mapping[str, Places] | None = None) -> Named:
    """A prompt and the phrases in it that are objects. encoded: (1 or more, tokens, channels), of which the first is meant. where: boxes,
    by phrase. A phrase that is a part of another is looked for elsewhere in the prompt."""
    found = prompt_tokens.locate(clip, text, phrases, encoded.shape[1])
    marks = found.phrases.clone()
    for i, phrase in enumerate(phrases):
        around = [j for j in range(len(phrases)) if j != i and bool((found.phrases[i] <= found.phrases[j]).all())]
        longer = [j for j in range(len(phrases)) if len(phrases[j]) > len(phrase) and bool((found.phrases[i] & found.phrases[j]).any())]
        marks[i] &= ~found.phrases[longer].any(0)
        if around or not marks[i].any():
            other = phrases[(around or longer)[0]]
            raise CompositionError(f"{phrase!r} is in the prompt only as a part of {other!r}: leave one of them out.")
    single = torch.tensor([is_single(phrase) for phrase in phrases])
    places = [(where or {}).get(phrase) for phrase in phrases]
    return Named(encoded[:1], marks, _telling(clip, text, phrases, marks), single, found.special, places)


def _telling(clip: Any, text: str, phrases: Sequence[str], marks: Tensor) -> Tensor:
    """What tells each phrase from the others, of its tokens (phrases, tokens) bool: its noun, or where others have the same, the rest."""
    nouns = [head(phrase).casefold() for phrase in phrases]
    found = []
    for phrase, noun, mark in zip(phrases, nouns, marks, strict=True):
        try:
            own = prompt_tokens.locate(clip, text, [head(phrase)], marks.shape[1]).phrases[0] & mark
        except prompt_tokens.PhraseError:  # its tokens differ within the phrase
            own = torch.zeros_like(mark)
        chosen = own if nouns.count(noun) == 1 else mark & ~own
        found.append(chosen if chosen.any() else mark)
    return torch.stack(found)


def attach(model: ModelPatcher, prompts: Sequence[Named], settings: CompositionSettings) -> ModelPatcher:
    """A clone of `model` that keeps apart what these prompts name."""
    family = families.family_of(model)
    layers = text_layers(family, model.model.diffusion_model, settings.layers)
    return steering.attach(model, CompositionGuide(prompts, layers, settings))
