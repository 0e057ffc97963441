"""What the FreeControl benchmarks draw and how they judge it: held-out one-object scenes, and the referee."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.sample
import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import box_blur
from torch import Tensor

from ...core.measures.masks import overlap
from ...playground.referee import referee
from ...playground.world import conditions, world
from ...playground.world.captions import prompt

HELD_OUT = 3 * 10**9
STEPS, CFG, SAMPLER, SCHEDULER = 25, 4.0, "dpmpp_2m", "normal"
CELLS = (16, 16)  # of a latent, (h, w)
Controlled = Callable[[list, list], tuple[list, list]]
FAR = 17  # pixels, the window in which nothing of an object lies where a ground is looked at


@dataclass
class Task:
    """B prompts with the masks that their objects should fill: (B, H, W)."""

    names: list[tuple[str, str, str]]
    masks: Tensor
    seed: int

    @property
    def prompts(self) -> list[str]:
        return [prompt(*name) for name in self.names]


def drawn(count: int, seed: int = 0, objects: int = 1) -> world.Scenes:
    odds = (float(objects == 1), float(objects == 2), float(objects == 3))
    return world.sample_scenes(count, torch.Generator().manual_seed(HELD_OUT + seed), counts=odds)


def task(count: int, seed: int = 0) -> Task:
    scenes = drawn(count, seed)
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


def sample(
    model, clip, texts: list[str], seed: int, steps: int = STEPS, sampler: str = SAMPLER, scheduler: str = SCHEDULER,
    cells: tuple[int, int] = CELLS, cfg: float = CFG, controlled: Controlled | None = None,
) -> Tensor:  # fmt: skip
    """controlled: puts ControlNets on positive and negative."""
    latent = torch.zeros(len(texts), 4, *cells)
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = encode(clip, texts), encode(clip, [""])
    if controlled is not None:
        positive, negative = controlled(positive, negative)
    return comfy.sample.sample(model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, disable_pbar=True, seed=seed)


def decode(vae, latents: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1."""
    return torch.cat([vae.decode(part).movedim(-1, 1) for part in latents.split(32)])


@dataclass
class Verdict:
    """Over the pictures: overlap with the condition and leak into the background (means), prompt kept (colour and background) and
    pictures with an overlap below .5 (shares), and the ground's texture over that of the siblings (median)."""

    overlap: float
    leak: float
    prompt_right: float
    behind: float
    texture: float


def judge(network: referee.Segmenter, images: Tensor, siblings: Tensor, job: Task, masks: Tensor) -> Verdict:
    """The prompted object is that of its name or else the largest of its colour: whether its outline is right, the overlap tells.

    Leak: |difference of the mean colour outside of both objects| between a picture and its unsteered sibling. Texture: what a blur over
    9 x 9 pixels takes away (RMS), far from the objects of either."""
    overlaps, leaks, right, textures = [], [], [], []
    for i, (seen, plain) in enumerate(zip(referee.look(network, images), referee.look(network, siblings), strict=True)):
        colour, shape, background = job.names[i]
        found = seen.find(colour, shape) or next((o for o in seen.objects if o.colour == colour), None)
        wanted = masks[i] > 0.5
        overlaps.append(float(overlap(torch.from_numpy(found.mask), wanted)) if found else 0.0)
        means = [ground(image, picture) for image, picture in ((images[i], seen), (siblings[i], plain))]
        leaks.append(float((means[0] - means[1]).abs().mean()))
        right.append(seen.background == background and any(o.colour == colour for o in seen.objects))
        far = far_from(torch.stack([masks[i], *(covered(picture, wanted.shape).float() for picture in (seen, plain))]))
        if far.any():
            textures.append(float(fine(images[i])[:, far].square().mean().sqrt() / fine(siblings[i])[:, far].square().mean().sqrt()))
    count = len(overlaps)
    behind = sum(value < 0.5 for value in overlaps) / count
    return Verdict(sum(overlaps) / count, sum(leaks) / count, sum(right) / count, behind, float(np.median(textures)))


def covered(picture: referee.Picture, size: Sequence[int]) -> Tensor:
    """(H, W) bool: where the referee sees objects."""
    found = torch.zeros(*size, dtype=torch.bool)
    for o in picture.objects:
        found |= torch.from_numpy(o.mask)
    return found


def far_from(masks: Tensor) -> Tensor:
    """(N, H, W) masks of objects to (H, W) bool: where none is near."""
    return F.max_pool2d(masks.amax(0)[None], FAR, 1, FAR // 2)[0] < 0.5


def fine(image: Tensor) -> Tensor:
    """What a blur takes away of (3, H, W)."""
    return image - box_blur(image[None], (9, 9))[0]


def ground(image: Tensor, picture: referee.Picture) -> Tensor:
    """Mean colour (3,) of what the referee sees as background."""
    free = ~covered(picture, image.shape[-2:])
    return image[:, free].mean(1) if free.any() else image.mean((1, 2))
