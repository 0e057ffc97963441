"""Mixed precision, where it is the faster way."""

import torch


def bfloat16_is_fast(device: str) -> bool:
    """Whether a device of this type computes in bfloat16. A processor without AVX-512 takes thirty times as long for a convolution."""
    return device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"


def mixed_precision(device: str, enabled: bool = True) -> torch.autocast:
    """A context for a forward pass: autocast to bfloat16, if that is asked for (`enabled`) and fast on this type of device."""
    return torch.autocast(device, torch.bfloat16, enabled=enabled and bfloat16_is_fast(device))
