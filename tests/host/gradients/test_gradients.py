"""The gradient is right, for every family and every way in which the host holds weights; and nothing is left behind."""

from dataclasses import replace

import comfy.model_management
import pytest
import torch
from freesteer.host.gradients import passes, preparation
from freesteer.host.models import families
from freesteer.host.models.taps import Taps
from freesteer.tests.host import tiny
from torch import Tensor

FAMILIES = list(tiny.RECIPES)
PLAYGROUND = "FreeSteer playground"  # stands for all where the family does not matter


def linear_energy(features: dict[str, Tensor]) -> Tensor:
    """Keys times fixed random numbers: each key counts, whatever the model does to their size. One number per row."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack(
        [(f * torch.randn(f.shape[1:], generator=generator).to(f)).flatten(1).sum(1) / f[0].numel() ** 0.5 for f in features.values()]
    ).sum(0)


def with_gradient(call: tiny.Call, energy=linear_energy, recompute: bool = False) -> passes.Pass:
    diffusion_model = call.model.diffusion_model
    points = families.structure_points(call.model.current_patcher)
    rows = call.rows or [0]
    taps = Taps(diffusion_model, points, call.x.shape, stop_gradient=True)
    return passes.forward_with_gradient(
        call.run, call.x, taps, lambda features: energy({name: f[rows] for name, f in features.items()}), diffusion_model, recompute
    )


def guided(model, body=lambda call: with_gradient(call).output):
    """A model on which every evaluation is made by `body`."""
    return tiny.on_each_call(preparation.prepare(model), body)


def fingerprint(model) -> tuple:
    """What must be the same after sampling as before. Unloaded first: the host leaves a clone's patches on until another is sampled."""
    comfy.model_management.unload_all_models()
    modules = list(model.model.modules())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
    swapped = sum("forward" in vars(m) for m in modules)
    weights = [(name, value.data_ptr(), value.double().sum().item()) for name, value in model.model.state_dict().items()]
    return hooks, swapped, weights, repr(model.model_options), comfy.model_management.in_training


