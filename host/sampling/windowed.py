"""A prediction window by window: what it was asked with is cut to each window, and the predictions are averaged where windows overlap.

Windows go through the model as a batch: rows are (window, picture). Everything that has a place in the picture is cut by `cut_condition`:
areas and masks, what a model has concatenated to its latent, reference latents of the picture's own size, and hints of ControlNets. What
belongs to a place but is no picture, such as a prompt for each, comes from `Between`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.utils
import torch
from comfy import model_management
from comfy.conds import CONDList
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...core import windows
from ...core.windows import Place

KEY = "freesteer_windows"
MOST = 32  # windows in one batch
RAMP = 8  # latent pixels over which the host begins and ends an area
UNCUT = {
    "gligen": "GLIGEN's boxes are", "vace_context": "VACE's pictures are", "effnet": "the effnet latent of Stable Cascade's stage B is",
    "camera_conditions": "Wan's camera is", "position_ids": "HiDream's positions are",
}  # fmt: skip
SPARE = 1.5  # of what the host counts for a batch, as it does itself

Condition = dict[str, Any]


class WindowsError(ValueError):
    """Why a picture cannot be drawn in windows."""


Between = Callable[[list[Condition], Sequence[Place], torch.Size], list[Condition]]


@dataclass(frozen=True)
class Windowing:
    """window, stride: (h, w) in latent pixels. wraps: whether the picture goes on from top to bottom, and from left to right. together: how
    many windows are a batch, 0: as many as fit into memory. between: makes the conditions of some windows (Place) of those of the whole."""

    window: tuple[int, int]
    stride: tuple[int, int]
    wraps: tuple[bool, bool] = (False, False)
    blending: str = "gaussian"
    together: int = 0
    between: Between = lambda conditions, places, size: conditions

    def fitted(self, size: Sequence[int]) -> tuple[int, int]:
        """The window, no larger than a picture (H, W)."""
        return min(self.window[0], size[0]), min(self.window[1], size[1])


def attach(model: ModelPatcher, windowing: Windowing) -> ModelPatcher:
    """A clone of `model` that predicts window by window."""
    m = model.clone()
    wrappers = {
        WrappersMP.OUTER_SAMPLE: _outer_sample,
        WrappersMP.PREPARE_SAMPLING: _prepare_sampling,
        WrappersMP.CALC_COND_BATCH: _calc_cond_batch,
    }
    for kind, wrapper in wrappers.items():
        m.remove_wrappers_with_key(kind, KEY)
        m.add_wrapper_with_key(kind, KEY, partial(wrapper, windowing))
    return m


def _outer_sample(windowing: Windowing, executor, noise: Tensor, *args, **kwargs):
    """Hints of ControlNets are kept for a run in the picture's size; prompts that a model has with a size (SDXL) have that of a window."""
    guider = executor.class_obj
    pixels = getattr(guider.model_patcher.get_model_object("latent_format"), "spacial_downscale_ratio", 8)
    height, width = (side * pixels for side in windowing.fitted(noise.shape[-2:]))
    for conditions in guider.conds.values():  # the run's own copies
        for condition in conditions:
            condition.setdefault("width", width)
            condition.setdefault("height", height)
    options = guider.model_options["transformer_options"]
    options[KEY] = {}
    try:
        return executor(noise, *args, **kwargs)
    finally:
        options.pop(KEY, None)


def _prepare_sampling(windowing: Windowing, executor, model, noise_shape, conds, *args, **kwargs):
    """Room for a window at a time is enough."""
    shape = [*noise_shape[:-2], *windowing.fitted(noise_shape[-2:])]
    return executor(model, type(noise_shape)(shape), conds, *args, **kwargs)


def _calc_cond_batch(windowing: Windowing, executor, model, conds, x: Tensor, timestep: Tensor, model_options):
    size = x.shape[-2:]
    window = windowing.fitted(size)
    places = windows.places(size, window, windowing.stride, windowing.wraps)
    weight = windows.weights(window, windowing.blending).to(x)
    totals, counted = [torch.zeros_like(x) for _ in conds], x.new_zeros(size)
    together = windowing.together or _room(model, x, window, len(conds))
    hints = model_options.get("transformer_options", {}).get(KEY, {})
    check(conds, x, len(places))
    if len(places) == 1:
        told = [None if each is None else windowing.between(each, places, x.shape) for each in conds]
        return executor(model, told, x, timestep, model_options)
    for start in range(0, len(places), together):
        some = places[start : start + together]
        rows = torch.cat([windows.cut(x, place, window) for place in some])
        cut = Cut(tuple(some), window, x.shape, x.device, hints)
        asked = [None if each is None else [cut_condition(c, cut) for c in windowing.between(each, some, x.shape)] for each in conds]
        found = executor(model, asked, rows, timestep.repeat(len(some)), model_options)
        for total, predicted in zip(totals, found, strict=True):
            for place, one in zip(some, predicted.chunk(len(some)), strict=True):
                windows.add(total, one * weight, place, window)
        for place in some:
            windows.add(counted, weight, place, window)
    return [total / counted for total in totals]


def check(conds: Sequence[Any], x: Tensor, count: int) -> None:
    """Refuses what belongs to the whole picture and cannot be cut."""
    if count == 1:
        return
    if x.ndim not in (4, 5):
        raise WindowsError("This model's latents are no pictures to cut windows from, as of video with sound: use no Grid Guidance.")
    for condition in (c for conditions in conds if conditions is not None for c in conditions):
        whole = next((what for name, what in UNCUT.items() if name in condition or name in condition["model_conds"]), None)
        if whole is None and getattr(condition.get("control"), "multigpu_clones", None):
            whole = "a ControlNet on several GPUs is"
        if whole is not None:
            raise WindowsError(f"{whole} of the whole picture, and cannot be cut to windows: leave it out, or use no Grid Guidance.")


