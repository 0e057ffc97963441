import pytest
import torch
from freesteer.host.gradients import preparation
from freesteer.host.sampling.sigma_range import SigmaInterval, SigmaRange
from freesteer.tests.host import tiny

ALL = SigmaRange()
FIRST_60 = SigmaRange(0.0, 0.6)


@pytest.fixture(params=["SD 1.5", "SVD", "Flux", "Wan"])  # discrete, EDM, and two flows
def sampling(request):
    return tiny.build(request.param).model.get_model_object("model_sampling")


def test_the_whole_range_takes_in_every_sigma(sampling):
    for sigma in (0.0, float(sampling.sigma_min) / 10, float(sampling.sigma_max), float(sampling.sigma_max) * 10):
        assert ALL.contains(sigma, sampling)


def test_bounds_are_in_and_what_is_beyond_is_out(sampling):
    bound = float(sampling.percent_to_sigma(0.6))
    interval = FIRST_60.resolve(sampling)
    assert interval.contains(bound) and interval.contains(float(sampling.sigma_max))
    assert not interval.contains(bound * 0.999)
    later = SigmaRange(0.6, 1.0).resolve(sampling)
    assert later.contains(bound) and later.contains(0.0) and not later.contains(bound * 1.001)


def test_an_empty_range_contains_nothing(sampling):
    middle = float(sampling.percent_to_sigma(0.5))
    assert not any(SigmaRange(0.8, 0.2).contains(sigma, sampling) for sigma in (0.0, middle, float(sampling.sigma_max)))


def test_percents_count_from_where_a_run_begins(sampling):
    middle = float(sampling.percent_to_sigma(0.4))
    noise = torch.ones(1)
    later = FIRST_60.of_run(noise, torch.tensor([middle, 0.0]), sampling)
    assert later.start_percent == 0.0 and later.end_percent == pytest.approx(0.76, abs=2e-3)
    second = SigmaRange(0.5, 1.0).of_run(noise, torch.tensor([middle, 0.0]), sampling)
    assert second.start_percent == pytest.approx(0.7, abs=2e-3) and second.end_percent == 1.0
    for sigma in (float(sampling.sigma_max), float(sampling.percent_to_sigma(0.03)), 10 * float(sampling.sigma_max)):
        assert FIRST_60.of_run(noise, torch.tensor([sigma, 0.0]), sampling) is FIRST_60


def test_a_run_that_goes_on_with_anothers_latent_keeps_the_percents_of_whole_sampling(sampling):
    middle = torch.tensor([float(sampling.percent_to_sigma(0.4)), 0.0])
    assert FIRST_60.of_run(torch.zeros(1), middle, sampling) is FIRST_60


def test_a_tensor_of_sigmas_counts_as_its_value():
    assert SigmaInterval(2.0, 1.0).contains(torch.tensor([1.5, 1.5]))


@pytest.mark.parametrize(("sampler", "calls"), [("euler", 6), ("heun", 11), ("dpmpp_sde", 11), ("dpmpp_2m", 6)])
def test_samplers_that_leave_the_schedule_are_judged_by_sigma(sampler, calls):
    model = tiny.build("FreeSteer playground")
    interval = FIRST_60.resolve(model.model.get_model_object("model_sampling"))
    seen: list[tuple[float, bool]] = []

    def note(call: tiny.Call):
        seen.append((float(call.sigma.max()), interval.contains(call.sigma)))
        return call.run(call.x)

    model.sample(tiny.on_each_call(preparation.prepare(model.model), note), steps=6, sampler=sampler)
    assert len(seen) == calls
    assert all(inside == (sigma >= interval.low * 0.9999) for sigma, inside in seen)
    assert 0 < sum(inside for _, inside in seen) < calls
