"""Separate-and-Enhance trained into a LoRA, which needs nothing more at sampling."""

from dataclasses import asdict, replace

from comfy_api.latest import io

from ...host.models import families
from ...recipes.composition.lessons import lessons
from ...recipes.composition.train import TARGETS, LoraSettings, train
from ..common import checks
from ..common.training import audience, lora_output, lora_outputs, run_folder
from .inputs import ALIASES, CATEGORY, layers_input, weight, weight_inputs

DEFAULTS = LoraSettings()


class TrainSeparateEnhance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerTrainSeparateEnhance",
            display_name="Train Separate & Enhance",
            category=CATEGORY,
            description=(
                "Trains a LoRA that keeps the objects of a prompt apart, from prompts alone: no pictures are needed. It is used as any "
                "LoRA is, and costs nothing while sampling. Interrupted, it goes on from where it was when it is queued again."
            ),
            search_aliases=[*ALIASES, "train lora", "composition lora"],
            inputs=[
                io.Model.Input("model", tooltip="The model to train for; it is not changed itself."),
                io.Clip.Input("clip", tooltip="Encodes the prompts."),
                io.Latent.Input("latent", tooltip="An empty latent of the size to train at; smaller is quicker."),
                io.String.Input(
                    "concepts", multiline=True, default="cat\ndog\nred car\nblue vase", tooltip="What shall be kept apart: one a line. "
                    "Single things are put together in pairs and threes; a line that names several is a prompt as it stands.",
                ),
                io.Int.Input(
                    "steps", default=DEFAULTS.steps, min=1, max=100000, tooltip="Steps of training. More: objects keep apart more surely, "
                    "and the model's look may change. A run that was trained longer already is refused: the seed makes another.",
                ),
                io.Int.Input("rank", default=DEFAULTS.rank, min=1, max=128, tooltip="Size of the LoRA."),
                io.Float.Input(
                    "learning_rate", default=DEFAULTS.learning_rate, min=1e-7, max=1.0, step=1e-7, tooltip="How far each step goes. Lower "
                    "it if pictures fall apart.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**31 - 1, tooltip="Of all that is drawn at random."),
                io.Float.Input(
                    "keep", default=DEFAULTS.keep, min=0.0, max=100.0, step=0.05, advanced=True, tooltip="How much it counts that a prompt "
                    "of one thing is drawn as before.",
                ),
                *weight_inputs(),
                io.Float.Input(
                    "own_latents", default=DEFAULTS.own, min=0.0, max=1.0, step=0.05, advanced=True, tooltip="The share of steps that look "
                    "at what the model draws on its way; the others look at plain noise, as in the paper.",
                ),
                io.Int.Input(
                    "pictures", default=DEFAULTS.pictures, min=1, max=64, advanced=True, tooltip="Noises of each step and prompt. More: "
                    "steadier, and slower.",
                ),
                io.Combo.Input(
                    "targets", options=list(TARGETS), default=DEFAULTS.targets, advanced=True, tooltip="What of the attention to words is "
                    "trained. Keys: where the model looks, and nothing else. Flux, SD 3, Hunyuan and Lumina have all three in one.",
                ),
                layers_input(),
            ],
            outputs=lora_outputs(),
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        clip,
        latent,
        concepts,
        steps,
        rank,
        learning_rate,
        seed,
        keep,
        separate,
        enhance,
        gather,
        own_latents,
        pictures,
        targets,
        layers,
    ) -> io.NodeOutput:
        checks.clip(clip)
        checks.choice("targets", targets, TARGETS)
        checks.choice("layers", layers, families.CHOICES)
        samples = checks.latent(model, latent)
        settings = LoraSettings(
            checks.whole("steps", steps, 1), checks.whole("rank", rank, 1, 128), checks.number("learning_rate", learning_rate, 1e-7, 1),
            checks.whole("pictures", pictures, 1, 64), separate=weight("separate", separate), enhance=weight("enhance", enhance),
            gather=weight("gather", gather), keep=checks.number("keep", keep, 0, 100),
            own=checks.number("own_latents", own_latents, 0, 1), targets=targets, layers=layers, seed=checks.whole("seed", seed, 0),
        )  # fmt: skip
        lines = checks.prompts("concepts", concepts)
        learnt = lessons(clip, lines, settings.seed)
        checks.fits("clip", model, learnt[0].positive)
        encoded = learnt[0].positive[0][0].float()
        told = (lines, tuple(samples.shape[1:]), asdict(replace(settings, steps=0)), f"{encoded.std():.3g}")
        folder = run_folder("composition", model, told)
        return lora_output(train(model, learnt, samples[:1], settings, folder, audience(model, settings.steps)))


NODES = [TrainSeparateEnhance]
