import comfy.model_management
import pytest
import torch
from freesteer.host import families, gradients
from freesteer.host.taps import Taps, capture
from freesteer.tests.host import tiny
from torch import Tensor

FAMILIES = list(tiny.RECIPES)


def linear_energy(features: dict[str, Tensor]) -> Tensor:
    """Keys times fixed random numbers: each key counts, whatever the model does to their size. One number per row."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack(
        [(f * torch.randn(f.shape[1:], generator=generator).to(f)).flatten(1).sum(1) / f[0].numel() ** 0.5 for f in features.values()]
    ).sum(0)


def with_gradient(call: tiny.Call, energy=linear_energy) -> tuple[Tensor, Tensor, Tensor]:
    diffusion_model = call.model.diffusion_model
    taps = Taps(diffusion_model, families.structure_points(call.model.current_patcher), call.x.shape)
    rows = call.rows or [0]
    return gradients.forward_with_gradient(
        call.run, call.x, taps, lambda features: energy({name: f[rows] for name, f in features.items()}), diffusion_model
    )


def fingerprint(model) -> tuple:
    """What must be the same after sampling as before."""
    modules = list(model.model.modules())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
    swapped = sum("forward" in vars(m) for m in modules)
    weights = [(name, value.data_ptr(), value.double().sum().item()) for name, value in model.model.state_dict().items()]
    return hooks, swapped, weights, repr(model.model_options), comfy.model_management.in_training


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_with_gradient_gives_the_sample_of_the_plain_model(family):
    model = tiny.build(family, inference=True)
    before, plain = fingerprint(model.model), model.sample()
    guided = tiny.on_each_call(gradients.prepare(model.model), lambda call: with_gradient(call)[0])
    rounding = 1e-5 if family == "LTX Video" else 0  # of the host's other formula for rotary embeddings
    torch.testing.assert_close(model.sample(guided), plain, rtol=0, atol=rounding)
    assert fingerprint(model.model) == before


@pytest.mark.parametrize("inference", [False, True], ids=["normal weights", "inference weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_agrees_with_finite_differences(family, inference):
    model = tiny.build(family, inference)
    checked = []

    def check(call: tiny.Call) -> Tensor:
        output, gradient, energies = with_gradient(call)
        along = torch.randn(call.x.shape, generator=torch.Generator().manual_seed(5))
        points = families.structure_points(model.model)

        def energy(x: Tensor) -> float:
            with capture(call.model.diffusion_model, points, x.shape) as taps:
                call.run(x)
            return linear_energy({name: f[call.rows].double() for name, f in taps.features.items()}).sum().item()

        step = 1e-2 * call.x.std().item()
        measured = (energy(call.x + step * along) - energy(call.x - step * along)) / (2 * step)
        checked.append((measured, (gradient * along).sum().item(), gradient.norm().item(), energies.sum().item(), energy(call.x)))
        return output

    model.sample(tiny.on_each_call(gradients.prepare(model.model), check), steps=1)
    for measured, derived, size, energies, again in checked:
        assert size > 0
        assert derived == pytest.approx(measured, rel=0.02, abs=0.002 * size), (measured, derived, size)
        assert energies == pytest.approx(again, rel=1e-3, abs=1e-4)
