"""What the tracker estimates: cameras, scales and shifts of depth, exposures, the focal length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry import cameras

# Columns of a step: ten parameters of each frame, then, as the last one, the logarithm of the focal length.
POSE, LOG_SCALE, SHIFT, GAIN, OFFSET = slice(0, 6), 6, 7, 8, 9
PER_FRAME = 10
FOCAL = -1
NEAREST_INVERSE = 1e-3  # inverse depth below this share of the unit counts as beyond measure
OF_FRAMES = ("poses", "log_scale", "shift", "gain", "offset")


@dataclass(frozen=True)
class State:
    """poses: (F, 4, 4), world to camera. A depth given as D is exp(log_scale) D + shift unit, both (F,), and of `unit`, the median of
    the first frame's given depth. A grey I counts as (1 + gain) I + offset, both (F,). focal: (), in widths of the picture;
    first_focal: (), what it was taken to be at first. inverse: whether what is given is 1 / depth."""

    poses: Tensor
    log_scale: Tensor
    shift: Tensor
    gain: Tensor
    offset: Tensor
    focal: Tensor
    first_focal: Tensor
    unit: float
    inverse: bool = False

    def depths(self, given: Tensor, frames: Tensor | slice = slice(None)) -> Tensor:
        """Given depths of frames, (f, ...), in the units of the poses; not above 0 where they are beyond measure."""
        per_frame = (-1, *[1] * (given.ndim - 1))
        value = self.log_scale[frames].exp().view(per_frame) * given + self.shift[frames].view(per_frame) * self.unit
        return torch.where(value > NEAREST_INVERSE * self.unit, 1 / value, -1) if self.inverse else value

    def of(self, frames: Sequence[int]) -> "State":
        """Some frames alone."""
        return replace(self, **{name: getattr(self, name)[frames] for name in OF_FRAMES})

    def with_frames(self, frames: Sequence[int], part: "State") -> "State":
        """What `of` took out, put back, and its focal length taken over."""
        changed = {name: getattr(self, name).clone() for name in OF_FRAMES}
        for name, values in changed.items():
            values[frames] = getattr(part, name)
        return replace(self, focal=part.focal, **changed)


def at_rest(focal: float, depths: Tensor, valid: Tensor, inverse: bool = False) -> State:
    """All cameras at one place. focal: in widths; depths, valid: (F, H, W). Scales make every frame's median that of the first."""
    medians = torch.stack([d[v].median() if v.any() else d.new_tensor(1.0) for d, v in zip(depths, valid, strict=True)])
    zero, length = torch.zeros_like(medians), medians.new_tensor(focal)
    poses = torch.eye(4).to(depths).expand(len(depths), 4, 4).clone()
    return State(poses, (medians[0] / medians).log(), zero, zero, zero, length, length, float(medians[0]), inverse)


def retract(state: State, step: Tensor) -> State:
    """The state after a step, (F * PER_FRAME + 1,); poses by exp(twist) pose (Solà et al. 2018, arXiv 1812.01537, eq. 25, on the left)."""
    by_frame = step[:FOCAL].view(-1, PER_FRAME)
    return replace(
        state, poses=cameras.exponential(by_frame[:, POSE]) @ state.poses, log_scale=state.log_scale + by_frame[:, LOG_SCALE],
        shift=state.shift + by_frame[:, SHIFT], gain=state.gain + by_frame[:, GAIN], offset=state.offset + by_frame[:, OFFSET],
        focal=state.focal * step[FOCAL].exp(),
    )  # fmt: skip
