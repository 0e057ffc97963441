import math

import pytest
import torch
from freesteer.core.bounded_step import bounded_step
from freesteer.core.freecontrol import feature_guidance as fg
from freesteer.core.freecontrol.energy import log_position


def test_the_energy_is_zero_at_the_target_and_only_there():
    target = torch.randn(2, 16, 4)
    mask = torch.ones(2, 16)
    limit = fg.background_limit(target, mask)
    assert fg.structure_energy(target, target, mask, limit, 1.0).abs().max() == 0
    assert fg.structure_energy(target + 0.1, target, mask, limit, 1.0).min() > 0


def test_differences_below_the_slack_are_none():
    target, mask = torch.randn(1, 16, 4), torch.ones(1, 16)
    limit = fg.background_limit(target, mask)
    assert fg.structure_energy(target + 0.4, target, mask, limit, 0.0, slack=0.5).item() == 0
    assert fg.structure_energy(target - 0.7, target, mask, limit, 0.0, slack=0.5).item() == pytest.approx(0.2**2)


def test_outside_of_the_mask_only_excess_counts():
    target, mask = torch.zeros(1, 4, 1), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    target[0, 2:] = torch.tensor([[1.0], [3.0]])
    limit = fg.background_limit(target, mask)
    assert limit.flatten().tolist() == [3.0]
    below, above = target.clone(), target.clone()
    below[0, 2] = -50
    above[0, 2] = 5
    assert fg.structure_energy(below, target, mask, limit, 1.0).item() == 0
    assert fg.structure_energy(above, target, mask, limit, 1.0).item() == pytest.approx((5 - 3) ** 2 / 2)


def test_relative_coordinates_ignore_light_and_colour_as_a_whole():
    coordinates = torch.randn(2, 16, 4)
    torch.testing.assert_close(fg.relative(coordinates + 7), fg.relative(coordinates))


def test_a_step_takes_off_the_share_it_is_asked_for():
    """E = |x|^2 / 2 has gradient x; a first-order step of share r leaves E (1 - r / 2)^2."""
    x = torch.randn(3, 4, 8, 8)
    energy = x.flatten(1).square().sum(1) / 2
    step = bounded_step(x, energy, rate=0.2, limit=1e3)
    after = (x - step).flatten(1).square().sum(1) / 2
    torch.testing.assert_close(after / energy, torch.full((3,), 0.9**2), rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_the_step_does_not_depend_on_the_scale_of_the_energy(scale):
    gradient, energy = torch.randn(2, 4, 8, 8), torch.rand(2) + 1
    plain = bounded_step(gradient, energy, 1.0, 1.0)
    torch.testing.assert_close(bounded_step(scale * gradient, scale * energy, 1.0, 1.0), plain, rtol=1e-3, atol=1e-6)


def test_no_step_exceeds_its_limit_and_none_is_taken_without_a_gradient():
    gradient = torch.randn(2, 4, 8, 8)
    gradient[1] = 0
    step = bounded_step(1e-4 * gradient, torch.tensor([1.0, 1.0]), 5.0, 0.3)
    assert step[0].square().mean().sqrt() <= 0.3 + 1e-6
    assert step[1].abs().max() == 0
    assert torch.isfinite(step).all()


def test_appearance_is_the_weighted_mean_key():
    keys, coordinates = torch.randn(1, 5, 3), torch.full((1, 5, 2), -math.inf)
    coordinates[0, 2, 1] = math.inf  # the second component looks at token 2 alone
    coordinates[0, :, 0] = 0  # the first looks everywhere alike
    v = fg.appearance(keys, coordinates, 2)
    torch.testing.assert_close(v[0, 0], keys[0].mean(0))
    torch.testing.assert_close(v[0, 1], keys[0].mean(0))
    torch.testing.assert_close(v[0, 2], keys[0, 2])


def test_resampling_keeps_a_ramp_and_returns_to_the_same_grid_untouched():
    ramp = torch.linspace(0, 1, 8).repeat(6, 1).reshape(1, 48, 1)
    assert fg.resample(ramp, (6, 8), (6, 8)) is ramp
    up = fg.resample(ramp, (6, 8), (12, 16)).reshape(12, 16)
    assert (up.diff(dim=1) >= 0).all()
    torch.testing.assert_close(up[0], up[-1])


def test_a_place_between_noise_levels_is_by_log_sigma():
    sigmas = torch.tensor([10.0, 1.0, 0.1])
    assert [round(log_position(sigmas, s), 3) for s in (100, 10, 10**0.5, 1, 0.1, 0.01)] == [0, 0, 0.5, 1, 2, 2]
