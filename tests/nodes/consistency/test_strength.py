"""Control Strength Per Step: each step has the strength that the list says, on every ControlNet of the host."""

import pytest
import torch
from freesteer.host.adapters.control_per_step import StepsError, step_of
from freesteer.nodes.common.checks import InputError
from freesteer.tests.host.controls import UNETS, control_of, drawn

from ..conftest import run, tiny


def per_step(control, strengths: str):
    return run("FreeSteerControlStrengthPerStep", control_net=control, strengths=strengths)[0]


@pytest.mark.parametrize("family", UNETS)
def test_ones_are_the_controlnet_itself_and_noughts_are_none(family):
    made = tiny.build(family, True)
    control = control_of(made)
    plain, whole = made.sample(steps=4), drawn(made, control)
    assert not torch.equal(whole, plain)
    assert torch.equal(drawn(made, per_step(control, "1 1 1 1")), whole)
    assert torch.equal(drawn(made, per_step(control, "0, 0, 0, 0")), plain)
    assert torch.equal(drawn(made, per_step(control, "0.5\n0.5\n0.5\n0.5")), drawn(made, control, 0.5))
    assert torch.equal(drawn(made, control), whole)


def test_each_step_has_its_own():
    """As ranges of the host have it that end between two steps."""
    made = tiny.build("SD 1.5", True)
    control = control_of(made)
    first = drawn(made, per_step(control, "1 0 0 0"))
    assert torch.equal(first, drawn(made, control, end=0.1))
    last = drawn(made, per_step(control, "0 0 0 1"))
    assert not torch.equal(first, last) and not torch.equal(last, made.sample(steps=4))


def test_a_chain_keeps_the_others():
    made = tiny.build("SD 1.5", True)
    one, other = control_of(made), control_of(made, 1)
    assert torch.equal(drawn(made, per_step(one, "0 0 0 0"), previous=other), drawn(made, other))
    assert torch.equal(drawn(made, per_step(one, "1 1 1 1"), previous=other), drawn(made, one, previous=other))
    assert torch.equal(drawn(made, one, previous=per_step(other, "1 1 1 1")), drawn(made, one, previous=other))


def test_lists_of_lists_multiply():
    made = tiny.build("SD 1.5", True)
    control = control_of(made)
    assert torch.equal(drawn(made, per_step(per_step(control, "1 .5 1 0"), ".5 1 1 1")), drawn(made, per_step(control, ".5 .5 1 0")))


def test_one_and_eight_steps():
    made = tiny.build("SD 1.5", True)
    control = control_of(made)
    assert torch.equal(drawn(made, per_step(control, "1"), steps=1), drawn(made, control, steps=1))
    assert torch.equal(drawn(made, per_step(control, "1 " * 8), steps=8), drawn(made, control, steps=8))


@pytest.mark.parametrize("count", [3, 5])
def test_another_number_of_steps_is_told(count):
    made = tiny.build("SD 1.5", True)
    with pytest.raises(StepsError, match=f"strengths has {count} numbers, and the sampler takes 4 steps"):
        drawn(made, per_step(control_of(made), "1 " * count))


def test_a_step_is_found_by_its_noise():
    sigmas = torch.tensor([10.0, 4.0, 1.0, 0.0])
    assert [step_of(sigma, sigmas) for sigma in (11.0, 10.0, 7.0, 4.0, 1.0000001, 1.0, 0.5)] == [0, 0, 0, 1, 2, 2, 2]


def test_it_is_shown():
    _, plot = run("FreeSteerControlStrengthPerStep", control_net=control_of(tiny.build("SD 1.5", True)), strengths="1, 0.5, 0.2, 0")
    assert plot.ndim == 4 and plot.std() > 0.05


@pytest.mark.parametrize(
    ("strengths", "says"),
    [
        ("", "strengths is empty"),
        (" ,; ", "strengths is empty"),
        ("1, strong, 0", "'strong', which is no number"),
        ("1, 0,5x", "'5x', which is no number"),
        ("1, -0.5", "strengths is -0.5"),
        ("11", "strengths is 11"),
        ("nan", "strengths is nan"),
        ("inf", "strengths is inf"),
    ],
)
def test_what_cannot_be_is_said(strengths, says):
    with pytest.raises(InputError, match=says):
        per_step(control_of(tiny.build("SD 1.5", True)), strengths)


def test_only_controlnets():
    with pytest.raises(InputError, match="control_net is nothing, not a ControlNet"):
        per_step(None, "1")
