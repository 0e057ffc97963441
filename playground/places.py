"""Where in a clip a place is, told to the video models in further channels, in the way in which others get the picture they begin with."""

import torch
from torch import Tensor

CHANNELS = 5


def places(frames: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Where in a clip each place is, (5, F, H, W): time, down and right, from -1 to 1, and the first by each of the others, which is above
    0 on the way of what goes down or right, and below on that of what goes up or left. Time is 0 in a single frame."""
    time = torch.linspace(-1, 1, frames, device=device) if frames > 1 else torch.zeros(1, device=device)
    down, right = ((2 * torch.arange(count, device=device) + 1) / count - 1 for count in (height, width))
    t, y, x = torch.meshgrid(time, down, right, indexing="ij")
    return torch.stack([t, y, x, t * y, t * x])
