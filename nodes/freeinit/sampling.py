"""FreeInit (https://arxiv.org/abs/2312.07537): steadier clips by sampling again from a clip's own low frequencies."""

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ...recipes.freeinit.sampler import FreeInitSampler
from ..common import checks
from .inputs import ALIASES, CATEGORY, advanced_pass_inputs, pass_inputs, settings_of


class FreeInitSamplerNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerFreeInitSampler",
            display_name="FreeInit Sampler",
            category=CATEGORY,
            description=(
                "Makes any sampler draw a clip several times, each time from the low frequencies of the clip before and fresh noise, which "
                "steadies things over time. Goes between a sampler (such as KSamplerSelect) and SamplerCustom or SamplerCustomAdvanced."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Sampler.Input("sampler", tooltip="The sampler that draws each pass."),
                *pass_inputs(),
                *advanced_pass_inputs(),
            ],
            outputs=[io.Sampler.Output(tooltip="For SamplerCustom and its like.")],
        )

    @classmethod
    def execute(cls, sampler, **options) -> io.NodeOutput:
        return io.NodeOutput(FreeInitSampler(sampler, settings_of(**options)))


class FreeInitKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerFreeInitKSampler",
            display_name="FreeInit KSampler",
            category=CATEGORY,
            description=(
                "A KSampler that draws a clip several times, each time from the low frequencies of the clip before and fresh noise, which "
                "steadies things over time."
            ),
            search_aliases=ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A video model; one for pictures works, and draws other details in the same layout."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Of the first pass's noise, and "
                    "so of all fresh noise, too.",
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Of a whole pass; see 'early' and 'restart'."),
                io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="How closely the prompt is followed."),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="The way in which noise is taken away."),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="How noise levels are spread over the "
                "steps."),
                io.Conditioning.Input("positive", tooltip="What the clip shows."),
                io.Conditioning.Input("negative", tooltip="What it does not show."),
                io.Latent.Input("latent_image", tooltip="An empty latent, or a clip to begin from."),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Below 1 the first pass keeps the given "
                    "clip in part; each further one begins from the pass before.",
                ),
                *pass_inputs(),
                *advanced_pass_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The clip of the last pass."),
                io.Latent.Output(display_name="passes", tooltip="The clips of all passes, the first one first: what each pass changed."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise, **options
    ) -> io.NodeOutput:
        settings = settings_of(**options)
        checks.conditioning("positive", positive)
        checks.conditioning("negative", negative)
        samples = checks.latent(model, latent_image, "latent_image")
        kept: list[torch.Tensor] = []
        sampler = FreeInitSampler(comfy.samplers.sampler_object(sampler_name), settings, kept.append)
        sigmas = comfy.samplers.KSampler(model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options).sigmas
        noise = comfy.sample.prepare_noise(samples, seed, latent_image.get("batch_index"))
        drawn = comfy.sample.sample_custom(
            model, noise, cfg, sampler, sigmas, positive, negative, samples, latent_image.get("noise_mask"),
            latent_preview.prepare_callback(model, steps), not comfy.utils.PROGRESS_BAR_ENABLED, seed,
        )  # fmt: skip
        rest = {name: value for name, value in latent_image.items() if not name.startswith("downscale_ratio")}
        passes = torch.cat([model.model.process_latent_out(clean.float()).cpu() for clean in kept]) if kept else drawn
        return io.NodeOutput({**rest, "samples": drawn}, {"samples": passes.to(drawn)})


NODES = [FreeInitSamplerNode, FreeInitKSampler]
