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


def test_what_varies_in_a_condition_counts_and_what_does_not_is_left_alone():
    """One direction that varies, none of the components' own."""
    direction = torch.tensor([0.6, 0.0, 0.8])
    target = torch.randn(1, 400, 1, generator=torch.Generator().manual_seed(0)) * direction + 5
    metric = fg.layout_metric(target)[0]
    assert direction @ metric @ direction == pytest.approx(1 / 1.1 / 3, rel=1e-3)  # a third, as of the mean of three squares
    assert (metric @ torch.tensor([0.8, 0.0, -0.6])).abs().max() < 1e-5
    assert (metric @ torch.tensor([0.0, 1.0, 0.0])).abs().max() < 1e-5


def test_a_direction_that_varies_by_a_tenth_counts_half():
    target = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1**0.5], [0.0, -(0.1**0.5)]]])
    assert fg.layout_metric(target)[0].diagonal().tolist() == pytest.approx([0.5 / 1.1, 0.5 * 0.5])


def test_components_count_by_their_share_of_the_weights():
    target = torch.tensor([[[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]])
    metric = fg.layout_metric(target, torch.tensor([[3.0, 1.0]]))[0]
    assert metric[0, 0] == pytest.approx(0.75 / 1.1) and metric[1, 1] == pytest.approx(0.25 * (0.25 / (0.25 + 0.075)))
    assert torch.equal(fg.layout_metric(target, torch.tensor([[6.0, 2.0]]))[0], metric)
    assert (fg.layout_metric(target, torch.tensor([[1.0, 0.0]]))[0, 1] == 0).all()


def test_a_flat_condition_has_no_layout():
    metric = fg.layout_metric(torch.full((1, 16, 3), 2.0))
    assert torch.equal(metric, torch.zeros(1, 3, 3))


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


def test_a_step_is_limited_smoothly():
    """The root mean square r of the free step becomes limit r / sqrt(limit^2 + r^2)."""
    gradient = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    energy = torch.tensor([0.5, 2.0, 30.0])
    free = gradient * (0.4 * energy / gradient.square().sum((1, 2)))[:, None, None]
    rms = free.square().mean((1, 2)).sqrt()
    found = bounded_step(gradient, energy, 0.4, 0.05)
    torch.testing.assert_close(found, free * (0.05 / (0.05**2 + rms**2).sqrt())[:, None, None])
    assert found.shape == gradient.shape


def test_the_limit_of_the_background_is_its_largest_coordinate_and_none_without_background():
    target = torch.tensor([[[1.0, -5.0], [9.0, 9.0], [2.0, -7.0], [4.0, -6.0]]])
    assert fg.background_limit(target, torch.tensor([[0.0, 1.0, 0.5, 0.51]])).tolist() == [[[2.0, -5.0]]]
    assert fg.background_limit(target, torch.ones(1, 4)).tolist() == [[[math.inf, math.inf]]]


def test_a_mask_of_parts_weighs_both_halves():
    coordinates, target = torch.tensor([[[3.0], [5.0]]]), torch.tensor([[[1.0], [1.0]]])
    mask, limit = torch.tensor([[1.0, 0.25]]), torch.tensor([[[2.0]]])
    placed = (1.0 * 4 + 0.25 * 16) / 1.25
    assert fg.structure_energy(coordinates, target, mask, limit, 0.0).item() == pytest.approx(placed)
    excess = 0.75 * 9 / 1.0  # of less than one token outside, as of one
    assert fg.structure_energy(coordinates, target, mask, limit, 2.0).item() == pytest.approx(placed + 2 * excess)


def test_appearance_energy_is_in_units_of_the_spread():
    look, sibling = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]])
    assert fg.appearance_energy(look, sibling, torch.tensor(2.0)).item() == pytest.approx((5 + 0 + 9) / 3 / 2)


@pytest.mark.parametrize(("old", "new"), [((8, 8), (2, 8)), ((8, 8), (8, 2)), ((8, 8), (2, 2))])
def test_a_smaller_grid_is_a_mean_of_the_larger(old, new):
    """Every fourth line counts, though none lies near a place of the smaller grid."""
    lines = torch.ones(8, 8)
    lines[:: 4 if new[0] < 8 else 1, :: 4 if new[1] < 8 else 1] = -1
    small = fg.resample(lines.reshape(1, 64, 1), old, new).reshape(new)
    wanted = lines.mean()
    torch.testing.assert_close(small, wanted.expand(new), atol=0.6 * float(1 - wanted), rtol=0)


def test_rows_and_columns_of_a_grid_are_told_apart():
    down = torch.arange(3.0)[:, None].expand(3, 5)
    found = fg.resample(down.reshape(1, 15, 1), (3, 5), (5, 3)).reshape(5, 3)
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 0.4, 1.0, 1.6, 2.0]))
    torch.testing.assert_close(found, found[:, :1].expand(5, 3))
