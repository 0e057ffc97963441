"""Drawn scenes that move: clips of one or two objects with a motion each, over a ground that stands or drifts.

A clip is F scenes of the drawn world, one a frame, so it is drawn by the same code as a picture, with masks as exact.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .textures import BACKGROUNDS, TEXTURE_SIZE
from .world import COLOURS, MAX_OBJECTS, SHAPES, SIZE, Scenes, render

FRAMES = 13
OBJECTS = 2  # at most
MOTIONS = ("left", "right", "up", "down", "circle", "grow", "shrink", "spin", "still")
DRIFTS = ("still", "left", "right", "up", "down")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x right, y down
ROUND = ("ball", "ring")  # shapes that nobody sees spin
CANDIDATES = 32  # placings, of which one is taken
MARGIN = 0.9  # of a radius: as near as a centre comes to the rim
RADIUS = {1: (17.0, 28.0), 2: (14.0, 21.0)}  # pixels, by the number of objects
TRAVEL = (34.0, 56.0)  # pixels from the first frame to the last
ORBIT = (12.0, 20.0)  # radius of a circle, pixels
GROWTH = (1.5, 1.9)  # ratio of the largest radius to the smallest
SPIN = (0.5, 1.0)  # turns
SPEED = 3  # pixels a frame that a ground drifts at most


@dataclass
class Clips:
    """B clips of F frames. `scenes` are the B * F frames, those of a clip one after the other; `motion` (B, 2) are indices of
    MOTIONS (entries from a clip's count on are unused), `drift` (B) of DRIFTS."""

    scenes: Scenes
    motion: Tensor
    drift: Tensor
    frames: int

    def __len__(self) -> int:
        return len(self.drift)

    def __getitem__(self, part: slice) -> "Clips":
        start, stop, _ = part.indices(len(self))
        scenes = self.scenes[start * self.frames : stop * self.frames]
        return Clips(scenes, self.motion[start:stop], self.drift[start:stop], self.frames)

    @property
    def count(self) -> Tensor:
        """(B) objects of each clip."""
        return self.scenes.count[:: self.frames]


def sample_clips(n: int, generator: torch.Generator, frames: int = FRAMES, counts: tuple[float, float] = (0.6, 0.4)) -> Clips:
    """Draws n random clips; `counts` are the odds of one and two objects. Objects stay in the picture and clear of each other."""

    def uniform(low: float | Tensor, high: float | Tensor, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator)

    def choice(options: int, *size: int) -> Tensor:
        return torch.randint(options, size, generator=generator)

    count = 1 + torch.multinomial(torch.tensor(counts, dtype=torch.float), n, replacement=True, generator=generator)
    shape, motion = choice(len(SHAPES), n, OBJECTS), choice(len(MOTIONS), n, OBJECTS)
    unseen = torch.isin(shape, torch.tensor([SHAPES.index(name) for name in ROUND])) & (motion == MOTIONS.index("spin"))
    motion = torch.where(unseen, MOTIONS.index("circle"), motion)

    low, high = torch.tensor([RADIUS[1], RADIUS[2]])[count - 1].unbind(1)
    radius = uniform(low[:, None], high[:, None], n, OBJECTS)
    path = _paths(motion, uniform(*TRAVEL, n, OBJECTS), uniform(*ORBIT, n, OBJECTS), uniform(0, 2 * math.pi, n, OBJECTS), frames)
    size = radius[..., None] * _growth(motion, uniform(*GROWTH, n, OBJECTS), frames)
    turns = uniform(*SPIN, n, OBJECTS) * (1 - 2 * choice(2, n, OBJECTS))
    turned = torch.linspace(0, 2 * math.pi, frames) * (turns * (motion == MOTIONS.index("spin")))[..., None]
    angle = uniform(-0.4, 0.4, n, OBJECTS)[..., None] + turned
    start = _placed(path, size, count, torch.rand(n, CANDIDATES, OBJECTS, 2, generator=generator))
    place = start[:, :, None] + path

    drift = choice(len(DRIFTS), n)
    drift = torch.where(choice(2, n) == 0, 0, drift)  # more than half of the grounds stand
    way = torch.tensor([WAYS.get(name, (0, 0)) for name in DRIFTS])[drift] * (1 + choice(SPEED, n))[:, None]
    # the ground moves against the window that it is seen through
    shift = -way[:, None] * torch.arange(frames)[:, None]
    room = (frames - 1) * SPEED
    corner = room + choice(TEXTURE_SIZE - SIZE - 2 * room, n, 2)[:, None] + shift

    def still(values: Tensor) -> Tensor:
        return values.repeat_interleave(frames, 0)

    def moving(values: Tensor) -> Tensor:
        """(B, objects, F) as (B * F, slots)."""
        unused = values[:, :1].expand(-1, MAX_OBJECTS - OBJECTS, -1)
        return torch.cat([values, unused], 1).movedim(1, 2).reshape(n * frames, MAX_OBJECTS)

    scenes = Scenes(
        count=still(count),
        background=still(choice(len(BACKGROUNDS), n)),
        shape=moving(shape[..., None].expand(-1, -1, frames)),
        colour=moving(choice(len(COLOURS), n, OBJECTS)[..., None].expand(-1, -1, frames)),
        x=moving(place[..., 0]),
        y=moving(place[..., 1]),
        radius=moving(size),
        angle=moving(angle),
        texture_x=corner[..., 0].flatten(),
        texture_y=corner[..., 1].flatten(),
    )
    return Clips(scenes, motion, drift, frames)


def _paths(motion: Tensor, travel: Tensor, orbit: Tensor, phase: Tensor, frames: int) -> Tensor:
    """(B, objects, F, 2) pixels from where an object begins, x before y; of those that stay in place, zeros."""
    time = torch.linspace(0, 1, frames)
    ways = torch.tensor([WAYS.get(name, (0, 0)) for name in MOTIONS], dtype=torch.float)[motion]
    straight = ways[:, :, None] * (travel[..., None] * time)[..., None]
    turn = phase[..., None] + 2 * math.pi * time
    circle = torch.stack([turn.cos() - turn[..., :1].cos(), turn.sin() - turn[..., :1].sin()], -1) * orbit[..., None, None]
    return torch.where((motion == MOTIONS.index("circle"))[..., None, None], circle, straight)


def _growth(motion: Tensor, ratio: Tensor, frames: int) -> Tensor:
    """(B, objects, F) radii by the largest of the clip: even steps, up or down."""
    time = torch.linspace(0, 1, frames)
    rising = 1 / ratio[..., None] + (1 - 1 / ratio[..., None]) * time
    grows, shrinks = ((motion == MOTIONS.index(name))[..., None] for name in ("grow", "shrink"))
    return torch.where(grows, rising, torch.where(shrinks, rising.flip(-1), 1.0))


def _placed(path: Tensor, size: Tensor, count: Tensor, at: Tensor) -> Tensor:
    """(B, objects, 2) where each object begins, of candidates `at` (B, K, objects, 2) in 0..1 of the room that its way leaves."""
    margin = MARGIN * size[..., None]
    low, high = (margin - path).amax(2), (SIZE - margin - path).amin(2)
    starts = low[:, None] + at * (high - low)[:, None]  # (B, K, objects, 2)
    way = starts[:, :, :, None] + path[:, None]
    distance = (way[:, :, 0] - way[:, :, 1]).norm(dim=-1) - (size[:, 0] + size[:, 1])[:, None]
    gap = distance.amin(-1).masked_fill(count[:, None] == 1, 1.0)
    # the first that will do: random, as the candidates are; or else the least bad
    best = torch.where(gap > 0, 1e3, gap).argmax(1)
    return starts[torch.arange(len(starts)), best]


BACKWARDS = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


def reversed_names(clips: Clips) -> Clips:
    """The same clips with the motions that they have when they are played backwards; the scenes stay as they are."""
    motion, drift = (torch.tensor([names.index(BACKWARDS.get(name, name)) for name in names]) for names in (MOTIONS, DRIFTS))
    return replace(clips, motion=motion[clips.motion], drift=drift[clips.drift])


def standing_still(clips: Clips) -> Clips:
    """The same clips as they are when each stands at its first frame; the scenes stay as they are."""
    return replace(clips, motion=torch.full_like(clips.motion, MOTIONS.index("still")), drift=torch.zeros_like(clips.drift))


def render_clips(clips: Clips) -> tuple[Tensor, Tensor]:
    """Frames (B, F, 3, 128, 128) in 0..1, and masks (B, F, 2, 128, 128) in 0..1 of the objects, as `world.render` draws them."""
    pictures, masks = render(clips.scenes)
    shape = (len(clips), clips.frames)
    return pictures.unflatten(0, shape), masks.unflatten(0, shape)[:, :, :OBJECTS]


def boxes(masks: Tensor) -> Tensor:
    """Left, top, right, bottom (..., 4) in pixels of masks (..., H, W): the smallest box of the pixels that are more than half
    covered; the right and lower edge lie one beyond the last pixel. Zeros of an empty mask."""
    solid = masks > 0.5
    edges = []
    for line in (solid.any(-2), solid.any(-1)):  # columns, rows
        length = line.shape[-1]
        first = line.byte().argmax(-1)
        last = length - line.flip(-1).byte().argmax(-1)
        edges += [first, torch.where(line.any(-1), last, 0)]
    left, right, top, bottom = edges
    return torch.stack([left, top, right, bottom], -1)