def assert_gradient_is_right(model: tiny.Tiny, patcher=None, tolerance: float = 0.02, change=lambda call: call) -> None:
    """Against central differences of the energy along a random direction."""
    checked: list[tuple[float, float, float, float, float]] = []

    def check(call: tiny.Call) -> Tensor:
        call = change(call)
        diffusion_model = call.model.diffusion_model
        output, gradient, energies, _ = with_gradient(call)
        along = torch.randn(call.x.shape, generator=torch.Generator().manual_seed(5))
        points = families.structure_points(model.model)

        def energy(x: Tensor) -> float:
            with passes.differentiable(diffusion_model), Taps(diffusion_model, points, x.shape) as taps:
                call.run(x)
            return linear_energy({name: f[call.rows].detach().double() for name, f in taps.features.items()}).sum().item()

        step = 1e-2 * call.x.std().item()
        measured = (energy(call.x + step * along) - energy(call.x - step * along)) / (2 * step)
        checked.append((measured, (gradient * along).sum().item(), gradient.norm().item(), energies.sum().item(), energy(call.x)))
        return output

    model.sample(guided(patcher or model.model, check), steps=1)
    assert checked
    for measured, derived, size, energies, again in checked:
        assert size > 0
        assert derived == pytest.approx(measured, rel=tolerance, abs=tolerance / 10 * size)
        assert energies == pytest.approx(again, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_with_gradient_gives_the_sample_of_the_plain_model(family):
    model = tiny.build(family, inference=True)
    before, plain = fingerprint(model.model), model.sample()
    torch.testing.assert_close(model.sample(guided(model.model)), plain, rtol=1e-3, atol=1e-3 * plain.std().item())  # torch's attention
    assert fingerprint(model.model) == before


@pytest.mark.parametrize("inference", [False, True], ids=["normal weights", "inference weights"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_agrees_with_finite_differences(family, inference):
    assert_gradient_is_right(tiny.build(family, inference))


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("family", ["SD 1.5", "Flux", "Wan"])
def test_weights_may_be_stored_in_less_precision(family, storage):
    assert_gradient_is_right(tiny.build(family, True, storage, torch.float32))


@pytest.mark.parametrize("family", ["SD 1.5", "Flux"])
def test_scaled_fp8_weights_are_multiplied_in_full_precision(family):
    model = tiny.quantised(family, "float8_e4m3fn")
    before = [module._full_precision_mm for module in model.model.model.modules() if hasattr(module, "_full_precision_mm")]
    assert not any(before)
    assert_gradient_is_right(model)
    assert [module._full_precision_mm for module in model.model.model.modules() if hasattr(module, "_full_precision_mm")] == before


def test_several_energies_have_a_gradient_each():
    """As each has alone; one that does not depend on the picture has none."""
    found: list[tuple[Tensor, Tensor]] = []

    def squares(features: dict[str, Tensor]) -> Tensor:
        return torch.stack([f.square().flatten(1).mean(1) for f in features.values()]).sum(0)

    def note(call: tiny.Call) -> Tensor:
        alone = [with_gradient(call, energy).gradient for energy in (linear_energy, squares)]
        together = with_gradient(call, lambda f: torch.stack([linear_energy(f), squares(f), torch.ones_like(squares(f)), squares(f)]))
        found.append((together.gradient, torch.stack([*alone, torch.zeros_like(alone[0]), alone[1]])))
        return together.output

    model = tiny.build(PLAYGROUND, True)
    model.sample(guided(model.model, note), steps=1)
    assert found
    for gradient, wanted in found:
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6 * wanted.std().item())


@pytest.mark.parametrize("compute", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_the_gradient_of_a_tiny_energy(compute):
    """Without scaling, an energy of 1e-9 has the gradient 0 in float16."""
    found: dict[torch.dtype, Tensor] = {}

    def note(call: tiny.Call) -> Tensor:
        output, gradient, _, _ = with_gradient(call, lambda features: 1e-9 * linear_energy(features))
        found[call.model.get_dtype_inference()] = gradient
        return output

    for dtype in (torch.float32, compute):
        model = tiny.build(PLAYGROUND, True, dtype)
        model.sample(guided(model.model, note), steps=1)
    exact, half = found[torch.float32], found[compute]
    assert 0 < (half - exact).norm() < 0.1 * exact.norm()


def test_a_lora_is_differentiated_and_leaves_the_model_as_it_was():
    model = tiny.build(PLAYGROUND, True)
    plain = model.sample()
    patched = model.model.clone()
    weights = [key for key in patched.model.state_dict() if key.endswith(("to_q.weight", "to_k.weight", "ff.net.2.weight"))]
    patched.add_patches({key: (torch.randn(patched.model.state_dict()[key].shape),) for key in weights}, 0.05)
    assert_gradient_is_right(model, patched)
    assert not torch.equal(model.sample(patched), plain)
    torch.testing.assert_close(model.sample(), plain, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_blocks_give_the_same_gradient(family):
    model = tiny.build(family, True)
    before = fingerprint(model.model)
    model.sample(guided(model.model, same_gradient_when_recomputed), steps=1)
    assert fingerprint(model.model) == before


def test_a_patch_finds_itself_in_the_same_block_when_it_is_recomputed():
    model = tiny.build("SD 1.5", True)
    patched = model.model.clone()
    patched.set_model_attn1_patch(lambda q, k, v, extra: (q, k, v * (3 if extra["block"] == ("input", 4) else 1)))
    model.sample(guided(patched, same_gradient_when_recomputed), steps=1)


def control(family: str) -> dict[str, list[Tensor | None]]:
    """What a ControlNet gives: the host takes a U-Net's from the end and adds it to a skip connection, in place."""
    generator = torch.Generator().manual_seed(7)
    if family == "SD 1.5":
        return {"output": [*[None] * 8, torch.randn(1, 128, 6, 4, generator=generator), *[None] * 3]}
    width = 256 if family == "SD 3" else 64
    return {"input": [torch.randn(1, 24, width, generator=generator)] * 2, "output": [torch.randn(1, 24, width, generator=generator)] * 2}


@pytest.mark.parametrize("family", ["SD 1.5", "SD 3", "Flux", "Qwen-Image"])
def test_a_controlnet_is_differentiated_as_well_and_when_recomputed(family):
    model = tiny.build(family, True)
    changes: list[float] = []

    def check(call: tiny.Call) -> Tensor:
        controlled = replace(call, run=lambda x: call.run(x, control(family)))
        changes.append((controlled.run(call.x) - call.run(call.x)).abs().max().item())
        return same_gradient_when_recomputed(controlled)

    model.sample(guided(model.model, check), steps=1)
    assert min(changes) > 0
    assert_gradient_is_right(model, change=lambda call: replace(call, run=lambda x: call.run(x, control(family))))


def same_gradient_when_recomputed(call: tiny.Call) -> Tensor:
    evaluations: list[int] = []
    layout = families.of_diffusion_model(call.model.diffusion_model).layout
    block = call.model.diffusion_model.get_submodule(layout.blocks(call.model.diffusion_model)[0].path)
    inner = next(module for module in block.modules() if not list(module.children()))
    with_gradient(call)  # finds out whether the model changes in place what backward needs
    handle = inner.register_forward_pre_hook(lambda *_: evaluations.append(1))
    output, gradient, _, _ = with_gradient(call)
    once = len(evaluations)
    again, regradient, _, _ = with_gradient(call, recompute=True)
    handle.remove()
    assert len(evaluations) == 3 * once > 0
    torch.testing.assert_close(again, output, rtol=0, atol=0)
    torch.testing.assert_close(regradient, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
    return output


@pytest.mark.parametrize("rows", [1, 2])
def test_conditional_rows_get_the_same_gradient_in_one_call_and_in_two(rows, monkeypatch):
    model = tiny.build(PLAYGROUND, True, rows=rows)
    found: list[tuple[int, Tensor]] = []

    def note(call: tiny.Call) -> Tensor:
        if not call.rows:
            return call.run(call.x)
        output, gradient, energies, _ = with_gradient(call)
        assert len(energies) == len(call.rows) == rows
        assert torch.count_nonzero(gradient) == torch.count_nonzero(gradient[call.rows]) > 0
        found.append((len(call.x), gradient[call.rows]))
        return output

    together = model.sample(guided(model.model, note), steps=1)
    monkeypatch.setattr(model.model.model, "memory_required", lambda *_, **__: 1e20)
    apart = model.sample(guided(model.model, note), steps=1)
    (joint, gradient), (single, again) = found
    assert (joint, single) == (2 * rows, rows)
    torch.testing.assert_close(gradient, again, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-2)


def test_an_energy_that_is_zero_or_constant_has_the_gradient_zero():
    model = tiny.build(PLAYGROUND, True)

    def check(call: tiny.Call) -> Tensor:
        output, gradient, energies, _ = with_gradient(call, lambda features: 0 * linear_energy(features))
        assert not gradient.any() and not energies.any() and gradient.shape == call.x.shape
        return output

    model.sample(guided(model.model, check), steps=1)


@pytest.mark.parametrize("error", [ValueError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize("place", ["energy", "model"])
@pytest.mark.parametrize("family", [PLAYGROUND, "Flux"])
def test_an_error_or_an_interrupt_leaves_nothing_behind(family, place, error):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), model.sample()

    def fail(*_):
        raise error

    def body(call: tiny.Call) -> Tensor:
        if place == "energy":
            return with_gradient(call, fail).output
        module = call.model.diffusion_model.get_submodule(families.structure_points(model.model)[-1].module)
        handle = module.register_forward_pre_hook(fail)
        try:
            return with_gradient(call, recompute=True).output
        finally:
            handle.remove()

    with pytest.raises(error):
        model.sample(guided(model.model, body))
    assert fingerprint(model.model) == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    torch.testing.assert_close(model.sample(), plain, rtol=0, atol=0)


def test_the_rest_of_the_pass_has_no_graph():
    model = tiny.build(PLAYGROUND, True)
    graphs: list[bool] = []

    def check(call: tiny.Call) -> Tensor:
        dm = call.model.diffusion_model
        taps = Taps(dm, families.structure_points(model.model)[:1], call.x.shape, stop_gradient=True)
        first, last = dm.input_blocks[1][0], dm.output_blocks[-1][0]
        handles = [block.register_forward_hook(lambda _, __, out: graphs.append(out.requires_grad)) for block in (first, last)]
        output = passes.forward_with_gradient(call.run, call.x, taps, linear_energy, dm).output
        for handle in handles:
            handle.remove()
        assert not output.requires_grad
        return output

    model.sample(guided(model.model, check), steps=1)
    assert graphs == [True, False]
