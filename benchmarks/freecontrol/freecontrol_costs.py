"""What FreeControl costs in time and memory, beside what it is compared with. `python run.py bench freecontrol_costs`.

Times are CPU seconds of one thread, so that other work on the machine does not count, in pairs that are run in turn; a ratio
is the median over the pairs. Memory is that of live tensors; what a kernel needs for itself while it runs is not counted.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ...core.freecontrol.semantic_basis import Covariance, principal
from ...host.gradients import passes, preparation
from ...host.models import families
from ...host.models.taps import Point, Taps
from ...host.sampling import probe, steering
from ...playground import text
from ...playground.image import models
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.guide import GuideSettings
from ...recipes.freecontrol.steps import BasisSettings, ReadingSettings
from ..host.counters import LiveBytes
from ..host.guided_memory import guided_step_bytes
from ..host.random_models import FULL_SIZE, randomise
from ..playground import scenes

Conditioning = list
SD15 = {  # its layout, with 64 channels in place of 320
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1, "context_dim": 768,
    "use_spatial_transformer": True, "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None,
    "use_temporal_attention": False,
}  # fmt: skip
PICTURES, AT_ONCE, TOKENS, CHANNELS, COMPONENTS = 20, 10, 256, 1280, 64  # of a basis at SD 1.5's size, for each of its layers
LAYERS = 3


def measure(quick: bool) -> dict[str, float]:
    """Every figure of this file, by its name."""
    pairs = 1 if quick else 5
    with single_thread():
        sd15 = sd15_parts(24 if quick else 32)  # smaller ones take as long for their many calls as for their arithmetic
        return {
            "time_ratio": time_ratio(*playground_parts(2 if quick else 4), scenes.STEPS, pairs),
            "time_ratio_sd15": time_ratio(*sd15, scenes.STEPS, pairs),
            "five_row_over_ours": five_row_over_ours(*sd15, pairs),
            "basis_time_ratio": basis_time_ratio(pairs),
            "basis_memory_ratio": basis_memory_ratio(),
            "sdxl_step_gb": sdxl_step_gb(),
            "sdxl_step_gb_recomputed": sdxl_step_gb(recompute=True),
        }


@contextmanager
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def median_ratio(above: Callable[[], object], below: Callable[[], object], pairs: int) -> float:
    return statistics.median(seconds(above) / seconds(below) for _ in range(pairs))


def prompt(width: int, tokens: int, seed: int) -> Conditioning:
    return [[torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed)), {}]]


def playground_parts(pictures: int) -> tuple[ModelPatcher, Conditioning, Conditioning, Tensor]:
    """MODEL, positive, negative, empty latent."""
    if models.WEIGHTS.is_file():
        model = models.load()[0]
    else:
        model = models.build_model()
        randomise(model.model.diffusion_model)
    return model, prompt(text.WIDTH, 16, 1), prompt(text.WIDTH, 16, 2), torch.zeros(pictures, 4, 16, 16)


def sd15_parts(side: int) -> tuple[ModelPatcher, Conditioning, Conditioning, Tensor]:
    """MODEL, positive, negative, empty latent of one picture of `side` cells."""
    config = supported.SD15(dict(SD15))
    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({})
    randomise(base.diffusion_model)
    model = ModelPatcher(base, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    return model, prompt(768, 77, 1), prompt(768, 77, 2), torch.zeros(1, 4, side, side)


def steered(model: ModelPatcher, positive: Conditioning, negative: Conditioning, latent: Tensor, **settings: Any) -> ModelPatcher:
    """With a small basis and a random picture's structure, and otherwise as the nodes are at first."""
    basis = recipe.build_basis(model, [positive], negative, latent[:1], BasisSettings(seed_images=4, steps=2))
    picture = torch.randn(latent[:1].shape, generator=torch.Generator().manual_seed(0))
    structure = recipe.read_structure(model, basis, picture, positive, ReadingSettings(levels=2), draws=1)
    points = [p for p in families.structure_points(model, "all decoder") if p.name in basis.layers]
    return recipe.guide(model, structure, points, GuideSettings(**settings))


# Time of a run and of a step.


@torch.inference_mode()
def time_ratio(model: ModelPatcher, positive: Conditioning, negative: Conditioning, latent: Tensor, steps: int, pairs: int) -> float:
    """A guided run at the nodes' defaults over a plain one.

    The sibling is in it, whose steps are as many in a short run as in a long one: fewer steps give a larger ratio.
    """
    guided = steered(model, positive, negative, latent)
    noise = comfy.sample.prepare_noise(latent, 0)

    def run(model: ModelPatcher) -> Tensor:
        return comfy.sample.sample(
            model, noise, steps, scenes.CFG, scenes.SAMPLER, scenes.SCHEDULER, positive, negative, latent, disable_pbar=True, seed=0
        )

    return median_ratio(lambda: run(guided), lambda: run(model), pairs)


