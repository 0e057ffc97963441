"""PEEKABOO (arXiv 2312.07509) on a MODEL: an object is where its box is, because only there attention knows its words.

In the first part of sampling, image tokens in a box attend to the words of the box's object, those outside to all other words; if
wanted, to each other alone as well. A box may move from frame to frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...core.boxes import tracks
from ...core.boxes.places import Places
from ...host.models import families
from ...host.models.attention_sites import sites
from ...host.models.frames import clip_length
from ...host.models.taps import CONDITIONAL
from ...host.sampling.by_label import How, Plans, Rows, labelled
from ...host.sampling.sigma_range import SigmaRange

KEY = "freesteer_peekaboo"
Special = Literal["both", "ground", "object"]
SPECIAL: tuple[Special, ...] = ("ground", "both", "object")
KINDS = {"text": ("text", "text in time", "joint"), "space": ("space", "joint"), "time": ("time",)}


@dataclass(frozen=True)
class PeekabooSettings:
    """range: when attention is masked. strength: 1 hard; below that masked and plain attention are mixed. text, space, time: which
    attention is masked. special: which labels the tokens of no word belong to (begin, end, padding). everywhere: the unconditional branch
    keeps image tokens apart, too."""

    range: SigmaRange = field(default_factory=lambda: SigmaRange(0.0, 0.6))
    strength: float = 1.0
    text: bool = True
    space: bool = False
    time: bool = True
    special: Special = "ground"
    everywhere: bool = True


@dataclass(frozen=True)
class Objects:
    """Labels (see host/sampling/by_label.py) of objects with places, in a prompt of which the tokens of each object are known.

    per_latent: pictures that a latent frame stands for, but the first, which is one."""

    where: Sequence[Places]
    phrases: Tensor
    special: Tensor
    policy: Special
    per_latent: int = 1
    known: dict[tuple[int, tuple[int, int]], Tensor] = field(default_factory=dict, compare=False)

    @property
    def objects(self) -> int:
        return len(self.where)

    def places(self, frames: int, grid: tuple[int, int]) -> Tensor:
        if (frames, grid) not in self.known:
            pictures = (frames - 1) * self.per_latent + 1
            covered = torch.stack([each.coverage(pictures, grid) for each in self.where])
            self.known[frames, grid] = tracks.labels(tracks.per_latent_frame(covered, frames))
        return self.known[frames, grid]

    @property
    def words(self) -> Tensor:
        members = torch.cat([~self.phrases.any(0, keepdim=True) & ~self.special, self.phrases])
        if self.policy != "object":
            members[0] |= self.special
        if self.policy != "ground":
            members[1:] |= self.special
        return members


@dataclass(frozen=True)
class Windowed:
    """Labels of the frames of a longer clip that a context window takes."""

    objects_of: Objects
    frames: tuple[int, ...]
    total: int

    @property
    def objects(self) -> int:
        return self.objects_of.objects

    @property
    def words(self) -> Tensor:
        return self.objects_of.words

    def places(self, frames: int, grid: tuple[int, int]) -> Tensor:
        return self.objects_of.places(self.total, grid)[list(self.frames)]


@dataclass(frozen=True)
class Run:
    """What a patch has to know of one sampling run. shape: of its latents; range: when attention is masked in it."""

    shape: torch.Size
    range: SigmaRange


class PeekabooError(ValueError):
    """Written for the user: what in the workflow keeps objects from being placed."""


@dataclass(frozen=True)
class Patch:
    """One Peekaboo on a MODEL. encoded: the prompt, (1, tokens, channels). frames: what a batch of pictures is, one of
    host.models.frames.FRAME_AXES."""

    settings: PeekabooSettings
    objects: Objects
    encoded: Tensor
    how: How
    frames: str
    plans: dict[tuple[int, ...] | None, Plans] = field(default_factory=dict, compare=False)

    def outer_sample(self, executor, noise: Tensor, latent_image, sampler, sigmas: Tensor, *args: Any, **named: Any) -> Tensor:
        """Looks first whether the prompt is there."""
        guider = executor.class_obj
        if not any(self._is_ours(cond.get("cross_attn")) for cond in guider.conds.get("positive", ())):
            raise PeekabooError(
                "The sampler's positive prompt is not the one that Peekaboo knows the words of: connect Peekaboo's own positive output."
            )
        options = guider.model_options["transformer_options"]  # the host drops these after the run
        sampling = guider.model_patcher.get_model_object("model_sampling")
        options[KEY] = Run(noise.shape, self.settings.range.of_run(noise, sigmas, sampling))
        try:
            return executor(noise, latent_image, sampler, sigmas, *args, **named)
        finally:
            options.pop(KEY, None)
            self.plans.clear()  # they lie on the device

    def apply_model(self, executor, x: Tensor, timestep: Tensor, *args: Any, **named: Any) -> Tensor:
        base = executor.class_obj
        arguments = dict(zip(("c_concat", "c_crossattn", "control", "transformer_options"), args, strict=False)) | named
        options = arguments.pop("transformer_options")
        run: Run = options.get(KEY) or Run(x.shape, self.settings.range)
        if not run.range.contains(timestep, base.model_sampling):
            return executor(x, timestep, *args, **named)
        branches, text = options["cond_or_uncond"], arguments.get("c_crossattn")
        latents = len(x) // len(branches)
        told = [branch == CONDITIONAL and text is not None and self._is_ours(text[i * latents, None]) for i, branch in enumerate(branches)]
        frames = None if x.ndim == 5 else clip_length(base, latents, self.frames)
        kinds = tuple((branch == CONDITIONAL, ours) for branch, ours in zip(branches, told, strict=True))
        copies = text.shape[1] // self.encoded.shape[1] if text is not None and any(told) else 1
        rows = Rows(kinds, latents // (frames or 1), frames, tuple(x.shape), copies)

        def predict(options: dict[str, Any]) -> Tensor:
            return executor(x, timestep, transformer_options=options, **arguments)

        labels = self._labels(run.shape, options.get("context_window"), x, frames)
        plans = self.plans.setdefault(labels.frames if isinstance(labels, Windowed) else None, {})
        return labelled(predict, options, labels, rows, self.how, base.diffusion_model, plans)

    def _labels(self, whole: torch.Size, window: Any, x: Tensor, frames: int | None) -> "Objects | Windowed":
        """Of the part of the latents that x is."""
        if x.shape[-2:] != whole[-2:]:
            raise PeekabooError(
                "The positive prompt is for a part of the picture (an area or windows), and tracks are of the whole: use Conditioning "
                "Set Mask instead, no Grid Guidance, or connect Peekaboo's positive output as it is."
            )
        if window is None or (window.dim == 0 and frames is None) or frames == 1:
            return self.objects
        first = getattr(window, "causal_anchor_index", None)  # a frame that the host puts before those of the window
        anchor = [] if first is None or first < 0 else [first]
        return Windowed(self.objects, (*anchor, *window.index_list), window.total_frames)

    def _is_ours(self, encoded: Tensor | None) -> bool:
        """Also where the host repeats it, so that it is as long as another prompt."""
        own = self.encoded
        if encoded is None or encoded.shape[2] != own.shape[2] or encoded.shape[1] % own.shape[1]:
            return False
        return torch.equal(encoded[:1], own.to(encoded).repeat(1, encoded.shape[1] // own.shape[1], 1))


def attach(model: ModelPatcher, settings: PeekabooSettings, objects: Objects, encoded: Tensor, frames: str = "auto") -> ModelPatcher:
    """A clone of `model` with masked attention."""
    m = model.clone()
    if m.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        raise PeekabooError("This model has a Peekaboo already: give all tracks to one of them, by connecting them one after the other.")
    kinds = {kind for name, of in KINDS.items() if getattr(settings, name) for kind in of}
    where = [site for site in sites(families.family_of(model), model.model.diffusion_model) if site.kind in kinds]
    if settings.strength > 0 and not where:
        raise PeekabooError(
            "Nothing would be masked: of mask_text, mask_space and mask_time, switch on one whose attention this model has (mask_time is "
            "for models with layers over time alone)."
        )
    if settings.strength > 0:
        patch = Patch(settings, objects, encoded, How(where, settings.strength, settings.everywhere, settings.text, settings.space), frames)
        m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, patch.outer_sample)
        m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, patch.apply_model)
    return m
