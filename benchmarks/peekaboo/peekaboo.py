"""PEEKABOO: are things in their boxes, in pictures and in clips? `python run.py bench peekaboo`.

`miou_gain`: mean IoU of asked and seen boxes over the whole volume, less that without control; `accuracy`: colour, shape and ground right,
over that without control; `time_ratio` over plain sampling. `ap50`, `coverage` and `distance` as the paper defines them. Peers: the
published recipe, and masks of text alone where that is not ours anyway, which is what nodes for regional prompts do. Masks of all tokens by
all give the same within `max_error`, for the memory that `wan_mask_gb` says. `--ablate` adds each kind of attention and each range.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ...core.attention.grouped import Part, grouped_attention, parts
from ...core.boxes.places import BoxPlaces
from ...host.models import prompt_tokens
from ...host.sampling.sigma_range import SigmaRange
from ...playground.image import models as image_models
from ...playground.referee import clips as referee_clips
from ...playground.referee import referee
from ...recipes.peekaboo.patch import Objects, PeekabooSettings, attach
from ..host.counters import LiveBytes
from ..playground import clip_scenes, scenes
from .tasks import Score, Task, score, tasks

OURS = PeekabooSettings()
PEERS = {
    "as published": replace(OURS, space=True, special="both", range=SigmaRange(0, 0.04)),  # 2 of 50 steps
    "text alone": replace(OURS, time=False),
}
ABLATIONS = {
    "text, space and time": replace(OURS, space=True),
    "space and time alone": replace(OURS, text=False, space=True),
    "first 10 %": replace(OURS, range=SigmaRange(0, 0.1)),
    "first 20 %": replace(OURS, range=SigmaRange(0, 0.2)),
    "first 40 %": replace(OURS, range=SigmaRange(0, 0.4)),
    "half strength": replace(OURS, strength=0.5),
    "begin and padding for both": replace(OURS, special="both"),
    "begin and padding for the object": replace(OURS, special="object"),
    "negative prompt left alone": replace(OURS, everywhere=False),
}


@dataclass
class Images:
    """The image playground, drawing one picture at a time as a clip of one frame."""

    def __post_init__(self) -> None:
        self.model, self.clip, self.vae = image_models.load()

    @torch.inference_mode()
    def draw(self, texts: list[str], seed: int, model=None) -> Tensor:
        return scenes.sample(model or self.model, self.clip, texts, seed)

    @torch.inference_mode()
    def pictures(self, latents: Tensor) -> Tensor:
        return scenes.decode(self.vae, latents)[:, None]


def patched(player, task: Task, settings: PeekabooSettings):
    """The model with one thing in its box."""
    encoded = player.clip.encode_from_tokens(player.clip.tokenize(task.text))
    prompt = prompt_tokens.locate(player.clip, task.text, [task.phrase], encoded.shape[1])
    return attach(player.model, settings, Objects([BoxPlaces(task.track)], prompt.phrases, prompt.special, settings.special), encoded)


def run(player, jobs: list[Task], settings: PeekabooSettings | None, network: referee.Segmenter) -> tuple[list[Score], float]:
    """Scores, and seconds of sampling."""
    scores, seconds = [], 0.0
    for number, job in enumerate(jobs):
        model = None if settings is None else patched(player, job, settings)
        started = time.perf_counter()
        latents = player.draw([job.text], 7000 + number, model=model)
        seconds += time.perf_counter() - started
        scores.append(score(referee_clips.look_at_clips(network, player.pictures(latents))[0], job))
    return scores, seconds


def figures(scores: list[Score]) -> dict[str, float]:
    covered = [s for s in scores if s.seen > 0.5]
    return {
        "miou": float(np.mean([s.iou for s in scores])),
        "ap50": float(np.average([s.half for s in scores], weights=[s.seen + 1e-9 for s in scores])),
        "coverage": len(covered) / len(scores),
        "distance": float(np.mean([s.distance for s in covered])) if covered else float("nan"),
        "right": float(np.mean([s.right for s in scores])),
    }


def dense_error() -> float:
    """The largest difference of attention in groups to attention under a mask of all tokens by all."""
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 4, 640, 64, generator=g)
    labels = torch.randint(0, 3, (4, 640), generator=g)
    blocks = parts(labels, torch.stack([labels == label for label in range(3)], 1))
    grouped = grouped_attention(lambda _, *x: F.scaled_dot_product_attention(*x), q, k, v, blocks)
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=labels[:, :, None] == labels[:, None])
    return float((grouped - masked).abs().max())


def wan_memory() -> dict[str, float]:
    """GB of live tensors in one layer of Wan 14B's self-attention over 832 x 480, 81 frames, in 16 bits, with a thing in a quarter of each
    frame: its inputs, and what comes to them in plain attention, in groups, and for a mask of all tokens by all. Nothing is computed."""
    frames, height, width, channels, heads = 21, 30, 52, 5120, 40
    labels = torch.zeros(frames, height, width, dtype=torch.long)
    labels[:, : height // 2, : width // 2] = 1
    labels = labels.view(1, -1)
    blocks = parts(labels, torch.stack([labels == label for label in range(2)], 1))

    def attend(part, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(-2, -3) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)

    found: dict[str, float] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k, v = (torch.empty(1, labels.shape[1], channels, dtype=torch.bfloat16) for _ in range(3))
        for name, plan in (("plain", [Part(None, None, None)]), ("grouped", blocks)):
            with LiveBytes() as counter:
                grouped_attention(attend, q, k, v, plan)
            found[f"wan_{name}_gb"] = counter.peak / 1e9
    found["wan_inputs_gb"], found["wan_mask_gb"] = 3 * q.nbytes / 1e9, labels.shape[1] ** 2 * q.element_size() / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--models", nargs="*", choices=("image", *clip_scenes.KINDS), default=("image", *clip_scenes.KINDS))
    options = parser.parse_args()
    count = 12 if options.quick else 64
    found: dict[str, object] = {"max_error": dense_error(), **wan_memory()}
    for name in options.models:
        player = Images() if name == "image" else clip_scenes.Player.load(name)
        network = referee.load() if name == "image" else referee.load(referee.CLIP_WEIGHTS)
        jobs = tasks(count, video=name != "image")
        plain, seconds = run(player, jobs, None, network)
        results = {"plain": figures(plain)}
        peers = {peer: settings for peer, settings in PEERS.items() if name == "unet" or settings.space}  # others have no layers over time
        for setting, settings in {"ours": OURS, **peers, **(ABLATIONS if options.ablate else {})}.items():
            scores, took = run(player, jobs, settings, network)
            results[setting] = {**figures(scores), "time_ratio": took / seconds}
            sys.stderr.write(f"{name}, {setting}: { {k: round(v, 3) for k, v in results[setting].items()} }\n")
        sys.stderr.write(f"{name}, plain: { {k: round(v, 3) for k, v in results['plain'].items()} }\n")
        found[f"miou_gain_{name}"] = results["ours"]["miou"] - results["plain"]["miou"]
        found[f"accuracy_ratio_{name}"] = results["ours"]["right"] / max(results["plain"]["right"], 1e-9)
        found[f"time_ratio_{name}"] = results["ours"]["time_ratio"]
        found |= {f"miou_gain_{name}_{peer.replace(' ', '_')}": results[peer]["miou"] - results["plain"]["miou"] for peer in peers}
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in found.items()}))


if __name__ == "__main__":
    main()
