"""How well FreeControl works on a model, by four conditions that the pack draws itself, steered and not, and what it costs there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.freecontrol import line_art
from ...core.freecontrol.semantic_basis import Basis
from ...core.measures.separation import separation
from ...host.models import families
from ...playground.world import conditions, world
from . import steps as recipe
from .guide import GuideSettings
from .steps import ReadingSettings

PLACES = 4  # seed of where the shapes lie


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn; the host's names."""

    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str


@dataclass(frozen=True)
class Words:
    """Encoded prompts: what is drawn, what is not, and what the conditions show."""

    positive: list
    negative: list
    subject: list


@dataclass(frozen=True)
class Row:
    """One condition: pictures (H, W, 3) of it, drawn without and with it, and their overlaps with what it shows, (H, W) bool."""

    kind: str
    condition: Tensor
    wanted: Tensor
    plain: Tensor
    steered: Tensor
    plain_overlap: float
    overlap: float


@dataclass(frozen=True)
class Costs:
    """Of one picture. seconds: of sampling; bytes: most that was held on a CUDA device, None elsewhere."""

    seconds: float
    bytes: int | None


@dataclass(frozen=True)
class Tested:
    rows: list[Row]
    plain: Costs
    steered: Costs


def drawn_conditions(shape: str) -> tuple[Tensor, Tensor]:
    """A picture of each kind, (4, 128, 128, 3), and what it shows, (4, 128, 128)."""
    generator = torch.Generator().manual_seed(PLACES)
    scenes = world.sample_scenes(len(conditions.KINDS), generator, (1.0, 0.0, 0.0))
    scenes.shape[:] = world.SHAPES.index(shape)
    masks = world.render(scenes)[1][:, 0]
    shown = [conditions.condition(kind, mask[None], generator) for kind, mask in zip(conditions.KINDS, masks, strict=True)]
    return torch.cat(shown).movedim(1, -1), masks


def run(
    model: ModelPatcher, vae: Any, basis: Basis, latent: Tensor, words: Words, shape: str, sampling: Sampling,
    callback: Callable | None = None,
) -> Tested:  # fmt: skip
    """latent: an empty one, of one picture. shape: of the playground, that the conditions show."""
    pictures, masks = drawn_conditions(shape)
    cells = (latent.shape[-2], latent.shape[-1])
    points = [p for p in families.structure_points(model, "all decoder") if p.name in basis.layers]
    draw = Drawing(vae, latent, words, sampling, callback)
    draw(model, 0, steps=1)  # loads what has to be loaded, which no time below should hold
    rows, costs = [], {"plain": [], "steered": []}
    for i, kind in enumerate(conditions.KINDS):
        structure = recipe.read_condition(model, basis, vae, line_art.fill(pictures[i : i + 1]), cells, words.subject, ReadingSettings())
        steered = recipe.guide(model, structure, points, GuideSettings())
        (plain, before), (made, cost) = draw(model, i), draw(steered, i)
        costs["plain"].append(before)
        costs["steered"].append(cost)
        wanted = F.interpolate(masks[None, i : i + 1], plain.shape[:2], mode="bilinear")[0] > 0.5
        overlaps = separation(torch.stack([plain, made]), wanted.expand(2, -1, -1)).tolist()
        rows.append(Row(kind, pictures[i], wanted[0], plain, made, *overlaps))
    return Tested(rows, *(mean(each) for each in costs.values()))


def mean(costs: list[Costs]) -> Costs:
    """The mean time, and the most memory."""
    held = [cost.bytes for cost in costs if cost.bytes is not None]
    return Costs(sum(cost.seconds for cost in costs) / len(costs), max(held) if held else None)


@dataclass(frozen=True)
class Drawing:
    """Draws one picture, (H, W, 3), and tells what its sampling cost."""

    vae: Any
    latent: Tensor
    words: Words
    sampling: Sampling
    callback: Callable | None

    def __call__(self, model: ModelPatcher, number: int, steps: int | None = None) -> tuple[Tensor, Costs]:
        how = replace(self.sampling, seed=self.sampling.seed + number, steps=steps or self.sampling.steps)
        noise: Any = comfy.sample.prepare_noise(self.latent, how.seed)
        cuda = torch.device(model.load_device).type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(model.load_device)
        started = time.perf_counter()
        latent = comfy.sample.sample(
            model, noise, how.steps, how.cfg, how.sampler, how.scheduler, self.words.positive, self.words.negative,
            self.latent, seed=how.seed, callback=self.callback, disable_pbar=True,
        )  # fmt: skip
        if cuda:
            torch.cuda.synchronize(model.load_device)
        costs = Costs(time.perf_counter() - started, torch.cuda.max_memory_allocated(model.load_device) if cuda else None)
        picture = self.vae.decode(latent)
        return picture.flatten(0, -4)[0].float().cpu(), costs
