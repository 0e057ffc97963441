"""How good the video playground is: its referee on drawn clips, and both models on held-out prompts. `run.py bench playground_video`.

`frames_right`: the share of frames that show every thing of the prompt in its colour and shape; `motion_right`: the share of clips in which
every thing moves as said. `referee_right`: the same on drawn clips, by name and motion together. `clips_a_second`: drawn on one core.
"""

import argparse
import json
import sys
import time
from collections import Counter

import torch

from ...playground.referee import clips as referee_clips
from ...playground.referee import referee, train_referee
from ...playground.world import motion
from ...playground.world.motion import MOTIONS
from . import clip_scenes

SEEN = 0.9  # of the frames, for a thing that the referee is said to have seen


def referee_right(network: referee.Segmenter, count: int) -> tuple[float, Counter[tuple[str, str]]]:
    """The share of things in drawn clips that are seen and whose motion is told, and which motions are mistaken for which."""
    drawn = motion.sample_clips(count, torch.Generator().manual_seed(train_referee.HELD_OUT))
    right, mistaken = [], Counter()
    for start in range(0, count, 20):
        part = drawn[start : start + 20]
        pictures, _ = motion.render_clips(part)
        for i, seen in enumerate(referee_clips.look_at_clips(network, pictures)):
            for slot in range(int(part.count[i])):
                first = i * part.frames
                name = part.scenes.name(first, slot)
                track, true = seen.follow(*name), MOTIONS[int(part.motion[i, slot])]
                right.append(track.seen > SEEN and track.motion == true)
                if track.motion != true:
                    mistaken[true, track.motion] += 1
    return sum(right) / len(right), mistaken


def clips_a_second(count: int = 64) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    motion.render_clips(motion.sample_clips(4, torch.Generator().manual_seed(0)))  # fills the caches
    started = time.process_time()
    motion.boxes(motion.render_clips(motion.sample_clips(count, torch.Generator().manual_seed(1)))[1])
    torch.set_num_threads(threads)
    return count / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--models", nargs="*", choices=tuple(clip_scenes.KINDS), default=tuple(clip_scenes.KINDS))
    options = parser.parse_args()
    count, network = 24 if options.quick else 200, referee.load(referee.CLIP_WEIGHTS)
    right, mistaken = referee_right(network, 2 * count)
    sys.stderr.write(f"mistaken motions: {dict(mistaken)}\n")
    figures = {"clips_a_second": clips_a_second(), "referee_right": right}
    for name in options.models:
        player, asked = clip_scenes.Player.load(name), clip_scenes.prompts(count)
        judged = []
        for start in range(0, count, clip_scenes.TOGETHER):
            part = asked[start : start + clip_scenes.TOGETHER]
            judged += clip_scenes.judge_all(network, player.pictures(player.draw([p.text for p in part], 1000 + start)), part)
        figures[f"frames_right_{name}"] = sum(j.frames for j in judged) / count
        figures[f"motion_right_{name}"] = sum(j.moves for j in judged) / count
        figures[f"ground_right_{name}"] = sum(j.ground for j in judged) / count
        failed = Counter(t.motion for j, p in zip(judged, asked, strict=True) for t in p.things if not j.moves)
        sys.stderr.write(f"{name}: motions in clips that are wrong: {dict(failed)}\n")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
