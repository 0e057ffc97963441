"""How good the playground is: autoencoder, referee, and prompts of one and two objects. `python run.py bench playground`."""

import argparse
import json
import sys
from collections import Counter

import torch

from ...playground.image import models
from ...playground.referee import referee, train_referee
from ...playground.world import world
from ...playground.world.captions import PLACES, article
from . import scenes

Name = tuple[str, str]


def prompts(count: int, objects: int, seed: int = 0) -> list[tuple[str, list[Name], str]]:
    """Held-out prompts: text, (colour, shape) of each object, background."""
    drawn = world.sample_scenes(count, torch.Generator().manual_seed(scenes.HELD_OUT + objects + 10 * seed))
    result = []
    for i in range(count):
        names = [drawn.name(i, s) for s in range(objects)]
        ground = drawn.ground(i)
        *before, last = (f"{article(colour)} {colour} {shape}" for colour, shape in names)
        text = f"{', '.join(before)} and {last}" if before else last
        result.append((f"{text} {PLACES[ground]}", names, ground))
    return result


def outcome(seen: referee.Picture, names: list[Name], ground: str) -> str:
    """Right, or the kind of failure."""
    found = [(o.colour, o.shape) for o in seen.objects]
    wanted = list(names)
    missing = [n for n in wanted if not (n in found and (found.remove(n) or True))]
    if not missing:
        return "right" if seen.background == ground else "wrong background"
    if len(names) == 2 and {(names[0][0], names[1][1]), (names[1][0], names[0][1])} & set(found):
        return "colours swapped or shared"
    if len(seen.objects) < len(names):
        return "object lost"
    colours, shapes = {o.colour for o in seen.objects}, {o.shape for o in seen.objects}
    if all(c in colours for c, _ in missing):
        return "wrong shape"
    return "wrong colour" if all(s in shapes for _, s in missing) else "wrong shape and colour"


@torch.inference_mode()
def score(objects: int, count: int, network: referee.Segmenter, parts) -> Counter[str]:
    model, clip, vae = parts
    jobs = prompts(count, objects)
    kinds: Counter[str] = Counter()
    for start in range(0, count, 50):
        batch = jobs[start : start + 50]
        pictures = scenes.decode(vae, scenes.sample(model, clip, [text for text, _, _ in batch], seed=1000 + start))
        kinds.update(outcome(s, names, ground) for s, (_, names, ground) in zip(referee.look(network, pictures), batch, strict=True))
    return kinds


@torch.inference_mode()
def psnr(vae, count: int) -> float:
    pictures = world.render(world.sample_scenes(count, torch.Generator().manual_seed(train_referee.HELD_OUT)))[0].movedim(1, -1)
    restored = torch.cat([vae.decode(vae.encode(part)) for part in pictures.split(32)])
    return float((-10 * (restored - pictures).square().mean((1, 2, 3)).log10()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count = 50 if parser.parse_args().quick else 400
    parts, network = models.load(), referee.load()
    plain, augmented = (train_referee.measure(network, 2 * count, a) for a in (False, True))
    decoded = train_referee.measure(network, count, vae=parts[2])
    figures: dict[str, object] = {
        "vae_psnr": psnr(parts[2], count // 2),
        "referee_clean": min(plain["ground"], plain["objects"]),
        "referee_augmented": min(augmented["ground"], augmented["objects"]),
        "referee_decoded": min(decoded["ground"], decoded["objects"]),
    }
    for objects, name in ((1, "one_object"), (2, "two_objects")):
        kinds = score(objects, count, network, parts)
        figures[name] = kinds["right"] / count
        figures[f"{name}_failures"] = {k: round(n / count, 3) for k, n in kinds.most_common() if k != "right"}
        sys.stderr.write(f"{name}: {dict(kinds)}\n")
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    main()
