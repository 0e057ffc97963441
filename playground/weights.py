"""Files of weights in 8 bits a value, for the small models that come with the pack.

Symmetric, with one scale for each output channel, as in "Quantizing deep convolutional networks for efficient inference"
(https://arxiv.org/abs/1806.08342, equation 5 and section 3.1.2):

    w[c, ...]  =  scale[c] * q[c, ...],    scale[c] = max |w[c, ...]| / 127,    q in -127 .. 127

Only the file is small: what is loaded is float32, and networks know nothing of it. Against 16 bits, the playground's autoencoder
loses .02 dB so, and the prediction of its UNet moves by .6 %.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT, VERSION = "freesteer weights", "1"
SCALE = ".scale"
LARGEST = 127


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (C, ...) int8 and scales (C,) float32 of a weight (C, ...) whose first dimension is the output channel."""
    weight = weight.float()
    scale = weight.flatten(1).abs().amax(1) / LARGEST
    steps = torch.where(scale > 0, scale, 1.0)  # a channel of zeros stays one
    return (weight / along_channels(steps, weight)).round().to(torch.int8).contiguous(), scale


def along_channels(scale: Tensor, weight: Tensor) -> Tensor:
    """Scales (C,) as (C, 1, ...), to multiply weights (C, ...) by."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


def save_compact(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes float tensors: those of two and more dimensions in 8 bits, others in 16. The file is there whole or not at all."""
    stored: dict[str, Tensor] = {}
    for name, weight in state.items():
        if not (weight.is_floating_point() and weight.isfinite().all()):
            raise ValueError(f"The weights {name} are not all finite numbers, so they were not saved in {path.name}.")
        if weight.ndim >= 2:
            stored[name], stored[name + SCALE] = quantise(weight)
        else:
            stored[name] = weight.half().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(stored, partial, {"format": FORMAT, "version": VERSION})
    partial.replace(path)


def load_compact(path: Path) -> dict[str, Tensor]:
    """The weights of a file of `save_compact`, as float32."""
    try:
        with safe_open(path, "pt") as file:
            made_by = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged, or no safetensors file ({error}): fetch the pack again.") from error
    found = made_by.get("format"), made_by.get("version")
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path.name} should hold {FORMAT} of version {VERSION}, but says {found}: it belongs to another release.")
    return {
        name: weight.float() * along_channels(stored[name + SCALE], weight) if weight.dtype == torch.int8 else weight.float()
        for name, weight in stored.items()
        if not name.endswith(SCALE)
    }
