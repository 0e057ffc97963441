"""Guides: energies of a model's features whose gradient steers a sampling run, on any MODEL and with any sampler.

One guided step is one ordinary step plus one backward pass. The host's prediction is split in two calls, first the
unconditional rows, then the conditional ones; the latter keep a graph up to the last layer that a guide reads, and the
guides' gradient is taken from that same pass. It changes the predicted clean latent, so every solver takes it as a part of
the model's prediction, and its effect does not depend on the number of steps.

All of it hangs on four of the host's wrapper lists, which any number of packs can share. Nothing outlives a run.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...core.freecontrol.feature_guidance import bounded_step
from ..gradients import passes, preparation
from ..models.taps import Point, Taps
from .sigma_range import SigmaRange

KEY = "freesteer_steering"
RATE = 3.0  # energy falls like sigma to this power where nothing limits the step: enough to reach its floor, not to shake there
REUSE = 0.2  # of the noise, in powers of e: so near to where a gradient was taken, its step serves again
MEMORY = 0.3  # of the noise, in powers of e: over this distance a step keeps 1/e of the one before
LOUDEST = 15.0  # noise to signal that counts: where the schedule of SD begins
Features = dict[str, Tensor]


class Session(Protocol):
    """One guide in one run; may keep what it learns on the way."""

    def energy(self, features: Features, sigma: float) -> Tensor:
        """Features (latents, tokens, channels) of the conditional rows to one energy a latent."""
        ...

    def look_ahead(self, predict: "Predict | None", x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        """Called once, at the first guided step: with what the model predicts from x and reads there without this guide, and
        a way to predict from elsewhere, if there is one."""
        ...

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        """The predicted clean latents (B, C, ...) after the guides' step, as they are or changed without a gradient."""
        ...


class Guide(Protocol):
    """strength: the most that the predicted clean latent is moved, in units of `longest`."""

    @property
    def points(self) -> Sequence[Point]: ...
    @property
    def range(self) -> SigmaRange: ...
    @property
    def strength(self) -> float: ...

    def start(self, model: ModelPatcher, latent: Tensor) -> Session:
        """latent: the sampler's noisy x, (B, C, ...), at the first guided step."""
        ...


Predict = Callable[[Tensor, float], tuple[Tensor, Features]]


@dataclass
class Reading:
    """What is wanted from the next conditional pass, and what came of it. positive: its conditions; the first ones if None."""

    shape: torch.Size
    points: Sequence[Point]
    energy: Callable[[Features], Tensor] | None = None
    positive: list | None = None
    passes: list[Features] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    split: bool = False
    open: bool = False

    @property
    def features(self) -> Features:
        """Mean over the passes of a regional prompt: (latents, tokens, channels); empty if none of them could be read."""
        latents = self.shape[0]
        return {
            name: torch.cat([one[name].float().unflatten(0, (-1, latents)) for one in self.passes]).mean(0)
            for name in (self.passes[0] if self.passes else ())
        }


@dataclass
class Run:
    guides: Sequence[Guide]
    sessions: dict[int, Session] = field(default_factory=dict)
    reading: Reading | None = None
    held: "Held | None" = None

    def corrected(self, denoised: Tensor, guides: Sequence[Guide], sigma: float) -> Tensor:
        for guide in guides:
            denoised = self.sessions[id(guide)].correct(denoised, sigma)
        return denoised


@dataclass(frozen=True)
class Held:
    """The last step, in units of its limit, and the noise (see `noise_to_signal`) at which it was taken."""

    guides: Sequence[Guide]
    noise: float
    step: Tensor

    def fits(self, guides: Sequence[Guide], shape: torch.Size) -> bool:
        return self.step.shape == shape and list(map(id, self.guides)) == list(map(id, guides))

    def distance(self, noise: float) -> float:
        """In powers of e."""
        return abs(math.log(max(noise, 1e-9) / max(self.noise, 1e-9)))


def attach(model: ModelPatcher, guide: Guide) -> ModelPatcher:
    """A clone of `model` with one more guide."""
    m = readable(preparation.prepare(model))
    m.set_attachments(KEY, (*(m.get_attachment(KEY) or ()), guide))
    return m


def readable(model: ModelPatcher) -> ModelPatcher:
    """A clone of `model` that can be read during sampling (see probe.py)."""
    m = model.clone()
    if m.get_attachment(KEY) is None:
        m.set_attachments(KEY, ())
        m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _outer_sample)
        m.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, _predict_noise)
        m.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _calc_cond_batch)
        m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _apply_model)  # not every diffusion model has wrappers of its own
    return m


def _outer_sample(executor, *args, **kwargs):
    guider = executor.class_obj
    guides = guider.model_patcher.get_attachment(KEY)
    guider.model_options["transformer_options"][KEY] = Run(guides)  # the host drops these options after the run
    try:
        return executor(*args, **kwargs)
    finally:
        guider.model_options["transformer_options"].pop(KEY, None)


