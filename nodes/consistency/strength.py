"""A ControlNet's strength, step by step."""

from typing import Any

from comfy.controlnet import ControlBase
from comfy_api.latest import io

from ...host.adapters.control_per_step import ControlPerStep
from ...training.curves import draw
from ..common import checks
from ..common.previews import to_tensor
from .inputs import ALIASES, CATEGORY

STRONGEST = 10.0  # as in the host's own nodes


def numbers(name: str, text: str) -> list[float]:
    """Separated by commas, spaces or lines."""
    words = text.replace(",", " ").replace(";", " ").split()
    if not words:
        raise checks.InputError(f"{name} is empty: write a number for each step, such as 1, 0.8, 0.5, 0.")
    return [checks.number(name, _number(name, word), 0, STRONGEST) for word in words]


def _number(name: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise checks.InputError(f"{name} has {word[:40]!r}, which is no number: write one for each step, such as 1, 0.8, 0.") from None


class ControlStrengthPerStep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FreeSteerControlStrengthPerStep",
            display_name="Control Strength Per Step",
            category=CATEGORY,
            description=(
                "Gives a ControlNet a strength of its own for each step of sampling. With 1 to 8 steps, percents of sampling cannot say "
                "which steps are meant; this list does. It goes between the loader and Apply ControlNet, and suits many steps as well."
            ),
            search_aliases=[*ALIASES, "controlnet schedule", "timestep keyframe", "strength schedule", "control strength"],
            inputs=[
                io.ControlNet.Input("control_net", tooltip="Any ControlNet or T2I adapter; it is not changed itself."),
                io.String.Input(
                    "strengths", default="1, 0.8, 0.6, 0.4", multiline=True, tooltip="One number for each step of the sampler, the first "
                    "step first. 1: as Apply ControlNet has it; 0: that step is drawn freely, and is quicker. Early steps place things, "
                    "late ones draw edges.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(tooltip="For Apply ControlNet, whose own strength multiplies these."),
                io.Image.Output(display_name="plot", tooltip="The strength of each step."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, control_net, strengths) -> io.NodeOutput:
        if not isinstance(control_net, ControlBase):
            raise checks.InputError(f"control_net is {checks.kind_of(control_net)}, not a ControlNet: connect Load ControlNet Model.")
        given = numbers("strengths", strengths)
        own: Any = control_net
        return io.NodeOutput(ControlPerStep(own.copy(), given), to_tensor(draw({"strength": given}))[None])


NODES = [ControlStrengthPerStep]
