"""What passes between the Peekaboo nodes."""

from dataclasses import dataclass

from comfy_api.latest import io

from ...recipes.peekaboo.patch import Places

TRACKS = io.Custom("FREESTEER_TRACKS")
CATEGORY = "FreeSteer/Peekaboo"
ALIASES = [
    "peekaboo", "bounding box", "box control", "regional prompt", "layout", "trajectory", "object placement", "attention mask",
    "trailblazer", "gligen", "motion path",
]  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """An object: the words that the prompt has for it, and where it is."""

    phrase: str
    where: Places


Tracks = tuple[Placed, ...]
