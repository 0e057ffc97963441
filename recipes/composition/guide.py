"""Losses on attention to words (core.composition.losses) as a guide of host.sampling.steering: every object that a prompt names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.attention.probabilities import attention_probabilities, mean_maps
from ...core.composition import losses
from ...host.models import families
from ...host.models.attention_sites import TextLayer, text_layers
from ...host.models.taps import Prompt, Readable
from ...host.sampling import steering
from ...host.sampling.guides import Predict
from ...host.sampling.reading import Features
from ...host.sampling.sigma_range import SigmaRange

Method = Literal["separate and enhance", "attend and excite"]
METHODS: tuple[Method, ...] = ("separate and enhance", "attend and excite")
ALIKE = 1e-2  # of its own norm: by so much an encoded prompt differs from itself in another precision
PROMPT = Prompt()


class CompositionError(ValueError):
    """Written for the user: what in the workflow keeps objects from being told apart."""


@dataclass(frozen=True)
class CompositionSettings:
    """strength, start, end, refinements: see host.sampling.guides. separate, enhance: weights of the two losses; the other method has
    none."""

    strength: float = 0.4
    start: float = 0.0
    end: float = 0.5
    refinements: int = 1
    method: Method = METHODS[0]
    separate: float = 1.0
    enhance: float = 0.5
    layers: families.Choice = "default"


@dataclass(frozen=True)
class Named:
    """A prompt and the objects that it names. encoded: (1, tokens, channels). phrases: (objects, tokens) bool. special: (tokens,) bool,
    those of no word (see host.models.prompt_tokens)."""

    encoded: Tensor
    phrases: Tensor
    special: Tensor

    def rows(self, context: Tensor) -> Tensor:
        """Which rows of what a model is given, (rows, tokens, channels), are this prompt: (rows,) bool. The host repeats a prompt so that
        it is as long as another."""
        own = self.encoded.to(context)
        if context.shape[2] != own.shape[2] or context.shape[1] % own.shape[1]:
            return torch.zeros(len(context), dtype=torch.bool)
        apart = (context - own.repeat(1, context.shape[1] // own.shape[1], 1)).flatten(1).norm(dim=1)
        return (apart < ALIKE * own.norm() * (context.shape[1] / own.shape[1]) ** 0.5).cpu()


@dataclass(frozen=True)
class Words:
    """What the tokens of each row are. phrases: (rows, objects, tokens) bool; content: (rows, tokens) bool."""

    phrases: Tensor
    content: Tensor

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
        return [PROMPT, *(point for layer in self.layers for point in layer.points)]

    @property
    def range(self) -> SigmaRange:
        return SigmaRange(self.settings.start, self.settings.end)

    @property
    def strength(self) -> float:
        return self.settings.strength

    @property
    def refinements(self) -> int:
        return self.settings.refinements

    def start(self, model: ModelPatcher, latent: Tensor) -> "CompositionSession":
        return CompositionSession(self, latent.shape)


@dataclass
class CompositionSession:
    """shape: of the latents. known: whether any row was one of the prompts."""

    guide: CompositionGuide
    shape: torch.Size
    known: bool = False
    _words: dict[tuple, Words] = field(default_factory=dict)

    def energy(self, features: Features, sigma: float) -> Tensor:
        words = self.words(features[PROMPT.name])
        attention = attention_to(features, self.guide.layers, self.shape)
        settings, present = self.guide.settings, words.present
        if settings.method == "attend and excite":
            sharp = losses.excited(attention, words.content)
            return losses.attend_and_excite(losses.of_phrases(sharp, words.phrases), present)
        maps = losses.of_phrases(attention, words.phrases)
        return settings.separate * losses.separate(maps, present) + settings.enhance * losses.enhance(maps, present)

    def words(self, context: Tensor) -> Words:
        """Of the rows of a pass."""
        members = [prompt.rows(context) for prompt in self.guide.prompts]
        which = tuple(next((i for i, rows in enumerate(members) if rows[row]), None) for row in range(len(context)))
        self.known = self.known or any(i is not None for i in which)
        key = (which, context.shape[1], context.device)
        if key not in self._words:
            self._words[key] = self._of_rows(which, context)
        return self._words[key]

    def _of_rows(self, which: Sequence[int | None], context: Tensor) -> Words:
        prompts, tokens = self.guide.prompts, context.shape[1]
        phrases = torch.zeros(len(which), max(len(prompt.phrases) for prompt in prompts), tokens, dtype=torch.bool)
        content = torch.zeros(len(which), tokens, dtype=torch.bool)
        for row, i in enumerate(which):
            if i is not None:
                copies = tokens // prompts[i].phrases.shape[1]
                phrases[row, : len(prompts[i].phrases)] = prompts[i].phrases.repeat(1, copies)
                content[row] = ~prompts[i].special.repeat(copies)
        return Words(phrases.to(context.device), content.to(context.device))

    def look_ahead(self, predict: Predict | None, x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        pass

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        if not self.known:
            raise CompositionError(
                "The sampler's positive prompt is not the one whose objects are to be kept apart: connect the positive output of Separate "
                "& Enhance to the sampler."
            )
        return denoised


def attention_to(features: Features, layers: Sequence[TextLayer], shape: Sequence[int]) -> Tensor:
    """How much each place attends to each token of the prompt, of all that it attends to the prompt, by the mean of the layers:
    (rows, tokens, F, h, w)."""
    tokens = features[PROMPT.name].shape[1]
    maps, grids = [], []
    for layer in layers:
        q, k = layer.queries_and_keys(features, shape)
        if k.shape[1] < tokens:
            raise CompositionError(
                f"A layer of the model attends to {k.shape[1]} tokens of text, where the prompt has {tokens}: another pack changes the "
                "text that it sees. Please take that off this model."
            )
        maps.append(attention_probabilities(q, k, layer.heads, slice(0, tokens)))
        grid = layer.grid(shape)
        grids.append(((1,) * (3 - len(grid)) + grid)[:3])
    return mean_maps(maps, grids)


def attach(model: ModelPatcher, prompts: Sequence[Named], settings: CompositionSettings) -> ModelPatcher:
    """A clone of `model` that keeps apart what these prompts name."""
    family = families.family_of(model)
    layers = text_layers(family, model.model.diffusion_model, settings.layers)
    return steering.attach(model, CompositionGuide(prompts, layers, settings))
