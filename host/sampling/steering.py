"""Guides: energies of a model's features whose gradient steers a sampling run, on any MODEL and with any sampler.

One guided step is one ordinary step plus one backward pass. The host's prediction is split in two calls, first the
unconditional rows, then the conditional ones; the latter keep a graph up to the last layer that a guide reads, and the
guides' gradient is taken from that same pass. It changes the predicted clean latent, so every solver takes it as a part of
the model's prediction, and its effect does not depend on the number of steps.

All of it hangs on five of the host's wrapper lists, which any number of packs can share. Nothing outlives a run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...core.bounded_step import bounded_step
from ..gradients import memory, preparation
from ..models.taps import Readable
from . import reading
from .guides import Guide, Session
from .noise import longest, noise_to_signal, signal_in_x
from .reading import Features, Readout, Request
from .run import Held, Run

KEY = "freesteer_steering"
RATE = 3.0  # energy falls like sigma to this power where nothing limits the step: enough to reach its floor, not to shake there
REUSE = 0.2  # of the noise, in powers of e: so near to where a gradient was taken, its step serves again
MEMORY = 0.3  # of the noise, in powers of e: over this distance a step keeps 1/e of the one before
FAR = 0.2  # of the noise, in powers of e: beyond, it keeps no less, for solvers of several steps amplify what changes at once
SHORT = 0.22  # of the noise, in powers of e: a sampler's step that is longer is guided in several
MOST = 5  # of these
NEXT = 2.2  # of the noise at the sampler's next step: about so much can still be made a picture of
CLEAN = 0.05  # as noise: below, a sampler's step counts as no longer
ENDING = 2  # steps of the sampler, over which a guide ends that fades


def attach(model: ModelPatcher, guide: Guide) -> ModelPatcher:
    """A clone of `model` with one more guide."""
    m = preparation.prepare(model)
    if m.get_attachment(KEY) is None:
        m = reading.readable(m)
        m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _outer_sample)
    m.set_attachments(KEY, (*(m.get_attachment(KEY) or ()), guide))
    return m


def without_guides(model: ModelPatcher) -> ModelPatcher:
    """A clone of `model` that no guide steers."""
    m = model.clone()
    m.set_attachments(KEY, ())
    return m


def _outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    options = guider.model_options["transformer_options"]  # the host drops these after the run
    guides, sampling = guider.model_patcher.get_attachment(KEY), guider.model_patcher.get_model_object("model_sampling")
    ranges = {id(guide): guide.range.of_run(noise, sigmas, sampling) for guide in guides}
    options[KEY] = Run(guides, sigmas.tolist(), ranges)
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, _predict_noise, options)  # the last: caches of others do not see where it looks
    try:
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        options.pop(KEY, None)
        options["wrappers"][WrappersMP.PREDICT_NOISE].pop(KEY, None)


def _predict_noise(executor, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: int | None = None):
    run: Run | None = model_options.get("transformer_options", {}).get(KEY)
    sigma = float(timestep.max())
    guides = run.active(sigma, executor.class_obj.inner_model.model_sampling) if run else []
    if run is None or not guides:
        return executor(x, timestep, model_options, seed)

    def evaluate(x: Tensor, sigma: float, request: Request | None = None) -> tuple[Tensor, Readout]:
        options, readout = reading.asking(model_options, request)
        return executor(x, torch.full_like(timestep, sigma), options, seed), readout

    return Step(run, guides, executor.class_obj, evaluate, sigma).take(x)


@dataclass(frozen=True)
class Step:
    """One prediction of a run in which guides are active. evaluate: the plain prediction at a noise level, and what a request reads."""

    run: Run
    guides: Sequence[Guide]
    guider: Any
    evaluate: Callable[..., tuple[Tensor, Readout]]
    sigma: float

    def strength(self, guide: Guide) -> float:
        return guide.strength * (self._faded(guide) if guide.fades else 1.0)

    @property
    def strongest(self) -> float:
        return max(self.strength(guide) for guide in self.guides)

    @property
    def noise(self) -> float:
        return noise_to_signal(self.sigma, self.guider.inner_model.model_sampling)

    @property
    def signal(self) -> float:
        return signal_in_x(self.sigma, self.guider.inner_model.model_sampling)

    @property
    def limit(self) -> float:
        """How far the predicted clean latent may be moved, RMS: no farther than the noise, or what comes next can put right."""
        return self._limit(self.strongest)

    def _limit(self, strength: float) -> float:
        return max(strength * longest(min(self.noise, NEXT * self._next_noise())), min(strength, 1.0) * longest(self.noise))

    @property
    def points(self) -> tuple[Readable, ...]:
        return tuple({point.name: point for guide in self.guides for point in guide.points}.values())

    def take(self, x: Tensor) -> Tensor:
        """The predicted clean latent (B, C, ...), moved the guides' way."""
        held = self.run.held if self.run.held is not None and self.run.held.fits(self.guides, x.shape) else None
        if held is not None and held.distance(self.noise) < REUSE:
            denoised, _ = self.evaluate(x, self.sigma)
            return self.run.correct(denoised - self.limit * held.step, self.guides, self.sigma)
        fresh = self.run.start(self.guides, self.guider.model_patcher, x, self.guider.conds.get("positive") or [])
        denoised, step = self._refined(x, fresh)
        if step is None:
            return self._unread(denoised, fresh, held)
        if held is not None:
            step = torch.lerp(step, held.step, math.exp(-min(held.distance(self.noise), FAR) / MEMORY))
        self.run.held = Held(self.guides, self.noise, step)
        return self.run.correct(self._moved(x, denoised, step), self.guides, self.sigma)

    def _moved(self, x: Tensor, denoised: Tensor, step: Tensor) -> Tensor:
        """The farther the sampler goes in its next step, the less comes after to make a picture of what was moved: so much of it is what
        the model itself predicts from where it was moved to."""
        moved = denoised - self.limit * step
        if self._by_distance() == 1:
            return moved
        predicted, _ = self.evaluate(x - self.signal * self.limit * step, self.sigma)
        return torch.lerp(moved, predicted, 1 - self._next_noise() / self.noise)

    def _unread(self, denoised: Tensor, fresh: Sequence[Session], held: Held | None) -> Tensor:
        """What comes of a prediction at which the model was not asked about the prompt: the last step serves, if there is one."""
        if held is None:
            self.run.forget(fresh)
            return denoised
        return self.run.correct(denoised - self.limit * held.step, self.guides, self.sigma)

    def _refined(self, x: Tensor, fresh: Sequence[Session]) -> tuple[Tensor, Tensor | None]:
        """The clean latent that is predicted from x without any step, and the step in units of the limit: a sum of several small ones; None
        if there was nothing to read."""
        count = max(guide.refinements or self._by_distance() for guide in self.guides)
        signal = self.signal
        start, moved = None, torch.zeros_like(x)
        for _ in range(count):
            denoised, readout = self.evaluate(x - signal * self.limit * moved, self.sigma, self._request(x, energy=True))
            if not readout.asked:
                return (denoised, None) if start is None else (start, moved)
            if start is None:
                start = denoised
                self._look_ahead(fresh, x, denoised, readout)
            moved = moved + self._step(readout).to(denoised) / count
        assert start is not None
        return start, moved

    def _lower(self) -> list[float]:
        """Noise levels that the sampler has still before it."""
        return [sigma for sigma in self.run.sigmas if 0 < sigma < self.sigma * (1 - 1e-4)]

    def _faded(self, guide: Guide) -> float:
        lower, sampling = self._lower(), self.guider.inner_model.model_sampling
        guided = sum(self.run.ranges[id(guide)].contains(sigma, sampling) for sigma in lower)
        return 1.0 if guided == len(lower) else min((guided + 1) / (ENDING + 1), 1.0)

    def _next_noise(self) -> float:
        """At the sampler's next step; 0 if this is the last."""
        return noise_to_signal(max(self._lower(), default=0.0), self.guider.inner_model.model_sampling)

    def _by_distance(self) -> int:
        """How many short steps the sampler's next one is worth."""
        following = max(self._next_noise(), CLEAN)
        return min(max(round(math.log(max(self.noise / following, 1.0)) / SHORT), 1), MOST)

    def _request(self, x: Tensor, energy: bool) -> Request:
        recompute = False
        if energy:
            if self.points not in self.run.recompute:
                self.run.recompute[self.points] = memory.must_recompute(self.guider.model_patcher, self.points, x.shape)
            recompute = self.run.recompute[self.points]
        return Request(x.shape, self.points, self._energy if energy else None, self.guider.conds.get("positive"), recompute)

    def _energy(self, features: Features) -> Tensor:
        """Of each guide, (guides, latents)."""
        return torch.stack([self.run.sessions[id(guide)].energy(features, self.sigma) for guide in self.guides])

    def _step(self, readout: Readout) -> Tensor:
        """In units of the limit: the sum of what each guide would do alone, however large its energy is beside the others'."""
        if not readout.energies:
            raise preparation.NoGradientError(
                "Steering found no prompt that covers the whole picture. Regional prompts work with masks (Conditioning Set Mask), "
                "not with areas (Conditioning Set Area), context windows or Grid Guidance in a picture of several windows."
            )
        energies, gradients = torch.stack(readout.energies).mean(0), torch.stack(readout.gradients).mean(0)
        each = zip(self.guides, energies, self.signal * gradients, strict=True)
        steps = [bounded_step(gradient, energy, RATE, self._limit(self.strength(guide))) for guide, energy, gradient in each]
        return torch.stack(steps).sum(0) / self.limit

    def _look_ahead(self, fresh: Sequence[Session], x: Tensor, denoised: Tensor, readout: Readout) -> None:
        def predict(x: Tensor, sigma: float) -> tuple[Tensor, Features]:
            clean, seen = self.evaluate(x, sigma, self._request(x, energy=False))
            return clean, seen.features

        for session in fresh:
            session.look_ahead(None if scheduled(self.guider.conds) else predict, x, self.sigma, denoised, readout.features)


def scheduled(conds: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether a hook has keyframes: it would take a look ahead for the run itself, and never go back."""
    hooks = (hook for group in conds.values() for cond in group for hook in getattr(cond.get("hooks"), "hooks", ()))
    return any(hook.hook_keyframe.keyframes for hook in hooks)
