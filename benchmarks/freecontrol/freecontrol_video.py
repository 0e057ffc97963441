"""FreeControl on clips: does a video transformer follow a layout that moves? `python run.py bench freecontrol_video`.

The condition is a clip of silhouettes, and the prompt speaks of what is placed, not of how it moves. `iou_clip`: overlap of the prompted
object with its silhouette, averaged over frames, against `iou_plain` without steering; `leak`: mean |difference| (0..1) of the ground's
mean colour to the unsteered clip; `prompt_ratio`: frames with the right colour and ground, over those of the unsteered clips; `time_ratio`:
seconds over plain sampling. `iou_frame` and `iou_frame_plain`: the same on single frames.
"""

import argparse
import json
import sys
import time
from dataclasses import fields, replace

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...host.models import families
from ...playground.referee import referee
from ...playground.world import conditions, motion
from ...playground.world.captions import prompt
from ...playground.world.motion import FRAMES
from ...recipes.freecontrol import steps as recipe
from ...recipes.freecontrol.steps import ReadingSettings
from ..playground import clip_scenes, scenes
from .freecontrol import BASIS, GUIDE, Setting

HELD_OUT = 6 * 10**9
SEED_PROMPTS = 20
TOGETHER = clip_scenes.TOGETHER  # clips in a batch


def task(clips: int, frames: int) -> scenes.Task:
    """Held-out clips of one object each; names one a frame, masks (clips * frames, 128, 128)."""
    drawn = motion.sample_clips(clips, torch.Generator().manual_seed(HELD_OUT), counts=(1.0, 0.0))
    masks, names = [], []
    for start in range(0, clips, 16):
        part = drawn[start : start + 16]
        masks.append(motion.render_clips(part)[1][:, :frames, 0].flatten(0, 1))
    for i in range(clips):
        at = i * drawn.frames
        names += frames * [(*drawn.scenes.name(at), drawn.scenes.ground(at))]
    return scenes.Task(names, torch.cat(masks), 0)


class Bench:
    """The model, its bases and the unsteered clips, made once."""

    def __init__(self, player: clip_scenes.Player, clips: int, frames: int) -> None:
        self.player, self.clips, self.frames = player, clips, frames
        self.network, self.job = referee.load(referee.CLIP_WEIGHTS), task(clips, frames)
        self.bases: dict[str, recipe.Basis] = {}
        self.plain, self.seconds = self.draw([player.model] * self.groups)

    @property
    def groups(self) -> int:
        return -(-self.clips // TOGETHER)

    def texts(self, group: int) -> list[str]:
        return [
            prompt(*name) for name in self.job.names[group * TOGETHER * self.frames : (group + 1) * TOGETHER * self.frames : self.frames]
        ]

    def draw(self, models: list) -> tuple[Tensor, float]:
        """Pictures (clips * frames, 3, H, W), and seconds of sampling. models: one for each group of clips."""
        player, drawn, seconds = self.player, [], 0.0
        for group, model in enumerate(models):
            texts = self.texts(group)
            noise = torch.randn(len(texts), 4, self.frames, 16, 16, generator=torch.Generator().manual_seed(group))
            sampler = comfy.samplers.sampler_object(player.kind.sampler)
            started = time.perf_counter()
            latents = comfy.sample.sample_custom(
                model, noise, clip_scenes.CFG, sampler, player.sigmas(), player.conditioning(texts), player.conditioning([""]),
                torch.zeros_like(noise), disable_pbar=True, seed=group,
            )  # fmt: skip
            seconds += time.perf_counter() - started
            drawn.append(player.vae.decode(latents).flatten(0, 1).movedim(-1, 1))
        return torch.cat(drawn), seconds

    def basis(self, setting: Setting) -> recipe.Basis:
        """Of single frames: they tell layout as well as clips do."""
        if setting.layers not in self.bases:
            prompts = scenes.task(SEED_PROMPTS, seed=7).prompts
            settings = replace(BASIS, components=64, layers=setting.layers, seed=3)
            self.bases[setting.layers] = recipe.build_basis(
                self.player.model, [self.player.conditioning(prompts)], self.player.conditioning([""]), torch.zeros(1, 4, 1, 16, 16),
                settings, batch=SEED_PROMPTS,
            )  # fmt: skip
        return self.bases[setting.layers].leading(setting.components)

    def guided(self, setting: Setting, group: int):
        """The MODEL that follows the silhouettes of a group of clips."""
        model, basis = self.player.model, self.basis(setting)
        part = slice(group * TOGETHER * self.frames, (group + 1) * TOGETHER * self.frames)
        pictures = conditions.condition("silhouette", self.job.masks[part], torch.Generator().manual_seed(HELD_OUT)).movedim(1, -1)
        what = self.player.conditioning([f"a {shape}" for _, shape, _ in self.job.names[part]])
        reading = ReadingSettings(setting.method, setting.levels, setting.colourings)
        structure = recipe.read_condition(model, basis, self.player.vae, pictures, (16, 16), what, reading)
        points = [p for p in families.structure_points(model, "all decoder") if p.name in basis.layers]
        guide = replace(GUIDE, strength=setting.strength, end=setting.end, appearance=setting.appearance)
        return recipe.guide(model, structure, points, guide)

    def judge(self, pictures: Tensor) -> scenes.Verdict:
        return scenes.judge(self.network, pictures, self.plain, self.job, self.job.masks)

    def cell(self, setting: Setting) -> tuple[scenes.Verdict, float]:
        """What the steered clips come to, and seconds of sampling."""
        self.last, seconds = self.draw([self.guided(setting, group) for group in range(self.groups)])
        verdict = self.judge(self.last)
        changed = {f.name: getattr(setting, f.name) for f in fields(setting) if getattr(setting, f.name) != f.default}
        sys.stderr.write(f"{self.frames} frames, {changed or 'defaults'}: {verdict}, {seconds / self.seconds:.2f} times as long\n")
        return verdict, seconds


def figures(player: clip_scenes.Player, clips: int, frames: int) -> dict[str, float]:
    bench = Bench(player, clips, frames)
    plain = bench.judge(bench.plain)
    steered, seconds = bench.cell(Setting())
    return {
        "iou": steered.overlap,
        "iou_plain": plain.overlap,
        "leak": steered.leak,
        "prompt_ratio": steered.prompt_right / max(plain.prompt_right, 1e-9),
        "time_ratio": seconds / bench.seconds,
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    count, player = 8 if options.quick else 64, clip_scenes.Player.load("dit")
    clips, stills = (figures(player, count, frames) for frames in (FRAMES, 1))
    found = {"iou_clip": clips.pop("iou"), **clips, "iou_frame": stills["iou"], "iou_frame_plain": stills["iou_plain"]}
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
