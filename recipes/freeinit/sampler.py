"""FreeInit (arXiv 2312.07537) as one of the host's SAMPLERs, around any other: several passes, each from the noise that the one before
leaves in the low frequencies, with fresh noise in the others.

A model that predicts noise (or v) begins each pass at the end of its schedule, as in the paper. Where the schedule begins lower than
that (image to image) or `restart` is lower, and with flow matching, a pass starts again at a lower level of noise
(core/freeinit/levels.py).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...core.freeinit import filters, levels, mixing
from ...host.models.frames import clip_length, with_time, without_time
from .settings import FreeInitSettings

Callback = Callable[[int, Tensor, Tensor, int], None]


class FreeInitError(ValueError):
    """Written for the user: why passes cannot follow each other here."""


@dataclass(frozen=True)
class FreeInitSampler(comfy.samplers.Sampler):
    """`inner` once plainly and then `settings.extra` times more. keep: is given the clean latent that each pass ends with."""

    inner: Any
    settings: FreeInitSettings
    keep: Callable[[Tensor], None] = lambda clean: None

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        if self.settings.extra == 0:
            return _run(self.inner, model_wrap, sigmas, extra_args, callback, noise, latent, denoise_mask, disable_pbar)
        model = model_wrap.inner_model
        passes = Passes(self.settings, model, model.model_sampling, noise, latent, denoise_mask)
        schedules = passes.schedules(sigmas)
        total = sum(len(part) - 1 for part in schedules)
        begun, samples, clean = 0, noise, latent
        for index, part in enumerate(schedules):
            begin = (noise, latent) if index == 0 else passes.begin(index, clean, float(part[0]))
            watch = _Watch(callback, begun, total)
            run = _run if index == 0 else _run_afresh
            samples = run(self.inner, model_wrap, part, extra_args, watch, *begin, denoise_mask, disable_pbar)
            clean = samples if watch.denoised is None else watch.denoised
            self.keep(clean)
            begun += len(part) - 1
        return samples


@dataclass
class _Watch:
    """A sampler's callback: counts its steps among those of all passes, and keeps the last estimate of the clean latent."""

    callback: Callback | None
    begun: int
    total: int
    denoised: Tensor | None = None

    def __call__(self, step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        self.denoised = denoised
        if self.callback is not None:
            self.callback(self.begun + step, denoised, x, self.total)


def _run(inner, guider, sigmas, extra_args, *rest) -> Tensor:
    options = comfy.model_patcher.create_model_options_clone(extra_args["model_options"])
    options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
    return inner.sample(guider, sigmas, {**extra_args, "model_options": options}, *rest)


def _run_afresh(inner, guider, sigmas, extra_args, callback, noise, latent, mask, disable_pbar) -> Tensor:
    """A pass for which other packs' patches begin anew, as for a run of its own: caches of one pass must not serve the next."""

    def run(noise, latent, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None, latent_shapes=None):
        arguments = {**extra_args, "model_options": guider.model_options}  # as the wrappers have left them
        return _run(inner, guider, sigmas, arguments, callback, noise, latent, denoise_mask, disable_pbar)

    guider.model_patcher.pre_run()
    wrappers = get_all_wrappers(WrappersMP.OUTER_SAMPLE, guider.model_options, is_model_options=True)
    executor = WrapperExecutor.new_class_executor(run, guider, wrappers)
    seed = extra_args.get("seed")
    return executor.execute(noise, latent, inner, sigmas, mask, callback, disable_pbar, seed, latent_shapes=[noise.shape])


@dataclass(frozen=True)
class Passes:
    """How each pass after the first begins. model: a BaseModel of the host; sampling: its noise schedule, as it is patched. noise,
    latent: what the run was given (B, C, H, W) or (B, C, T, H, W); mask: 1 where it may paint, of their form."""

    settings: FreeInitSettings
    model: Any
    sampling: Any
    noise: Tensor
    latent: Tensor
    mask: Tensor | None

    def __post_init__(self) -> None:
        if self.noise.ndim not in (4, 5):
            raise FreeInitError("FreeInit works on latents of pictures or videos, not on several kinds in one (such as video with sound).")
        if not self.noise.any():
            raise FreeInitError("FreeInit mixes noise, and this run has none: switch add_noise on, or use the plain sampler.")

    @property
    def flow(self) -> bool:
        return isinstance(self.sampling, comfy.model_sampling.CONST)

    @property
    def clip(self) -> int:
        """Pictures of the batch that are one clip."""
        return 1 if self.noise.ndim == 5 else clip_length(self.model, len(self.noise), self.settings.frames)

    @property
    def highest(self) -> float:
        """The sigma that no further pass begins above."""
        level = self.settings.restart
        if self.flow:
            return levels.MATCHED if level is None else level
        return levels.highest_of(float(self.sampling.sigma_max)) if level is None else levels.sigma_of(level)

    def from_the_end(self, sigma: float) -> bool:
        """Whether a schedule from `sigma` begins with what a model that predicts noise takes for pure noise."""
        return not self.flow and sigma > float(self.sampling.sigma_max) * (1 - 1e-4)

    def schedules(self, sigmas: Tensor) -> list[Tensor]:
        """Of each pass, (steps + 1,)."""
        if len(sigmas) < 2:
            return [sigmas]
        again = levels.restarted(sigmas, self.highest) if float(sigmas[0]) > self.highest else sigmas
        if len(again) < 2:
            raise FreeInitError(
                f"FreeInit's further passes would start at sigma {self.highest:.3g}, and this part of the schedule ends above that, at "
                f"{float(sigmas[-1]):.3g}: raise restart, or put FreeInit on the sampler of the part that follows."
            )
        whole = [sigmas, *[again] * self.settings.extra]
        return [*(levels.first_steps(part, self.settings.early) for part in whole[:-1]), whole[-1]]

    def filter(self, index: int) -> Tensor:
        """(T, H, W) of pass `index`, which is 1 or more."""
        s = self.settings
        spatial, temporal = (
            levels.per_pass(first, first if last is None else last, s.extra)[index - 1]
            for first, last in ((s.spatial, s.spatial_last), (s.temporal, s.temporal_last))
        )
        shape = with_time(self.noise, self.clip).shape[-3:]
        return filters.low_pass((shape[0], shape[1], shape[2]), s.kind, spatial, temporal, s.order)

    def begin(self, index: int, clean: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Noise and latent that pass `index` starts from, given the clean latent of the one before."""
        carried, latent = self.noise, clean
        if self.from_the_end(sigma):
            known = clean if self.mask is None else clean * self.mask  # what is given must not spread into what is painted
            carried, latent = mixing.noised(known, self.noise, sigma), self.latent
        mixed = self.mixed(index, carried)
        return (mixed if self.mask is None else torch.where(self.mask > 0, mixed, self.noise)), latent

    def mixed(self, index: int, carried: Tensor) -> Tensor:
        """The low frequencies of noise, under the filter of pass `index`, and fresh high ones."""
        fresh = fresh_noise(with_time(self.noise, self.clip), index)
        mixed = mixing.mix(with_time(carried, self.clip), fresh, self.filter(index), self.settings.keep_variance)
        return without_time(mixed, self.noise.ndim)


def fresh_noise(noise: Tensor, index: int) -> Tensor:
    """New noise of the form (B, C, T, H, W), the same whenever the run's noise of a clip and the pass's number are the same: so it
    follows the user's seed and batch index, whatever else is in the batch."""
    made = []
    for clip in noise:
        digest = hashlib.sha256(clip.float().cpu().contiguous().numpy().tobytes() + bytes([index])).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        made.append(torch.randn(clip.shape, generator=generator))
    return torch.stack(made).to(noise)