def _room(model, x: Tensor, window: tuple[int, int], branches: int) -> int:
    """How many windows fit into memory at once."""
    free = model_management.get_free_memory(x.device)
    together = MOST
    while together > 1 and model.memory_required([together * branches * len(x), *x.shape[1:-2], *window]) * SPARE > free:
        together //= 2
    return together


@dataclass(frozen=True)
class Cut:
    """Windows (h, w) at places in latents of a shape (B, C, ..., H, W). hints: those of a run, by ControlNet, in the picture's size,
    and ControlNets of windows that encode theirs. controls: what is cut already, as the host asks one for all rows that share it."""

    places: tuple[Place, ...]
    window: tuple[int, int]
    shape: torch.Size
    device: torch.device
    hints: dict[Any, Any] = field(default_factory=dict)
    controls: dict[Any, Any] = field(default_factory=dict)

    def rows(self, values: Tensor) -> Tensor:
        """Of values (1 or B, ..., H, W), the windows (places * B, ..., h, w)."""
        pictures = comfy.utils.repeat_to_batch_size(values, self.shape[0])
        return torch.cat([windows.cut(pictures, place, self.window) for place in self.places])

    def has_places(self, values: Any) -> bool:
        """Texts have an axis less than latents."""
        return isinstance(values, Tensor) and values.ndim == len(self.shape) and values.shape[-2:] == self.shape[-2:]


def cut_condition(condition: Condition, cut: Cut) -> Condition:
    changed = {**condition, "uuid": (condition["uuid"], cut.places)}  # by which others keep what was predicted before
    mask = _mask_of(condition, cut)
    if mask is not None:
        changed.pop("area", None)
        changed["mask"] = cut.rows(mask)
    if condition.get("control") is not None:
        changed["control"] = _cut_control(condition["control"], cut)
    changed["model_conds"] = {name: _cut_value(value, cut) for name, value in condition["model_conds"].items()}
    return changed


def _mask_of(condition: Condition, cut: Cut) -> Tensor | None:
    """(1 or B, ..., H, W): where a prompt counts, if not everywhere alike."""
    area, mask = condition.get("area"), condition.get("mask")
    if area is None:
        return mask
    sides = cut.shape[2:]
    inside = torch.ones(1, *sides, device=cut.device)
    for axis, (length, start, side) in enumerate(zip(area[: len(sides)], area[len(sides) :], sides, strict=True), 1):
        shape = [1] * inside.ndim
        shape[axis] = side
        inside = inside * _span(start, length, side, soft=mask is None).to(inside).view(shape)
    return inside if mask is None else mask * inside.to(mask)


def _span(start: int, length: int, side: int, soft: bool) -> Tensor:
    """(side,): 1 within a part of a side, 0 outside, with the ramps that the host gives areas without a mask, but not at the rim."""
    span = torch.zeros(side)
    span[start : start + length] = 1
    ramp = min(RAMP, min(length, side - start) // 4) if soft else 0
    rising = torch.arange(1, ramp + 1) / max(ramp, 1)
    if start > 0:
        span[start : start + ramp] *= rising
    if start + length < side:
        span[start + length - ramp : start + length] *= rising.flip(0)
    return span


def _cut_value(value: Any, cut: Cut) -> Any:
    """What the host gives the model, in rows of windows if it has places; others it repeats by itself."""
    content = value.cond
    if cut.has_places(content):
        return value._copy_with(cut.rows(content))
    if isinstance(value, CONDList) and any(map(cut.has_places, content)):
        return value._copy_with([cut.rows(one) if cut.has_places(one) else one for one in content])
    return value


def _cut_control(control: Any, cut: Cut) -> Any:
    """A copy of a ControlNet, and of those before it, whose hint is of the windows. It was made ready for the run as it is."""
    encoded = control.vae is not None  # its hint becomes latents, which are small, and take time
    kept: dict[Any, Any] = cut.hints if encoded else cut.controls
    key = (control, cut.places)
    if key in kept:
        return kept[key]
    if encoded and control.vae.latent_dim == 3 and len(cut.places) * cut.shape[0] > 1:
        raise WindowsError("This ControlNet's VAE takes several windows for the frames of a clip: set together to 1 in Grid Guidance.")
    copied = kept[key] = copy.copy(control)
    copied.cond_hint = None
    if hasattr(control, "control_input"):  # what a T2I adapter made of the whole hint
        copied.control_input = None
    scale = control.compression_ratio * (control.vae.spacial_compression_encode() if control.vae is not None else 1)
    places = tuple((top * scale, left * scale) for top, left in cut.places)
    copied.cond_hint_original, *copied.extra_concat_orig = (
        Cut(places, (cut.window[0] * scale, cut.window[1] * scale), torch.Size([cut.shape[0], *hint.shape[1:]]), cut.device).rows(hint)
        for hint in _hints(control, scale, cut)
    )
    if control.previous_controlnet is not None:
        copied.previous_controlnet = _cut_control(control.previous_controlnet, cut)
    return copied


def _hints(control: Any, scale: int, cut: Cut) -> list[Tensor]:
    """What a ControlNet is shown of the whole picture, `scale` of its pixels to a latent pixel, whatever its size was."""
    if control not in cut.hints:
        h, w = (side * scale for side in cut.shape[-2:])
        given = [control.cond_hint_original, *control.extra_concat_orig]
        cut.hints[control] = [comfy.utils.common_upscale(hint, w, h, control.upscale_algorithm, "center") for hint in given]
    return cut.hints[control]
