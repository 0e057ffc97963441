"""A clip as reconstruction takes it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """F frames of a scene that holds still.

    pictures: (F, H, W, 3) in 0..1; depths: (F, H, W), right up to a scale and a shift for each frame, and valid: (F, H, W), where;
    focal: in widths of the picture; focal_known: whether it is exact; inverse: whether depths are 1 / depth; hidden: (F, H, W), where
    pictures do not count; from_motion: whether depth was found in the same pictures, so that it is as wrong as the cameras were.
    """

    pictures: Tensor
    depths: Tensor
    valid: Tensor
    focal: float
    focal_known: bool
    inverse: bool
    hidden: Tensor | None = None
    from_motion: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pictures.shape[1], self.pictures.shape[2]