def _predict_noise(executor, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: int | None = None):
    run: Run | None = model_options.get("transformer_options", {}).get(KEY)
    guider = executor.class_obj
    base = guider.inner_model
    sigma = float(timestep.max())
    active = [g for g in (run.guides if run else ()) if g.strength > 0 and g.range.contains(sigma, base.model_sampling)]
    if run is None or not active:
        return executor(x, timestep, model_options, seed)

    def read(x: Tensor, sigma: float, reading: Reading) -> Tensor:
        run.reading = reading
        try:
            return executor(x, torch.full_like(timestep, sigma), model_options, seed)
        finally:
            run.reading = None

    points = list({p.name: p for g in active for p in g.points}.values())
    positive = guider.conds.get("positive")

    def predict(x: Tensor, sigma: float) -> tuple[Tensor, Features]:
        reading = Reading(x.shape, points, positive=positive)
        return read(x, sigma, reading), reading.features

    strongest = max(g.strength for g in active)
    noise = noise_to_signal(sigma, base.model_sampling)
    limit = strongest * longest(noise)
    held = run.held if run.held is not None and run.held.fits(active, x.shape) else None
    if held is not None and held.distance(noise) < REUSE:
        return run.corrected(executor(x, timestep, model_options, seed) - limit * held.step, active, sigma)
    fresh = [g for g in active if id(g) not in run.sessions]
    run.sessions.update({id(g): g.start(guider.model_patcher, x) for g in fresh})
    shares = [(run.sessions[id(g)], g.strength / strongest) for g in active]
    reading = Reading(x.shape, points, lambda features: torch.stack([w * s.energy(features, sigma) for s, w in shares]).sum(0), positive)
    denoised = read(x, sigma, reading)
    if not reading.energies:
        raise preparation.NoGradientError(
            "Steering found no prompt that covers the whole picture. Regional prompts work with masks (Conditioning Set Mask), "
            "not with areas (Conditioning Set Area) and not with context windows."
        )
    energy = torch.stack(reading.energies).mean(0)
    gradient = torch.stack(reading.gradients).mean(0)
    for guide in fresh:
        run.sessions[id(guide)].look_ahead(None if scheduled(guider.conds) else predict, x, sigma, denoised, reading.features)
    step = bounded_step(gradient, energy, RATE, limit).to(denoised) / limit
    if held is not None:
        step = torch.lerp(step, held.step, math.exp(-held.distance(noise) / MEMORY))
    run.held = Held(active, noise, step)
    return run.corrected(denoised - limit * step, active, sigma)


def scheduled(conds: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether a hook has keyframes: it would take a look ahead for the run itself, and never go back."""
    hooks = (hook for group in conds.values() for cond in group for hook in getattr(cond.get("hooks"), "hooks", ()))
    return any(hook.hook_keyframe.keyframes for hook in hooks)


def noise_to_signal(sigma: float, model_sampling: Any) -> float:
    """How much stronger the noise is than the clean latent; flow models count it from 0 to 1, as noise / (noise + signal)."""
    flow = isinstance(model_sampling, comfy.model_sampling.CONST)
    return min(sigma / max(1 - sigma, 1e-3), LOUDEST) if flow else sigma


def longest(noise: float) -> float:
    """How far a step of strength 1 may move the predicted clean latent, RMS, in units of the latent's own deviation.

    As far as the noise reaches while there is little of it. Above, where it hides the picture, like its square root: things
    find their places there, and have to be moved against the noise (measured in `bench freecontrol_front`).
    """
    return noise / (1 + noise**2) ** 0.25


def _calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    run: Run | None = model_options.get("transformer_options", {}).get(KEY)
    reading = run.reading if run else None
    if reading is None or reading.split:  # split: a later call in this step is another pack's own
        return executor(model, conds, x_in, timestep, model_options)
    place = next((i for i, cond in enumerate(conds) if cond is not None and cond is reading.positive), 0)  # dual CFG has it last
    if conds[place] is None:
        return executor(model, conds, x_in, timestep, model_options)
    reading.split = True
    others = [None if i == place else cond for i, cond in enumerate(conds)]
    predicted = executor(model, others, x_in, timestep, model_options) if any(c is not None for c in others) else None
    reading.open = True
    try:
        steered = executor(model, [cond if i == place else None for i, cond in enumerate(conds)], x_in, timestep, model_options)
    finally:
        reading.open = False
    return steered if predicted is None else [*predicted[:place], steered[place], *predicted[place + 1 :]]


def _apply_model(executor, x: Tensor, timestep: Tensor, *args, **kwargs):
    options = next((a for a in (*args, *kwargs.values()) if isinstance(a, dict) and KEY in a), None)
    reading = options[KEY].reading if options else None
    if reading is None or not reading.open or x.shape[2:] != reading.shape[2:]:
        return executor(x, timestep, *args, **kwargs)
    chunks = len(x) // reading.shape[0]
    diffusion_model = executor.class_obj.diffusion_model
    energy = reading.energy
    if energy is None:
        with Taps(diffusion_model, reading.points, x.shape) as taps:
            output = executor(x, timestep, *args, **kwargs)
        reading.passes.append(taps.features)
        return output

    def energies(features: Features) -> Tensor:
        parts = [energy({k: f.unflatten(0, (chunks, -1))[i] for k, f in features.items()}) for i in range(chunks)]
        return torch.cat(parts)

    def run(x: Tensor) -> Tensor:
        inputs = passes.normal((timestep, *args))  # fresh lists each time: the host takes a ControlNet's answers off them
        return executor(x, *inputs, **passes.normal(kwargs))

    taps = Taps(diffusion_model, reading.points, x.shape)
    output, gradient, values = passes.forward_with_gradient(run, x, taps, energies, diffusion_model)
    reading.gradients += list(gradient.unflatten(0, (chunks, -1)))
    reading.energies += list(values.unflatten(0, (chunks, -1)))
    reading.passes.append({name: feature.detach() for name, feature in taps.features.items()})
    return output
