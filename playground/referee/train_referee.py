"""Trains the referee on augmented renders, and measures it on held-out ones.

A second one goes on from there with frames of clips: turned, growing and shrinking things look otherwise than those of pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ...core.measures.masks import overlap
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..world import motion, world
from ..world.world import Scenes
from .referee import Picture, Segmenter, load, look

BATCH = 32
COUNTS = (0.2, 0.35, 0.45)  # odds of one, two and three objects: the small ones of full scenes are the hard ones
OBJECT_WEIGHT = 4.0  # of the pixels of objects
HELD_OUT = 2 * 10**9  # seeds from here on are never trained on


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur (up to 1.4 pixels), colour gain and shift, and noise, each for most of the pictures."""

    def uniform(low: float, high: float, channels: int) -> Tensor:
        return low + (high - low) * torch.rand(len(image), channels, 1, 1, generator=generator)

    sigma = uniform(0.05, 1.4, 1)[:, 0, 0].expand(-1, 2)
    image = gaussian_blur2d(image, 7, sigma)
    image = image * uniform(0.88, 1.12, 3) * uniform(0.9, 1.1, 1) + uniform(-0.05, 0.05, 3)
    return (image + uniform(0, 0.06, 1) * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def targets(scenes: Scenes, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and colour classes (B, H/2, W/2), 0 where there is no object."""
    pooled = F.avg_pool2d(masks, 2)
    covered, slot = pooled.max(1)
    shape, colour = (torch.gather(c, 1, slot.flatten(1)).view_as(slot) + 1 for c in (scenes.shape, scenes.colour))
    solid = covered > 0.5
    return shape * solid, colour * solid


@dataclass
class Named:
    """Pictures (B, 3, H, W) with the classes of what they show: shape and colour maps (B, H/2, W/2), grounds (B)."""

    image: Tensor
    shape: Tensor
    colour: Tensor
    ground: Tensor


def named_pictures(generator: torch.Generator) -> Named:
    """The batch of one step."""
    return named(world.sample_scenes(BATCH, generator, COUNTS), generator)


def named_frames(generator: torch.Generator) -> Named:
    """The batch of one step: a frame each of so many clips, of which every fourth is a picture after all."""
    clips = motion.sample_clips(BATCH, generator, counts=(0.4, 0.6))
    frames = torch.arange(BATCH) * clips.frames + torch.randint(clips.frames, (BATCH,), generator=generator)
    return named_pictures(generator) if torch.rand((), generator=generator) < 0.25 else named(clips.scenes[frames], generator)


def named(scenes: Scenes, generator: torch.Generator) -> Named:
    """Renders, three quarters of them augmented."""
    image, masks = world.render(scenes)
    image[: BATCH * 3 // 4] = augment(image[: BATCH * 3 // 4], generator)
    return Named(image, *targets(scenes, masks), scenes.background)


def naming_loss(network: Segmenter, batch: Named) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropies of the shape and colour of every pixel, and of the ground."""
    shape, colour, ground = (logits.float() for logits in network(batch.image))
    weight = 1 + (OBJECT_WEIGHT - 1) * (batch.shape > 0)
    shape_loss, colour_loss = (
        (weight * F.cross_entropy(logits, truth, reduction="none")).mean()
        for logits, truth in ((shape, batch.shape), (colour, batch.colour))
    )
    ground_loss = F.cross_entropy(ground, batch.ground)
    return shape_loss + colour_loss + 0.1 * ground_loss, {"ground": ground_loss}


def train(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights."""
    torch.manual_seed(seed)
    return _train(Segmenter(), named_pictures, folder, Settings(steps, learning_rate=2e-3, seed=seed, ema=0.99, bfloat16=True), watch)


def train_on_clips(folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """The same for the referee of clips, from the weights of the other."""
    network = load().requires_grad_(True).train()
    return _train(network, named_frames, folder, Settings(steps, learning_rate=1e-3, seed=seed, ema=0.99, bfloat16=True), watch)


def _train(
    network: Segmenter, data: Callable[[torch.Generator], Named], folder: Path, settings: Settings, watch: Watch
) -> dict[str, Tensor]:
    return Run(network, settings, folder).go(lambda step, generator: data(generator), partial(naming_loss, network), watch)


def score(seen: Picture, scenes: Scenes, masks: Tensor, i: int) -> tuple[bool, list[bool]]:
    """Whether the ground is right, and for each drawn object whether one of its name is seen in its place."""
    right = []
    for slot in range(int(scenes.count[i])):
        name = scenes.name(i, slot)
        truth = masks[i, slot] > 0.5
        right.append(any((o.colour, o.shape) == name and overlap(torch.from_numpy(o.mask), truth) > 0.6 for o in seen.objects))
    return seen.background == scenes.ground(i), right


def measure(network: Segmenter, scenes_count: int = 1000, augmented: bool = False) -> dict[str, float]:
    """Accuracy per background and per object (colour, shape and place all right), and mean overlap, on held-out renders."""
    generator = torch.Generator().manual_seed(HELD_OUT)
    scenes = world.sample_scenes(scenes_count, generator)
    image, masks = world.render(scenes)
    if augmented:
        image = augment(image, generator)
    results = [score(seen, scenes, masks, i) for i, seen in enumerate(look(network, image))]
    objects = [r for _, right in results for r in right]
    return {
        "ground": sum(ground for ground, _ in results) / len(results),
        "objects": sum(objects) / len(objects),
        "scenes": sum(ground and all(right) for ground, right in results) / len(results),
    }
