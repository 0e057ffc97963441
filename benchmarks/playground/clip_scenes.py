"""What the video benchmarks draw and how they judge it: held-out clips of one or two moving objects, on both video models."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...playground.referee import clips as referee_clips
from ...playground.referee import referee
from ...playground.video_dit import models as video_dit
from ...playground.video_unet import models as video_unet
from ...playground.world import motion
from ...playground.world.captions import PLACES, article
from ...playground.world.motion import FRAMES, MOTIONS
from ...playground.world.motion_captions import GROUNDS, VERBS
from ...training.precision import mixed_precision

HELD_OUT = 4 * 10**9
STEPS, CFG = 25, 4.0
TOGETHER = 8  # clips in a batch


@dataclass(frozen=True)
class Kind:
    """A video model, and how it is best sampled. frames_first: whether the frames of a clip are a batch."""

    models: ModuleType
    sampler: str
    scheduler: str
    frames_first: bool


KINDS = {"dit": Kind(video_dit, "dpmpp_2m", "simple", False), "unet": Kind(video_unet, "dpmpp_2m", "normal", True)}


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    motion: str


@dataclass(frozen=True)
class Prompt:
    text: str
    things: tuple[Thing, ...]
    ground: str
    drift: str


def prompts(count: int, seed: int = 0, objects: tuple[float, float] = (0.6, 0.4), still_ground: bool = False) -> list[Prompt]:
    """The plainest captions of held-out clips; `objects` are the odds of one and two; still_ground: the ground rests, and
    they say so, or the transformer lets it drift."""
    drawn = motion.sample_clips(count, torch.Generator().manual_seed(HELD_OUT + seed), counts=objects)
    found = []
    for i in range(count):
        first = i * drawn.frames
        things = tuple(Thing(*drawn.scenes.name(first, slot), MOTIONS[int(drawn.motion[i, slot])]) for slot in range(int(drawn.count[i])))
        ground = drawn.scenes.ground(first)
        drift = "still" if still_ground else motion.DRIFTS[int(drawn.drift[i])]
        said = " and ".join(f"{article(t.colour)} {t.colour} {t.shape} {VERBS[t.motion][0]}" for t in things)
        said_of_ground = GROUNDS[drift][-1 if still_ground else 0]
        found.append(Prompt(f"{said} {PLACES[ground]} {said_of_ground}".strip(), things, ground, drift))
    return found


@dataclass
class Player:
    """A video model, loaded."""

    kind: Kind
    model: Any
    clip: Any
    vae: Any

    @classmethod
    def load(cls, name: str) -> "Player":
        return cls(KINDS[name], *KINDS[name].models.load())

    def sigmas(self, steps: int = STEPS) -> Tensor:
        kind = self.kind
        return comfy.samplers.KSampler(self.model, steps, torch.device("cpu"), kind.sampler, kind.scheduler, 1.0, {}).sigmas

    def noise(self, clips: int, seed: int) -> Tensor:
        """(clips, 4, F, 16, 16), or the frames of all clips as a batch."""
        shape = (clips * FRAMES, 4, 16, 16) if self.kind.frames_first else (clips, 4, FRAMES, 16, 16)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def conditioning(self, texts: list[str]) -> list:
        encoded = torch.cat([self.clip.encode_from_tokens(self.clip.tokenize(text)) for text in texts])
        return [[encoded.repeat_interleave(FRAMES, 0) if self.kind.frames_first and len(texts) > 1 else encoded, {}]]

    @torch.inference_mode()
    def draw(
        self, texts: list[str], seed: int, steps: int = STEPS, model: Any = None, around: Callable[[Any], Any] = lambda sampler: sampler
    ) -> Tensor:
        """Latents of clips, by the stock samplers, in mixed precision where that is faster. model: patched, in place of its own;
        around: makes a sampler of the stock one."""
        made = []
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            noise = self.noise(len(part), seed + start)
            sampler = around(comfy.samplers.sampler_object(self.kind.sampler))
            positive, negative = self.conditioning(part), self.conditioning([""])
            with mixed_precision("cpu"):
                drawn = comfy.sample.sample_custom(
                    model or self.model, noise, CFG, sampler, self.sigmas(steps), positive, negative, torch.zeros_like(noise),
                    disable_pbar=True, seed=seed + start,
                )  # fmt: skip
            made.append(drawn)
        return torch.cat(made)

    @torch.inference_mode()
    def pictures(self, latents: Tensor) -> Tensor:
        """(clips, F, 3, H, W) in 0..1."""
        frames = latents if self.kind.frames_first else latents.movedim(2, 1).flatten(0, 1)
        decoded = torch.cat([self.vae.decode(part).movedim(-1, 1) for part in frames.split(26)])
        return decoded.unflatten(0, (-1, FRAMES))


@dataclass(frozen=True)
class Judged:
    """Of one clip: the share of its frames that show all things by colour and shape; whether all move as said; whether the ground is
    right in most frames."""

    frames: float
    moves: bool
    ground: bool


def judge(seen: referee_clips.Clip, prompt: Prompt) -> Judged:
    """Of two things of one name, one is enough."""
    right = [all(frame.find(t.colour, t.shape) for t in prompt.things) for frame in seen.frames]
    moves = all(seen.follow(t.colour, t.shape).motion == t.motion for t in prompt.things)
    grounds = [frame.background == prompt.ground for frame in seen.frames]
    return Judged(sum(right) / len(right), moves, sum(grounds) > len(grounds) / 2)


def judge_all(network: referee.Segmenter, pictures: Tensor, asked: list[Prompt]) -> list[Judged]:
    return [judge(seen, prompt) for seen, prompt in zip(referee_clips.look_at_clips(network, pictures), asked, strict=True)]
