"""Memory of one guided step at true sizes, counted with fake tensors: nothing is computed, no GPU is needed. `run.py bench guided_memory`.

Weights included; graph kept or, where that does not fit, parts of the model computed twice. What a kernel needs for itself while it
runs is not counted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ...host.models import families
from ...host.sampling.reading import Request
from .counters import LiveBytes
from .random_models import FULL_SIZE, Recipe, assemble, evaluate, guided_step

FP8 = torch.float8_e4m3fn
MUTATING = ("Flux", "LTX Video")  # of these the forward pass alone: copies of what they change cannot be told apart without values
ROWS: tuple[tuple[str, torch.dtype, torch.dtype | None, str], ...] = (  # model, weights, what they are brought to, what is made
    ("SD 1.5", torch.float16, None, "512 x 512"),
    ("SDXL", torch.float16, None, "1024 x 1024"),
    ("SD 3", torch.float16, None, "1024 x 1024"),
    ("Flux", FP8, torch.bfloat16, "1024 x 1024"),
    ("Wan 1.3B", torch.bfloat16, None, "832 x 480, 81 frames"),
    ("Wan 14B", FP8, torch.bfloat16, "832 x 480, 81 frames"),
    ("Wan 14B, short", FP8, torch.bfloat16, "832 x 480, 21 frames"),
    ("LTX Video", torch.bfloat16, None, "768 x 512, 97 frames"),
)


def guided_step_bytes(recipe: Recipe, dtype: torch.dtype, recompute: bool = False, cast: torch.dtype | None = None) -> int:
    """Peak of a guided step with the nodes' layers, weights included. cast: what weights are brought to, as fp8 has to be."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = assemble(recipe, dtype, cast, operations=None if cast else comfy.ops.disable_weight_init)
        diffusion_model: Any = model.model.diffusion_model
        diffusion_model.requires_grad_(False).eval()
        positive = [[text.to(cast or dtype), options] for text, options in recipe.conditioning]
        with torch_attention(model), LiveBytes() as memory:
            for weight in (*diffusion_model.parameters(), *diffusion_model.buffers()):
                memory.include(weight)
            x, points = torch.zeros(1, *recipe.latent), families.structure_points(model)
            if families.family_of(model).name in MUTATING and not recompute:
                evaluate(model, x, positive, Request(x.shape, points, lambda features: torch.zeros(1)))
            else:
                guided_step(model, points, x, positive, recompute)
    return memory.peak


@contextmanager
def torch_attention(model: ModelPatcher) -> Iterator[None]:
    """As on a GPU; the CPU has another attention by default, which takes more memory."""
    options = model.model_options["transformer_options"]

    def attention(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return (function if torch.is_grad_enabled() else attention_pytorch)(*args, **kwargs)

    options["optimized_attention_override"] = attention
    yield
    del options["optimized_attention_override"]


def weight_bytes(recipe: Recipe, dtype: torch.dtype) -> int:
    with FakeTensorMode():
        return sum(w.nbytes for w in assemble(recipe, dtype).model.diffusion_model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first two rows")
    rows = ROWS[:2] if parser.parse_args().quick else ROWS
    figures = {}
    titles = ("model", "weights", "picture or clip", "weights alone", "guided step", "with parts computed twice")
    sys.stderr.write(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|\n")
    for name, dtype, cast, size in rows:
        recipe = FULL_SIZE[name]
        alone = weight_bytes(recipe, dtype) / 1e9
        kept, recomputed = (guided_step_bytes(recipe, dtype, recompute, cast) / 1e9 for recompute in (False, True))
        kind = str(dtype).removeprefix("torch.").replace("_e4m3fn", "")
        sys.stderr.write(f"| {name} | {kind} | {size} | {alone:.1f} GB | {kept:.1f} GB | {recomputed:.1f} GB |\n")
        figures[name] = {"weights": round(alone, 2), "kept": round(kept, 2), "recomputed": round(recomputed, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
