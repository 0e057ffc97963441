"""Room on the device for work on splats, which the host knows nothing of."""

import comfy.model_management
import torch


def make_room(needed: int, device: torch.device) -> str:
    """Asks the host to unload other models where there are fewer bytes left; what was asked for, in words."""
    comfy.model_management.free_memory(needed, device)
    return f"Memory: {needed / 1e9:.1f} GB at most."
