"""FreeInit's mixing alone, as a NOISE, and pictures of what a filter does."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...core.freeinit import filters, levels, mixing
from ...host.models.frames import with_time
from ...recipes.freeinit.sampler import Passes
from ...recipes.freeinit.settings import FreeInitSettings
from ..common import checks
from .inputs import ALIASES, CATEGORY, mixing_inputs, settings_of
from .previews import spectra


@dataclass(frozen=True)
class MixedNoise:
    """One of the host's NOISE: the low frequencies of a clip under the noise of `inner`, and fresh ones."""

    inner: Any
    model: Any
    clip: Tensor
    settings: FreeInitSettings

    @property
    def seed(self) -> int:
        return self.inner.seed

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        noise = self.inner.generate_noise(input_latent)
        if noise.shape != self.clip.shape:
            raise checks.InputError(
                f"latent is {' x '.join(map(str, self.clip.shape))} where the noise is {' x '.join(map(str, noise.shape))}: connect a "
                "clip of the same size, length and batch as the one that will be drawn."
            )
        sampling: Any = self.model.get_model_object("model_sampling")  # as it is patched, which the loaded model is only later
        passes = Passes(self.settings, self.model.model, sampling, noise, torch.zeros_like(noise), None)
        if passes.flow:
            return passes.mixed(1, noise)
        clean = self.model.model.process_latent_in(self.clip.to(noise))
        return passes.mixed(1, mixing.noised(clean, noise, levels.highest_of(float(sampling.sigma_max))))


class NoiseReinit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerNoiseReinit",
            display_name="Noise Reinit",
            category=CATEGORY,
            description=(
                "FreeInit's mixing by itself: noise whose low frequencies are those of a finished clip under noise, for "
                "SamplerCustomAdvanced. FreeInit Sampler does this and the passes, too."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="The model that drew the clip: it knows how strong its noise is."),
                io.Noise.Input("noise", tooltip="The noise that the clip was drawn from."),
                io.Latent.Input("latent", tooltip="The finished clip."),
                *mixing_inputs(),
            ],
            outputs=[io.Noise.Output(tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, noise, latent, **options) -> io.NodeOutput:
        settings = settings_of(**options)
        if settings.frames == "auto":
            settings = replace(settings, frames="in the batch")
        return io.NodeOutput(MixedNoise(noise, model, checks.samples_of(latent), settings))


class FilterPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerFilterPreview",
            display_name="Filter Preview",
            category=CATEGORY,
            description=(
                "Shows what a FreeInit filter lets through of a clip: over space, over time, and how strong the clip, fresh noise and "
                "their mix are at each frequency."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Latent.Input("latent", tooltip="A clip, finished or empty: its size is what counts, and its frequencies are drawn."),
                *mixing_inputs(),
            ],
            outputs=[io.Image.Output(tooltip="The filter and the spectra.")],
        )

    @classmethod
    def execute(cls, latent, **options) -> io.NodeOutput:
        settings = settings_of(**options)
        samples = checks.samples_of(latent)
        volume = with_time(samples.float(), 1 if samples.ndim == 4 and settings.frames == "single pictures" else len(samples))[:1]
        shape = volume.shape[-3:]
        low = filters.low_pass((shape[0], shape[1], shape[2]), settings.kind, settings.spatial, settings.temporal, settings.order)
        fresh = torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
        mixed = mixing.mix(torch.randn(volume.shape, generator=torch.Generator().manual_seed(1)), fresh, low, settings.keep_variance)
        errors = (mixing.covariance_error(low, settings.keep_variance), mixing.covariance_error(low, False))
        return io.NodeOutput(spectra(low, {"clip": volume, "fresh noise": fresh, "mix of noises": mixed}, errors))


NODES = [NoiseReinit, FilterPreview]
