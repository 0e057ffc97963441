"""What a graph is counted to take is what autograd keeps; and where it does not fit, or overflows, there is a remedy or a sentence."""

import logging

import comfy.model_management
import pytest
import torch
from freesteer.benchmarks.host import random_models
from freesteer.benchmarks.host.counters import Reads
from freesteer.benchmarks.host.random_models import Recipe
from freesteer.host.gradients import memory, passes, preparation
from freesteer.host.models import families
from freesteer.host.sampling.reading import Request
from freesteer.tests.host import tiny
from freesteer.tests.host.gradients.test_gradients import fingerprint, guided, with_gradient
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

FAMILIES = list(tiny.RECIPES)
PLAYGROUND = "FreeSteer playground"


def kept_by_autograd(recipe: Recipe, choice: families.Choice, cast: torch.dtype | None = None) -> tuple[int, memory.Footprint]:
    """Bytes of what the graph of a pass saves, weights left out but for their copies in another precision; and what is counted."""
    with FakeTensorMode(), Reads(), torch.no_grad():
        model = random_models.assemble(recipe, torch.float16, cast)
        model.model.requires_grad_(False)
        points = families.structure_points(model, choice)
        weights = {w.untyped_storage()._cdata for w in model.model.parameters()}
        x = torch.zeros(1, *recipe.latent)
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage()._cdata not in weights:
                saved[tensor.untyped_storage()._cdata] = tensor
            return tensor

        def energy(features):
            return torch.stack([keys.sum((1, 2)) for keys in features.values()]).sum(0)

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            random_models.evaluate(model, x, recipe.conditioning, Request(x.shape, points, energy))
        return sum(t.untyped_storage().nbytes() for t in saved.values()), memory.footprint(model, points, x.shape)


def larger(family: str) -> Recipe:
    """With more tokens, so that what does not grow with them does not count."""
    recipe = tiny.RECIPES[family]
    *front, height, width = recipe.latent
    times = 2 if recipe.latent[0] == 4 else 5 if family == "SD 3" else 12
    return Recipe(recipe.config, recipe.unet, (*front, times * height, times * width), recipe.text, recipe.extra, recipe.options)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_counted_is_what_autograd_keeps(family):
    """Rather too much than too little: then a graph is recomputed that would just have fitted. (Tiny models have long texts.)"""
    kept, counted = kept_by_autograd(larger(family), "coarse")
    assert 0.9 * kept < counted.whole < 2.2 * kept


@pytest.mark.parametrize("family", ["SDXL", "Flux"])
def test_what_is_counted_of_a_model_of_true_size_is_nearer(family):
    kept, counted = kept_by_autograd(random_models.FULL_SIZE[family], "coarse")
    assert 0.95 * kept < counted.whole < 1.25 * kept
    assert counted.recomputed < 0.4 * counted.whole


def test_copies_of_weights_in_another_precision_are_counted():
    small = tiny.RECIPES["SD 1.5"]
    plain, counted_plain = kept_by_autograd(small, "all decoder")
    cast, counted = kept_by_autograd(small, "all decoder", torch.bfloat16)
    assert cast > 1.2 * plain
    assert counted.whole - counted_plain.whole == pytest.approx(cast - plain, rel=0.3)


def test_a_graph_that_does_not_fit_is_recomputed_and_the_log_says_so(monkeypatch, caplog):
    model = tiny.build(PLAYGROUND)
    points = families.structure_points(model.model)
    needed = memory.footprint(model.model, points, model.latent.shape)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: needed.whole)
    with caplog.at_level(logging.INFO):
        assert memory.must_recompute(model.model, points, model.latent.shape)
    assert "computed twice" in caplog.text
    assert caplog.records[-1].args == pytest.approx((needed.whole / 1e9, needed.whole / 1e9, needed.recomputed / 1e9))
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 2 * needed.whole)
    assert not memory.must_recompute(model.model, points, model.latent.shape)


def first_module(call: tiny.Call) -> torch.nn.Module:
    layout = families.of_diffusion_model(call.model.diffusion_model).layout
    return call.model.diffusion_model.get_submodule(layout.blocks(call.model.diffusion_model)[0].path)


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_is_answered_by_recomputing_once_and_then_in_words(times, monkeypatch):
    model = tiny.build(PLAYGROUND, True)
    monkeypatch.setattr(passes, "_large", type(passes._large)())
    before, plain = fingerprint(model.model), model.sample(guided(model.model), steps=1)
    failures = [torch.cuda.OutOfMemoryError("CUDA out of memory")] * times

    def body(call: tiny.Call) -> Tensor:
        def fail(*_) -> None:
            if failures:
                raise failures.pop()

        handle = first_module(call).register_forward_pre_hook(fail)
        try:
            return with_gradient(call).output
        finally:
            handle.remove()

    if times == 1:
        torch.testing.assert_close(model.sample(guided(model.model, body), steps=1), plain)
        assert len(passes._large) == 1
    else:
        with pytest.raises(preparation.NoGradientError, match="smaller or fewer at once"):
            model.sample(guided(model.model, body), steps=1)
    assert fingerprint(model.model) == before


class Amplified(torch.autograd.Function):
    """Itself, with a gradient that is so many times as large."""

    @staticmethod
    def forward(context, x: Tensor, times: float) -> Tensor:
        context.times = times
        return x.clone()

    @staticmethod
    def backward(context, *gradients: Tensor):
        return (gradients[0].float() * context.times).to(gradients[0].dtype), None


def gradient_under(times: float) -> Tensor:
    """Of a model in float16 whose first block has a gradient that is so many times too large."""
    model, found = tiny.build(PLAYGROUND, True, torch.float16), []

    def body(call: tiny.Call) -> Tensor:
        handle = first_module(call).register_forward_hook(lambda _, __, out: Amplified.apply(out, times))
        try:
            done = with_gradient(call)
        finally:
            handle.remove()
        found.append(done.gradient)
        return done.output

    model.sample(guided(model.model, body), steps=1, cfg=1.0)
    return found[0]


def test_a_gradient_that_overflows_is_scaled_down_and_tried_again():
    plain, amplified = gradient_under(1.0), gradient_under(2.0**18)
    assert plain.isfinite().all() and amplified.isfinite().all()
    assert (amplified / 2**18 - plain).norm() < 0.05 * plain.norm()


def test_a_gradient_that_overflows_even_so_is_refused_in_words():
    with pytest.raises(preparation.NoGradientError, match="overflows in half precision"):
        gradient_under(2.0**60)
