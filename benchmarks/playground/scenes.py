"""What the FreeControl benchmarks draw and how they judge it: held-out one-object scenes, and the referee."""

from dataclasses import dataclass

import comfy.sample
import torch
from torch import Tensor

from ...core.measures.masks import overlap
from ...playground.referee import referee
from ...playground.world import conditions, world
from ...playground.world.captions import prompt

HELD_OUT = 3 * 10**9
STEPS, CFG, SAMPLER, SCHEDULER = 25, 4.0, "dpmpp_2m", "normal"


@dataclass
class Task:
    """B prompts with the masks that their objects should fill: (B, 128, 128)."""

    names: list[tuple[str, str, str]]
    masks: Tensor
    seed: int

    @property
    def prompts(self) -> list[str]:
        return [prompt(*name) for name in self.names]


def task(count: int, seed: int = 0) -> Task:
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    scenes = world.sample_scenes(count, generator, counts=(1, 0, 0))
    masks = world.render(scenes)[1][:, 0]
    return Task([(*scenes.name(i), scenes.ground(i)) for i in range(count)], masks, seed)


def condition_images(job: Task, kind: str) -> Tensor:
    """(B, H, W, 3), as the host has its IMAGE."""
    return conditions.condition(kind, job.masks, torch.Generator().manual_seed(HELD_OUT + job.seed)).movedim(1, -1)


def wanted_masks(job: Task, kind: str) -> Tensor:
    """(B, H, W): what the condition shows."""
    return conditions.shown(kind, job.masks, torch.Generator().manual_seed(HELD_OUT + job.seed))


def encode(clip, texts: list[str]):
    """One CONDITIONING with a prompt for each picture of the batch."""
    return [[torch.cat([clip.encode_from_tokens(clip.tokenize(t)) for t in texts]), {}]]


def sample(model, clip, texts: list[str], seed: int, steps: int = STEPS, sampler: str = SAMPLER, scheduler: str = SCHEDULER) -> Tensor:
    latent = torch.zeros(len(texts), 4, 16, 16)
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = encode(clip, texts), encode(clip, [""])
    return comfy.sample.sample(model, noise, steps, CFG, sampler, scheduler, positive, negative, latent, disable_pbar=True, seed=seed)


def decode(vae, latents: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1."""
    return torch.cat([vae.decode(part).movedim(-1, 1) for part in latents.split(32)])


@dataclass
class Verdict:
    """Means over the pictures: overlap with the condition, leak into the background, prompt kept (colour and background)."""

    overlap: float
    leak: float
    prompt_right: float


def judge(network: referee.Segmenter, images: Tensor, siblings: Tensor, job: Task, masks: Tensor) -> Verdict:
    """The prompted object is that of its name or else the largest of its colour: whether its outline is right, the overlap tells.

    Leak: |difference of the mean colour outside of both objects| between a picture and its unsteered sibling."""
    overlaps, leaks, right = [], [], []
    for i, (seen, plain) in enumerate(zip(referee.look(network, images), referee.look(network, siblings), strict=True)):
        colour, shape, background = job.names[i]
        found = seen.find(colour, shape) or next((o for o in seen.objects if o.colour == colour), None)
        wanted = masks[i] > 0.5
        overlaps.append(float(overlap(torch.from_numpy(found.mask), wanted)) if found else 0.0)
        means = [ground(image, picture) for image, picture in ((images[i], seen), (siblings[i], plain))]
        leaks.append(float((means[0] - means[1]).abs().mean()))
        right.append(seen.background == background and any(o.colour == colour for o in seen.objects))
    return Verdict(*(sum(values) / len(values) for values in (overlaps, leaks, right)))


def ground(image: Tensor, picture: referee.Picture) -> Tensor:
    """Mean colour (3,) of what the referee sees as background."""
    covered = torch.zeros(image.shape[-2:], dtype=torch.bool)
    for o in picture.objects:
        covered |= torch.from_numpy(o.mask)
    return image[:, ~covered].mean(1) if (~covered).any() else image.mean((1, 2))
