import pytest
import torch
from freesteer.core.freeinit import levels


def test_a_schedule_begins_again_at_the_level():
    sigmas = torch.tensor([1.0, 0.95, 0.9, 0.5, 0.0])
    assert levels.restarted(sigmas, 0.936).tolist() == pytest.approx([0.936, 0.9, 0.5, 0])
    assert levels.restarted(sigmas, 0.9).tolist() == pytest.approx([0.9, 0.5, 0])  # none twice


def test_signal_and_noise_stand_there_as_at_the_end_of_the_schedule_of_stable_diffusion():
    assert pytest.approx(1 / levels.SD_END) == (1 - levels.MATCHED) / levels.MATCHED


@pytest.mark.parametrize(("share", "steps"), [(1.0, 4), (0.5, 2), (0.3, 1), (0.01, 1)])
def test_the_first_steps_are_a_share_of_all_and_one_at_least(share, steps):
    assert len(levels.first_steps(torch.linspace(1, 0, 5), share)) == steps + 1


def test_values_go_evenly_from_pass_to_pass():
    assert levels.per_pass(0.5, 0.1, 3) == pytest.approx([0.5, 0.3, 0.1])
    assert levels.per_pass(0.5, 0.1, 1) == [0.1]  # it is the last
