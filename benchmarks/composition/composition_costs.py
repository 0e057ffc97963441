"""How long a run with Separate & Enhance takes, over a plain one. `python run.py bench composition_costs`.

CPU seconds of one thread, in pairs that are run in turn; a ratio is the median over the pairs. Of our playground model, and of a U-Net with
SD 1.5's proportions and random weights.
"""

import argparse
import json

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...recipes.composition import guide as recipe
from ...recipes.composition.guide import CompositionSettings, Named
from ..freecontrol.freecontrol_costs import Conditioning, median_ratio, playground_parts, sd15_parts, single_thread
from ..playground import scenes


def named(encoded: Tensor) -> Named:
    """Two objects of two tokens each."""
    phrases = torch.zeros(2, encoded.shape[1], dtype=torch.bool)
    phrases[0, 2:4], phrases[1, 6:8] = True, True
    special = torch.zeros(encoded.shape[1], dtype=torch.bool)
    return Named(encoded, phrases, phrases, torch.ones(2, dtype=torch.bool), special, [None, None])


@torch.inference_mode()
def time_ratio(model: ModelPatcher, positive: Conditioning, negative: Conditioning, latent: Tensor, pairs: int) -> float:
    """A guided run at the node's defaults over a plain one."""
    guided = recipe.attach(model, [named(positive[0][0])], CompositionSettings())
    noise = comfy.sample.prepare_noise(latent, 0)

    def run(model: ModelPatcher) -> Tensor:
        return comfy.sample.sample(
            model, noise, scenes.STEPS, scenes.CFG, scenes.SAMPLER, scenes.SCHEDULER, positive, negative, latent, disable_pbar=True, seed=0
        )

    return median_ratio(lambda: run(guided), lambda: run(model), pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with single_thread():
        parts = {"time_ratio": playground_parts(2 if quick else 4), "time_ratio_sd15": sd15_parts(24 if quick else 32)}
        print(json.dumps({name: round(time_ratio(*each, 1 if quick else 5), 3) for name, each in parts.items()}))


if __name__ == "__main__":
    main()
