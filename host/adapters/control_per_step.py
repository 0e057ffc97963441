"""Any of the host's ControlNets with a strength of its own for each step of sampling, for all of the host's nodes to go on with.

A range in percent cannot say so at few steps: with four of them, .24 is one step and .26 is two.
"""

from collections.abc import Sequence
from typing import Any

import torch
from comfy.controlnet import ControlBase


class StepsError(ValueError):
    """Written for the user: why strengths and steps do not go together."""


def step_of(sigma: float, sigmas: torch.Tensor) -> int:
    """Which step of sampling a noise level belongs to; sigmas: of the run, falling, (steps + 1,)."""
    reached = sigmas[:-1].float().cpu() >= sigma * (1 - 1e-4)
    return max(int(reached.sum()) - 1, 0)


class ControlPerStep(ControlBase):
    """strengths: one a step, times the strength that it is applied with; at 0, the network is not evaluated. What the host asks or tells a
    ControlNet goes to `inner`."""

    def __init__(self, inner: ControlBase, strengths: Sequence[float]) -> None:
        super().__init__()
        self.inner, self.strengths = inner, tuple(strengths)
        inner.copy_to(self)

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options) -> Any:
        own = self.strengths[self._step(float(t[0]), transformer_options)]
        if own == 0:
            previous: Any = self.previous_controlnet
            return None if previous is None else previous.get_control(x_noisy, t, cond, batched_number, transformer_options)
        inner: Any = self.inner
        inner.strength = self.strength * own
        return inner.get_control(x_noisy, t, cond, batched_number, transformer_options)

    def _step(self, sigma: float, transformer_options: dict[str, Any]) -> int:
        sigmas = transformer_options.get("sample_sigmas")
        if sigmas is None:
            raise StepsError("strengths: this sampler does not tell which steps it takes. Use one of ComfyUI's samplers.")
        steps = len(sigmas) - 1
        if steps != len(self.strengths):
            raise StepsError(
                f"strengths has {len(self.strengths)} numbers, and the sampler takes {steps} steps: write a number for each of its steps."
            )
        return step_of(sigma, sigmas)

    def set_cond_hint(self, *args, **kwargs) -> "ControlPerStep":
        super().set_cond_hint(*args, **kwargs)
        self.inner.set_cond_hint(*args, **kwargs)
        return self

    def set_previous_controlnet(self, controlnet) -> "ControlPerStep":
        super().set_previous_controlnet(controlnet)
        self.inner.set_previous_controlnet(controlnet)
        return self

    def set_extra_arg(self, argument, value=None) -> None:
        super().set_extra_arg(argument, value)
        self.inner.set_extra_arg(argument, value)

    def pre_run(self, model, percent_to_timestep_function) -> None:
        self.inner.pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        self.inner.cleanup()

    def get_models(self) -> list:
        return self.inner.get_models()

    def inference_memory_requirements(self, dtype) -> float:
        return self.inner.inference_memory_requirements(dtype)

    def copy(self) -> "ControlPerStep":
        inner: Any = self.inner
        made = ControlPerStep(inner.copy(), self.strengths)
        self.copy_to(made)
        return made

    def deepclone_multigpu(self, load_device, autoregister=False) -> "ControlPerStep":
        made = ControlPerStep(self.inner.deepclone_multigpu(load_device, autoregister), self.strengths)
        self.copy_to(made)
        if autoregister:
            self.multigpu_clones[load_device] = made
        return made
