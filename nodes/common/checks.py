"""What may come into a node: each check gives the value in the form that the recipes expect, or says in one sentence what is wrong."""

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...host.models.frames import fitted

SAME_ASPECT = 0.05  # of the aspect ratio; by less than this a mask may differ from its picture
MOST_PROMPTS = 100
TEXT_WIDTHS = ("context_dim", "context_in_dim", "text_dim")  # of UNets, Flux and its kin, Wan, in the host's configurations
FORBIDDEN = re.compile(r'[\x00-\x1f\ud800-\udfff<>:"|?*]')  # in file names, on one system or another
RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\xb9\xb2\xb3])\s*(\..*)?", re.IGNORECASE)  # devices of Windows


class InputError(ValueError):
    """Written for the user: which input, what came, and what would do."""


def number(name: str, value: float, low: float, high: float = math.inf) -> float:
    if not isinstance(value, (int, float)) or not low <= value <= high or math.isinf(value):
        wanted = f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
        raise InputError(f"{name} is {value}: choose {wanted}.")
    return value


def whole(name: str, value: int, low: int, high: float = math.inf) -> int:
    number(name, value, low, high)
    if value != int(value):
        raise InputError(f"{name} is {value}: choose a whole number.")
    return int(value)


def choice(name: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        raise InputError(f"{name} is {value!r}: choose one of {', '.join(options)}.")
    return value


def percents(start: float, end: float) -> tuple[float, float]:
    number("start_percent", start, 0, 1)
    number("end_percent", end, 0, 1)
    if start > end:
        raise InputError(f"start_percent ({start:g}) is after end_percent ({end:g}): nothing would be steered. Swap them.")
    return start, end


def prompts(name: str, text: str, most: int = MOST_PROMPTS) -> list[str]:
    """The lines that are not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{name} is empty: write what the pictures show, one prompt a line.")
    if len(lines) > most:
        raise InputError(f"{name} has {len(lines)} lines: {most} prompts are the most.")
    return lines


def image(name: str, value: Tensor, clamp: bool = True) -> Tensor:
    """(B, H, W, 3) in 0..1, or of any numbers without `clamp`, of an IMAGE that is grey, has colours, or also transparency."""
    if not isinstance(value, Tensor) or value.ndim != 4 or not value.is_floating_point() or value.shape[-1] not in (1, 3, 4):
        raise InputError(f"{name} has to be an IMAGE (pictures, height, width, 3); what came is {_shape(value)}.")
    if 0 in value.shape:
        raise InputError(f"{name} has no pixels ({_shape(value)}): connect a picture.")
    if not torch.isfinite(value).all():
        raise InputError(f"{name} has pixels that are not numbers (NaN or infinity): the node before it went wrong, as some do in fp16.")
    colours = value.expand(-1, -1, -1, 3) if value.shape[-1] == 1 else value[..., :3]
    return colours.float().clamp(0, 1) if clamp else colours.float()


def mask(name: str, value: Tensor, size: tuple[int, int], pictures: int, empty: bool = False) -> Tensor:
    """(1 or B, 1, H, W) in 0..1 for `pictures` pictures of a size (H, W); scaled if only its size differs, not its aspect.

    empty: whether there may be nothing on it.
    """
    if not isinstance(value, Tensor) or value.ndim not in (2, 3) or 0 in value.shape:
        raise InputError(f"{name} has to be a MASK (pictures, height, width); what came is {_shape(value)}.")
    value = value.float()[None] if value.ndim == 2 else value.float()
    if not torch.isfinite(value).all():
        raise InputError(f"{name} has values that are not numbers (NaN or infinity): check the node before it.")
    if not empty and not (value > 0).flatten(1).any(1).all():
        raise InputError(f"{name} is empty, so nothing would be placed: paint on it, or disconnect it (Load Image gives an empty one).")
    if len(value) not in (1, pictures):
        raise InputError(f"{name} has {len(value)} masks for {pictures} pictures: connect one for all, or one for each.")
    (h, w), (height, width) = value.shape[-2:], size
    if abs(math.log((w / h) / (width / height))) > SAME_ASPECT:
        raise InputError(f"{name} is {w} x {h}, the picture {width} x {height}: they must have the same shape, though not the same size.")
    value = value[:, None].clamp(0, 1)
    return value if (h, w) == (height, width) else F.interpolate(value, size, mode="bilinear", antialias=True)


def samples_of(value: dict, name: str = "latent") -> Tensor:
    """The latents of a LATENT of pictures or of a clip, (B, C, H, W) or (B, C, T, H, W)."""
    samples = value.get("samples") if isinstance(value, dict) else None
    if isinstance(samples, Tensor) and samples.is_nested:
        raise InputError(f"{name} holds several kinds of latents in one (video with sound): separate them first.")
    if not isinstance(samples, Tensor) or samples.ndim not in (4, 5) or 0 in samples.shape:
        raise InputError(f"{name} has to be that of pictures or of a clip, as from an empty latent node; what came is {_shape(samples)}.")
    if not torch.isfinite(samples).all():
        raise InputError(f"{name} has values that are not numbers (NaN or infinity): the node before it went wrong.")
    return samples


def latent(model: ModelPatcher, value: dict, name: str = "latent") -> Tensor:
    """The latents of a LATENT with the channels of the model: those of pictures or of clips."""
    samples = fitted(model, samples_of(value, name), value)
    latent_format: Any = model.get_model_object("latent_format")
    channels = latent_format.latent_channels
    if samples.ndim != latent_format.latent_dimensions + 2:
        raise InputError(f"{name} is a clip of {samples.shape[2]} frames, and this model draws pictures: connect an Empty Latent Image.")
    if samples.shape[1] != channels:
        raise InputError(f"{name} has {samples.shape[1]} channels where this model has {channels}: connect an empty latent of its kind.")
    return samples


def vae(model: ModelPatcher, value) -> None:
    channels = model.get_model_object("latent_format").latent_channels
    if value is None or value.latent_channels != channels:
        found = "nothing" if value is None else f"one of {value.latent_channels} channels"
        raise InputError(f"vae is {found} where this model needs one of {channels}: connect the VAE that belongs to the model.")


def clip(value) -> None:
    if value is None:
        raise InputError("clip is missing, as from a checkpoint without a text encoder: load one with Load CLIP.")


def encoded(model, clip, text: str) -> list:
    """A prompt as CONDITIONING, by a CLIP that has to be the model's."""
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    fits("clip", model, positive)
    return positive


def fits(name: str, model, positive: list) -> None:
    """Whether a prompt is of a text encoder that the model was trained with, where the host's configuration tells its width."""
    config = model.model.model_config.unet_config
    wanted = next((config[key] for key in TEXT_WIDTHS if isinstance(config.get(key), int)), None)
    found = positive[0][0].shape[-1]
    if wanted not in (None, found):
        raise InputError(
            f"{name} is of another kind of model: it has {found} numbers a word, and this model reads {wanted}. Take the text encoder that "
            "belongs to the model, such as that of its checkpoint."
        )


def conditioning(name: str, value: list) -> None:
    if not isinstance(value, list) or not value or not all(isinstance(part[0], Tensor) for part in value):
        raise InputError(f"{name} is empty: connect a CLIP Text Encode that says what the picture shows.")
    if not all(torch.isfinite(part[0]).all() for part in value):
        raise InputError(f"{name} has values that are not numbers (NaN or infinity): check the text encoder.")


def file_name(value: str) -> str:
    """A name, perhaps with folders, that stays in the folder it is saved in."""
    parts = value.replace("\\", "/").split("/") if isinstance(value, str) else [""]
    plain = all(part.strip(" .") and not RESERVED.fullmatch(part.strip()) for part in parts) and not FORBIDDEN.search(value)
    if not plain or len(value.encode(errors="surrogatepass")) > 200:
        raise InputError(f"name is {str(value)[:60]!r}: write a plain file name, such as 'sd15 people' (folders as in 'sd15/people').")
    return "/".join(part.strip() for part in parts)


def unwritable(name: str, error: Exception) -> InputError:
    return InputError(f"name is {name[:60]!r}, which cannot be written ({getattr(error, 'strerror', None) or error}): choose another one.")


def kind_of(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return kind_of(value)
    return " x ".join(map(str, value.shape)) + f" {str(value.dtype).removeprefix('torch.')}"