@torch.inference_mode()
def five_row_over_ours(model: ModelPatcher, positive: Conditioning, negative: Conditioning, latent: Tensor, pairs: int) -> float:
    """A guided step in the paper's scheme over one of ours, both with classifier-free guidance.

    Without the sibling's own few steps, which ours takes once a run: at 15 guided steps they are a sixth of them.
    """
    steps = 3
    guided = steered(model, positive, negative, latent, appearance=0.0)
    sigmas = probe.levels(model, steps + 1, GuideSettings.start, GuideSettings.end - 0.1)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sampler = comfy.samplers.sampler_object("euler")

    def ours() -> None:
        comfy.sample.sample_custom(guided, noise, scenes.CFG, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=0)

    guide = next(iter(guided.get_attachment(steering.KEY) or ()))
    energy = guide.start(model, latent, [], guide.range).energy
    preparation.rewrap_weights(model.model)

    def paper() -> None:
        x = noise * sigmas[0]
        for i in range(steps):
            x = five_row_step(model, guide.points, energy, x, float(sigmas[i]), float(sigmas[i + 1]), positive[0][0], negative[0][0])

    return median_ratio(paper, ours, pairs)


def five_row_step(
    model: ModelPatcher, points: Sequence[Point], energy: Callable[[dict[str, Tensor], float], Tensor], x: Tensor,
    sigma: float, following: float, positive: Tensor, negative: Tensor,
) -> Tensor:  # fmt: skip
    """One batch of the two unconditional rows, the condition, and the two conditional rows; a graph of all of them.

    Which picture is in which row does not matter to the time, so all are the same here. x: (1, 4, h, w).
    """
    base, conditional = model.model, 3
    with passes.differentiable(base.diffusion_model):
        rows = x.clone().repeat(5, 1, 1, 1).requires_grad_()
        words = torch.cat([negative, negative, positive, positive, positive])
        with Taps(base.diffusion_model, points, rows.shape) as taps:
            clean = base.apply_model(rows, rows.new_full((5,), sigma), c_crossattn=words, transformer_options={})
        features = {name: keys[conditional : conditional + 1].float() for name, keys in taps.features.items()}
        (gradient,) = torch.autograd.grad(energy(features, sigma).sum(), rows)
    clean = clean.detach()
    guided = clean[:1] + scenes.CFG * (clean[conditional : conditional + 1] - clean[:1]) - gradient[conditional : conditional + 1]
    return guided + (x - guided) * (following / sigma)


# Bases.


def keys_of_a_batch(seed: int) -> Tensor:
    """(AT_ONCE, TOKENS, CHANNELS); their variance falls with the rank of the component, roughly as 1 / rank."""
    generator = torch.Generator().manual_seed(seed)
    deviation = torch.arange(1, CHANNELS + 1) ** -0.5
    return torch.randn(AT_ONCE, TOKENS, CHANNELS, generator=generator) * deviation


def streamed(batches: list[Tensor], layers: int) -> list[tuple[Tensor, Tensor]]:
    covariances = [Covariance(CHANNELS, COMPONENTS) for _ in range(layers)]
    for keys in batches:
        for covariance in covariances:
            covariance.update(keys)
    return [principal(covariance.factor, COMPONENTS) for covariance in covariances]


def stacked(batches: list[Tensor], layers: int) -> list[Tensor]:
    """The rows of all batches are kept, as they must be where all are decomposed at once."""
    kept = [[] for _ in range(layers)]
    for keys in batches:
        for rows in kept:
            rows.append(keys.clone().flatten(0, 1))
    bases = []
    while kept:
        rows = torch.cat(kept.pop())
        bases.append(torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:COMPONENTS])
    return bases


def basis_time_ratio(pairs: int) -> float:
    """Of one layer; the others take as long again, on both sides."""
    batches = [keys_of_a_batch(i) for i in range(PICTURES // AT_ONCE)]
    return median_ratio(lambda: streamed(batches, 1), lambda: stacked(batches, 1), pairs)


def basis_memory_ratio() -> float:
    """In addition to the keys of one batch, which the model gives in both cases. Counted without running."""
    with FakeTensorMode():
        batches = [keys_of_a_batch(i) for i in range(PICTURES // AT_ONCE)]
        peaks = []
        for build in (streamed, stacked):
            with LiveBytes() as memory:
                build(batches, LAYERS)
            peaks.append(memory.peak)
    return peaks[0] / peaks[1]


# Memory.


def sdxl_step_gb(recompute: bool = False) -> float:
    """One guided step at 1024 x 1024 in fp16, in GB of 10^9 bytes."""
    return guided_step_bytes(FULL_SIZE["SDXL"], torch.float16, recompute) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    figures = measure(parser.parse_args().quick)
    sys.stderr.write("Ratios of single-threaded CPU time; memory of live tensors.\n")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
