"""Where objects are: what passes from Box Track and Mask Track to the nodes that place them."""

from dataclasses import dataclass

from comfy_api.latest import io

from ...core.boxes.places import Places

TRACKS = io.Custom("FREESTEER_TRACKS")


@dataclass(frozen=True)
class Placed:
    """An object: the words that the prompt has for it, and where it is."""

    phrase: str
    where: Places


Tracks = tuple[Placed, ...]
