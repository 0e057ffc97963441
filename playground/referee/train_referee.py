"""Trains the referee on augmented renders, and measures it on held-out ones.

Half of them went through the autoencoder: models draw nothing sharper, and who knows only sharp ones takes every sixth star for something
else. A second referee goes on from there with frames of clips: turned, growing and shrinking things look otherwise than those of pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import comfy.sd
import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ...core.measures.masks import overlap
from ...training.files import save_whole
from ...training.loop import Run, Watch
from ...training.settings import Settings
from ..world import motion, world
from ..world.world import Scenes
from .referee import Picture, Segmenter, load, look

BATCH = 32
COUNTS = (0.2, 0.35, 0.45)  # odds of one, two and three objects: the small ones of full scenes are the hard ones
STORED = 2048  # pictures that went through the autoencoder
OBJECT_WEIGHT = 4.0  # of the pixels of objects
HELD_OUT = 2 * 10**9  # seeds from here on are never trained on
Draw = Callable[[int, torch.Generator], Scenes]


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

    def __getitem__(self, index: Tensor) -> "Named":
        return Named(*(getattr(self, f.name)[index] for f in fields(self)))


def joined(parts: Sequence[Named]) -> Named:
    return Named(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Named)))


def named(scenes: Scenes) -> Named:
    image, masks = world.render(scenes)
    return Named(image, *targets(scenes, masks), scenes.background)


@torch.no_grad()
def decoded(vae: comfy.sd.VAE, images: Tensor) -> Tensor:
    """What the autoencoder makes of pictures (B, 3, H, W)."""
    return vae.decode(vae.encode(images.movedim(1, -1))).movedim(-1, 1).clone()


def pictures(count: int, generator: torch.Generator) -> Scenes:
    return world.sample_scenes(count, generator, COUNTS)


def frames(count: int, generator: torch.Generator) -> Scenes:
    """A frame each of so many clips, but every fourth time pictures after all."""
    if torch.rand((), generator=generator) < 0.25:
        return pictures(count, generator)
    clips = motion.sample_clips(count, generator, counts=(0.4, 0.6))
    return clips.scenes[torch.arange(count) * clips.frames + torch.randint(clips.frames, (count,), generator=generator)]


class Batches:
    """The batch of each step: half fresh renders of `scenes`, half of a store that went through the autoencoder; three quarters of both
    augmented."""

    def __init__(self, scenes: Draw, vae: comfy.sd.VAE, size: int, seed: int, file: Path) -> None:
        """file: where the store is kept."""
        self.scenes = scenes
        if not file.exists():
            save_whole([vars(self._stored(vae, seed + i)) for i in range(-(-size // BATCH))], file)
        self.store = joined([Named(**part) for part in torch.load(file, weights_only=True)])

    def _stored(self, vae: comfy.sd.VAE, seed: int) -> Named:
        sharp = named(self.scenes(BATCH, torch.Generator().manual_seed(seed)))
        return replace(sharp, image=decoded(vae, sharp.image).half())

    def __call__(self, step: int, generator: torch.Generator) -> Named:
        chosen = torch.randint(len(self.store.ground), (BATCH // 2,), generator=generator)
        batch = joined([named(self.scenes(BATCH // 2, generator)), self.store[chosen]])
        batch.image[BATCH // 8 : -BATCH // 8] = augment(batch.image[BATCH // 8 : -BATCH // 8], generator)
        return batch


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


def train(vae: comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """Trains, or goes on; gives the averaged weights."""
    torch.manual_seed(seed)
    return _train(Segmenter(), pictures, vae, folder, Settings(steps, learning_rate=2e-3, seed=seed, ema=0.99, bfloat16=True), watch)


def train_on_clips(vae: comfy.sd.VAE, folder: Path, steps: int, seed: int, watch: Watch) -> dict[str, Tensor]:
    """The same for the referee of clips, from the weights of the other."""
    network = load().requires_grad_(True).train()
    return _train(network, frames, vae, folder, Settings(steps, learning_rate=1e-3, seed=seed, ema=0.99, bfloat16=True), watch)


def _train(network: Segmenter, scenes: Draw, vae: comfy.sd.VAE, folder: Path, settings: Settings, watch: Watch) -> dict[str, Tensor]:
    batches = Batches(scenes, vae, min(STORED, BATCH * settings.steps), settings.seed, folder / "decoded.pt")
    return Run(network, settings, folder).go(batches, partial(naming_loss, network), watch)


def score(seen: Picture, scenes: Scenes, masks: Tensor, i: int) -> tuple[bool, list[bool]]:
    """Whether the ground is right, and for each drawn object whether one of its name is seen in its place."""
    right = []
    for slot in range(int(scenes.count[i])):
        name = scenes.name(i, slot)
        truth = masks[i, slot] > 0.5
        right.append(any((o.colour, o.shape) == name and overlap(torch.from_numpy(o.mask), truth) > 0.6 for o in seen.objects))
    return seen.background == scenes.ground(i), right


def measure(network: Segmenter, scenes_count: int = 1000, augmented: bool = False, vae: comfy.sd.VAE | None = None) -> dict[str, float]:
    """Accuracy per background and per object (colour, shape and place all right) on held-out renders, or on what `vae` makes of them."""
    generator = torch.Generator().manual_seed(HELD_OUT)
    scenes = world.sample_scenes(scenes_count, generator)
    image, masks = world.render(scenes)
    if augmented:
        image = augment(image, generator)
    if vae is not None:
        image = torch.cat([decoded(vae, part) for part in image.split(BATCH)])
    results = [score(seen, scenes, masks, i) for i, seen in enumerate(look(network, image))]
    objects = [r for _, right in results for r in right]
    return {
        "ground": sum(ground for ground, _ in results) / len(results),
        "objects": sum(objects) / len(objects),
        "scenes": sum(ground and all(right) for ground, right in results) / len(results),
    }
