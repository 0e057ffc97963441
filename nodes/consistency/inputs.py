"""What the nodes of consistency models have in common."""

from comfy_api.latest import io
from torch import Tensor

from ..common import checks

ADAPTER = io.Custom("FREESTEER_CONSISTENCY_ADAPTER")
CATEGORY = "FreeSteer/Consistency"
ALIASES = ["consistency model", "lcm", "lcm-lora", "latent consistency", "ccm", "few steps", "4 steps", "turbo", "distillation"]
MOST_PROMPTS = 10_000


def steps_input(default: int, more: str):
    return io.Int.Input(
        "steps", default=default, min=1, max=1000000, tooltip=f"Steps of training. More: {more}. A run that was trained longer already is "
        "refused: the seed makes another.",
    )  # fmt: skip


def rate_input(default: float, usual: str):
    return io.Float.Input(
        "learning_rate", default=default, min=1e-7, max=1.0, step=1e-7, tooltip="How far each step goes. Lower it if pictures fall apart; "
        f"{usual} suits SD 1.5 and SDXL.",
    )  # fmt: skip


def seed_input():
    return io.Int.Input("seed", default=0, min=0, max=2**31 - 1, tooltip="Of all that is drawn at random.")


def batch_input(default: int):
    return io.Int.Input(
        "batch", default=default, min=1, max=256, advanced=True, tooltip="Pictures in each step of training. More: steadier, slower, and "
        "more memory.",
    )  # fmt: skip


def pictures_of(model, vae, image, lines: list[str]) -> Tensor:
    """Pictures to train on, with one prompt for all or one for each."""
    pictures = checks.image("image", image)
    checks.vae(model, vae)
    if len(lines) not in (1, len(pictures)):
        raise checks.InputError(
            f"prompts has {len(lines)} lines for {len(pictures)} pictures: write one for all of them, or one for each, in their order."
        )
    return pictures
