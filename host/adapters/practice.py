"""A model as a trainer has it: loaded by the host with all that is patched onto it, its prompts as the host has processed them, and
evaluated with a graph to what is trained beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..gradients import passes, preparation
from ..gradients.attention import with_derivative
from ..models.taps import Taps
from ..sampling import steering
from ..sampling.reading import with_changed_options

KEY = "freesteer_practice"
Conditioning = list
Found = TypeVar("Found")


class PracticeError(ValueError):
    """Written for the user: why this cannot be trained on."""


@dataclass(frozen=True)
class Practice:
    """base: the host's BaseModel. conds: of each prompt, by its name."""

    base: Any
    conds: Mapping[str, list]
    options: dict[str, Any]

    @property
    def sampling(self) -> Any:
        return self.base.model_sampling

    def predict(self, name: str | Sequence[str], x: Tensor, sigma: float | Tensor, taps: Taps | None = None, control: Any = None) -> Tensor:
        """The clean latents that are predicted from x (B, ...) with a prompt, or one for each row, at a noise level, or one for each row
        (B,). What `taps`, which have to be entered, ask for is read on the way; control: one of the host's, to apply. With a graph where
        gradients are on."""
        inner = {**self.options.get("transformer_options", {}), KEY: taps}
        options = {**self.options, "transformer_options": inner}
        cond = self.conds[name] if isinstance(name, str) else together([self.conds[one] for one in name])
        cond = cond if control is None else [{**part, "control": control} for part in cond]
        sigmas = sigma if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)
        return comfy.samplers.calc_cond_batch(self.base, [cond], x, sigmas, options)[0]


def together(conds: Sequence[list]) -> list:
    """Processed prompts as one with a row for each, put together as the host does it for a batch."""
    if any(len(cond) != 1 for cond in conds):
        raise PracticeError("A prompt of several parts (combined, or with areas) cannot be trained on: take one part.")
    models: list[dict[str, Any]] = [cond[0]["model_conds"] for cond in conds]
    first = models[0]
    joined = {name: one._copy_with(one.concat([each[name] for each in models[1:]])) for name, one in first.items()}
    return [{**conds[0][0], "model_conds": joined}]


def practise(
    model: ModelPatcher, prompts: Mapping[str, Conditioning], latent: Tensor, pictures: int, body: Callable[[Practice], Found]
) -> Found:
    """Loads a MODEL as for a run, and hands it to `body`, outside of inference mode; gives what that returns. latent: of the form that is
    trained on, of any content (1, C, ...). pictures: of a step; the host is asked for room for so many."""
    m = preparation.prepare(steering.without_guides(model))
    m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _apply_model)
    guider = comfy.samplers.CFGGuider(m)
    guider.inner_set_conds(dict(prompts))
    sampling: Any = m.get_model_object("model_sampling")
    highest = torch.tensor([float(sampling.sigma_max), 0.0])
    lent = _Lent(body)
    nothing = latent.new_zeros(pictures, *latent.shape[1:])
    guider.sample(nothing, nothing, lent, highest, disable_pbar=True, seed=0)
    return lent.found


class _Lent(comfy.samplers.Sampler, Generic[Found]):
    """A run of the host that is `body`'s."""

    found: Found

    def __init__(self, body: Callable[[Practice], Found]) -> None:
        self.body = body

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *_latent_mask_and_bar):
        with torch.inference_mode(False):
            self.found = self.body(Practice(model_wrap.inner_model, model_wrap.conds, extra_args["model_options"]))
        return noise


def _apply_model(executor, x: Tensor, timestep: Tensor, *args, **kwargs):
    options = next((a for a in (*args, *kwargs.values()) if isinstance(a, dict) and KEY in a), None)
    if options is None or not torch.is_grad_enabled():
        return executor(x, timestep, *args, **kwargs)
    taps: Taps | None = options[KEY]

    def through(options: dict[str, Any]) -> dict[str, Any]:
        return with_derivative(options) if taps is None else taps.through_attention(with_derivative(options))

    inputs = passes.normal((timestep, *args))
    return executor(
        passes.normal(x), *with_changed_options(KEY, through, inputs), **with_changed_options(KEY, through, passes.normal(kwargs))
    )
