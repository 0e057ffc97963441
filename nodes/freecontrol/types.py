"""What passes between the FreeControl nodes."""

from dataclasses import dataclass

from comfy_api.latest import io

from ...core.freecontrol.bases_file import ModelBasis
from ...core.freecontrol.energy import Structure

__all__ = ["BASIS", "STRUCTURE", "ModelBasis", "ModelStructure"]

BASIS = io.Custom("FREESTEER_BASIS")
STRUCTURE = io.Custom("FREESTEER_STRUCTURE")
CATEGORY = "FreeSteer/FreeControl"


@dataclass(frozen=True)
class ModelStructure:
    """The layout of one or more pictures, and which model's features tell it."""

    structure: Structure
    family: str
    prompts: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.structure.coordinates)

    @property
    def pictures(self) -> int:
        return max(values.shape[1] for values in self.structure.coordinates.values())
