"""Reading features, and the gradient of an energy of them, in the conditional rows of a prediction that the host makes.

What is asked (`Request`) and what came of it (`Readout`) are apart. Where a prediction is in between is told by what lies in its
transformer_options: at first the whole order (ORDER), then, in the call for the conditional rows alone, what to read there (READING).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..gradients import passes
from ..gradients.attention import with_derivative
from ..models.taps import Readable, Taps

KEY = "freesteer_reading"
ORDER, READING = f"{KEY}_order", f"{KEY}_now"
Features = dict[str, Tensor]


@dataclass(frozen=True)
class Request:
    """shape: of the latents, (B, C, ...). points: what to read. energy: of features (B, tokens, channels) to (B,), or of several guides
    (guides, B), whose gradient is wanted; None: only the features. positive: the conditions to read at; the first ones if None.
    recompute: see gradients.memory."""

    shape: torch.Size
    points: Sequence[Readable]
    energy: Callable[[Features], Tensor] | None = None
    positive: list | None = None
    recompute: bool = False


@dataclass
class Readout:
    """What was read: an entry for each pass over the latents, of which a regional prompt needs several. asked: whether the model was asked
    about the conditions at all: it is not where none of their prompts is for this time of sampling."""

    asked: bool = False
    passes: list[Features] = field(default_factory=list)
    energies: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)

    @property
    def features(self) -> Features:
        """Means over the passes: (latents, tokens, channels). Without those of texts of different length, which have no mean."""
        if not self.passes:
            return {}
        by_name = {name: [one[name] for one in self.passes] for name in self.passes[0]}
        return {name: torch.stack(each).mean(0) for name, each in by_name.items() if len({f.shape for f in each}) == 1}


@dataclass
class Order:
    """A request for the next prediction; `started` from then on, for what another pack evaluates in the same step is not read."""

    request: Request
    readout: Readout
    started: bool = False


def readable(model: ModelPatcher) -> ModelPatcher:
    """A clone of `model` whose predictions can be `asked`."""
    m = model.clone()
    if not m.get_wrappers(WrappersMP.CALC_COND_BATCH, KEY):
        m.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _calc_cond_batch)
        m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _apply_model)  # not every diffusion model has wrappers of its own
    return m


def asking(model_options: dict[str, Any], request: Request | None) -> tuple[dict[str, Any], Readout]:
    """Options for one prediction that is to be read, and where what is read will be. Without a request: the same options."""
    readout = Readout()
    return model_options if request is None else _with(model_options, ORDER, Order(request, readout)), readout


def _with(model_options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Copies; the user's own stay as they are."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), key: value}}


def _calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    """The other conditions first, then those to be read, in a call of their own."""
    order: Order | None = model_options.get("transformer_options", {}).get(ORDER)
    if order is None or order.started:
        return executor(model, conds, x_in, timestep, model_options)
    place = next((i for i, cond in enumerate(conds) if cond is not None and cond is order.request.positive), 0)  # dual CFG has it last
    if conds[place] is None:
        return executor(model, conds, x_in, timestep, model_options)
    order.started = True
    others = [None if i == place else cond for i, cond in enumerate(conds)]
    predicted = executor(model, others, x_in, timestep, model_options) if any(c is not None for c in others) else None
    alone = [cond if i == place else None for i, cond in enumerate(conds)]
    read = executor(model, alone, x_in, timestep, _with(model_options, READING, order))
    return read if predicted is None else [*predicted[:place], read[place], *predicted[place + 1 :]]


def _apply_model(executor, x: Tensor, timestep: Tensor, *args, **kwargs):
    options = next((a for a in (*args, *kwargs.values()) if isinstance(a, dict) and READING in a), None)
    if options is None:
        return executor(x, timestep, *args, **kwargs)
    request, readout = options[READING].request, options[READING].readout
    readout.asked = True
    if x.shape[2:] != request.shape[2:]:
        return executor(x, timestep, *args, **kwargs)
    diffusion_model = executor.class_obj.diffusion_model
    taps = Taps(diffusion_model, request.points, x.shape, stop_gradient=request.energy is not None)
    if request.energy is None:
        with taps:
            inputs, named = (with_changed_options(READING, taps.through_attention, arguments) for arguments in (args, kwargs))
            output = executor(x, timestep, *inputs, **named)
        readout.passes += _by_pass(taps.features, request.shape[0])
        return output
    energy = request.energy

    def energies(features: Features) -> Tensor:
        return torch.cat([energy(one) for one in _by_pass(features, request.shape[0])], -1)

    def through(options: dict[str, Any]) -> dict[str, Any]:
        return taps.through_attention(with_derivative(options))

    def run(x: Tensor) -> Tensor:
        inputs = passes.normal((timestep, *args))  # fresh lists each time: the host takes a ControlNet's answers off them
        named = with_changed_options(READING, through, passes.normal(kwargs))
        return executor(x, *with_changed_options(READING, through, inputs), **named)

    found = passes.forward_with_gradient(run, x, taps, energies, diffusion_model, request.recompute)
    readout.gradients += found.gradient.unflatten(-len(request.shape), (-1, request.shape[0])).unbind(-len(request.shape) - 1)
    readout.energies += found.energies.unflatten(-1, (-1, request.shape[0])).unbind(-2)
    readout.passes += _by_pass(found.features, request.shape[0])
    return found.output


def with_changed_options(key: str, change: Callable[[dict[str, Any]], dict[str, Any]], arguments: Any) -> Any:
    """A tuple or dict of arguments, of which transformer_options, the dict that has `key`, are changed."""
    if isinstance(arguments, dict):
        return dict(zip(arguments, with_changed_options(key, change, tuple(arguments.values())), strict=True))
    return tuple(change(each) if isinstance(each, dict) and key in each else each for each in arguments)


def _by_pass(features: Features, latents: int) -> list[Features]:
    """Rows of one call, which holds the latents once for each region, as one entry each; in float32 or better."""
    parts = {name: f.unflatten(0, (-1, latents)) for name, f in features.items()}
    count = len(next(iter(parts.values())))
    return [{name: part[i].to(torch.promote_types(part.dtype, torch.float32)) for name, part in parts.items()} for i in range(count)]
