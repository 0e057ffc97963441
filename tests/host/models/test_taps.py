import math
from dataclasses import replace

import comfy.model_management
import pytest
import torch
from freesteer.core.attention.probabilities import attention_probabilities
from freesteer.host.models import families
from freesteer.host.models.taps import CONDITIONAL, UNCONDITIONAL, Point, TapError, Taps, branch_rows
from freesteer.tests.host import tiny
from torch import Tensor

FAMILIES = list(tiny.RECIPES)


def in_first_call(model: tiny.Tiny, body) -> None:
    """Runs `body` while the model samples, once."""

    def once(call: tiny.Call) -> Tensor:
        body(call)
        return call.run(call.x)

    model.sample(tiny.on_each_call(model.model, once), steps=1, cfg=1.0)  # Hunyuan Video takes a reference only in a batch of one


def keys(call: tiny.Call, points: list[Point], x: Tensor) -> dict[str, Tensor]:
    """Each point as (rows, channels, *grid)."""
    with Taps(call.model.diffusion_model, points, x.shape) as taps:
        call.run(x)
    return {name: feature.transpose(1, 2).unflatten(2, taps.grids[name] or ()) for name, feature in taps.features.items()}


def assert_keys_follow_the_latent(model: tiny.Tiny, corner: int) -> None:
    """A change of the latent in one corner changes the keys most in that corner: grid, order and token offset are right."""
    point = families.structure_points(model.model)[0]

    def check(call: tiny.Call) -> None:
        x = call.x.clone()
        part = (slice(0, 2), slice(0, 2)) if corner == 0 else (slice(-2, None), slice(-2, None))
        frame = (corner,) if x.ndim == 5 else ()
        x[(slice(None), slice(None), *frame, *part)] += 3 * call.x.std()
        change = (keys(call, [point], x)[point.name] - keys(call, [point], call.x)[point.name]).square().sum((0, 1))
        place = torch.unravel_index(change.argmax(), change.shape)
        for at, size in zip(place, change.shape, strict=True):
            assert at < (size + 1) // 2 if corner == 0 else at >= size // 2, (place, change.shape)

    in_first_call(model, check)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("corner", [0, -1], ids=["first corner", "last corner"])
def test_keys_lie_on_the_grid_of_the_table(family, corner):
    assert_keys_follow_the_latent(tiny.build(family), corner)


@pytest.mark.parametrize(
    ("family", "option"),
    [("Flux", "reference_latents"), ("Qwen-Image", "reference_latents"), ("Lumina 2 and Z-Image", "reference_latents"),
     ("Hunyuan Video", "ref_latent"), ("Wan", "reference_latents")],
)  # fmt: skip
@pytest.mark.parametrize("corner", [0, -1], ids=["first corner", "last corner"])
def test_the_tokens_of_a_reference_picture_are_not_taken_for_the_image(family, option, corner):
    recipe = tiny.RECIPES[family]
    if family == "Wan":
        recipe = replace(recipe, unet={**recipe.unet, "in_dim_ref_conv": 16})
    reference = torch.randn(1, *recipe.latent)[:, :, -1:] if len(recipe.latent) == 4 else torch.randn(1, *recipe.latent)
    given = {option: [reference] if option == "reference_latents" else reference}
    model = tiny.from_recipe(replace(recipe, options=lambda: {**recipe.options(), **given}))
    assert_keys_follow_the_latent(model, corner)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_every_choice_can_be_read(family):
    model = tiny.build(family)
    diffusion_model = model.model.model.diffusion_model
    row = families.family_of(model.model)
    layers = row.layers(diffusion_model, "all decoder")
    cross = row.cross_layers(diffusion_model)
    points = [point for layer in [*layers, *cross] for point in (layer.query, layer.key, layer.value)]

    def check(call: tiny.Call) -> None:
        with Taps(diffusion_model, points, call.x.shape) as taps:
            call.run(call.x)
        for layer in layers:
            q, k, v = (taps.features[point.name] for point in (layer.query, layer.key, layer.value))
            assert q.shape[:2] == k.shape[:2] == v.shape[:2] == (len(call.x), math.prod(taps.grids[layer.name] or ()))
            assert q.shape[2] % layer.heads == 0 and k.shape == v.shape
            assert not torch.equal(k, v)
        for layer in cross:
            q, k = taps.features[layer.query.name], taps.features[layer.key.name]
            tokens = model.positive[0][0].shape[1]
            assert attention_probabilities(q, k, layer.heads).shape == (len(call.x), q.shape[1], tokens)

    in_first_call(model, check)


OUT = {"SD 3": "proj", "Flux": "proj", "Hunyuan Video": "proj", "Lumina 2 and Z-Image": "out", "Wan": "o"}  # after the attention


@pytest.mark.parametrize("family", FAMILIES)
def test_query_key_and_value_are_told_apart_by_what_they_do(family):
    """A query moves its own token only; a key and a value move others, the value in proportion."""
    model = tiny.build(family)
    diffusion_model = model.model.model.diffusion_model
    layer = families.family_of(model.model).layers(diffusion_model)[0]
    attention = diffusion_model.get_submodule(layer.key.module.rpartition(".")[0])
    out = attention.get_submodule(OUT.get(family, "to_out.0"))

    def check(call: tiny.Call) -> None:
        seen: list[Tensor] = []

        def output(point: Point, amount: float) -> Tensor:
            """What attention gives to each token, when one image token's projection is changed."""
            count = math.prod(point.grid(call.x.shape) or ())

            def change(_, __, projected: Tensor) -> Tensor:
                projected = projected.clone()
                token = point.image_tokens(projected, point.grid(call.x.shape))[:, count // 2]  # a view
                token += amount * torch.randn(token.shape, generator=torch.Generator().manual_seed(3))
                return projected

            handles = [
                diffusion_model.get_submodule(point.module).register_forward_hook(change),
                out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
            ]
            call.run(call.x)
            for handle in handles:
                handle.remove()
            return seen.pop()

        def moved(point: Point, amount: float) -> Tensor:
            return output(point, amount) - output(point, 0.0)

        def tokens(difference: Tensor) -> int:
            return int((difference[0].abs().amax(-1) > 1e-6).sum())

        assert tokens(moved(layer.query, 1.0)) == 1
        assert tokens(moved(layer.key, 1.0)) > 1
        once, twice = moved(layer.value, 1.0), moved(layer.value, 2.0)
        assert tokens(once) > 1
        torch.testing.assert_close(twice, 2 * once, rtol=1e-2, atol=1e-4)
        bent = moved(layer.key, 2.0) - 2 * moved(layer.key, 1.0)
        assert bent.norm() > 0.05 * moved(layer.key, 1.0).norm()

    in_first_call(model, check)


@pytest.mark.parametrize("family", ["SD 1.5", "Wan", "LTX Video"])
def test_cross_attention_probabilities_are_the_ones_the_model_uses(family):
    """With values of our own, the layer's output before its last projection is probabilities times values."""
    model = tiny.build(family)
    diffusion_model = model.model.model.diffusion_model
    layer = families.family_of(model.model).cross_layers(diffusion_model)[1]
    attention = diffusion_model.get_submodule(layer.value.module.rpartition(".")[0])
    out = attention.get_submodule("o" if family == "Wan" else "to_out.0")
    seen: list[Tensor] = []

    def check(call: tiny.Call) -> None:
        handle = out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with Taps(diffusion_model, [layer.query, layer.key, layer.value], call.x.shape) as taps:
            call.run(call.x)
        handle.remove()
        q, k, v = (taps.features[point.name] for point in (layer.query, layer.key, layer.value))
        width = v.shape[2] // layer.heads
        by_head = [
            attention_probabilities(q[..., i : i + width], k[..., i : i + width], heads=1, chunk=7) @ v[..., i : i + width]
            for i in range(0, v.shape[2], width)
        ]
        torch.testing.assert_close(torch.cat(by_head, -1), seen[0], rtol=1e-3, atol=1e-4)

    in_first_call(model, check)


def test_other_hooks_stay_and_ours_go_even_after_an_error():
    model = tiny.build("FreeSteer playground")
    diffusion_model = model.model.model.diffusion_model
    points = families.structure_points(model.model)
    module = diffusion_model.get_submodule(points[0].module)
    theirs = module.register_forward_hook(lambda *_: None)
    with pytest.raises(comfy.model_management.InterruptProcessingException), Taps(diffusion_model, points, (1, 4, 24, 16)):
        raise comfy.model_management.InterruptProcessingException
    assert list(module._forward_hooks) == [theirs.id]
    theirs.remove()


class Layers(torch.nn.Module):
    """Three layers in a row."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


@pytest.mark.parametrize("stop", [False, True])
def test_a_graph_is_recorded_up_to_the_last_point(stop):
    model = Layers()
    before = torch.is_grad_enabled()
    with torch.enable_grad(), Taps(model, [Point("b", "b", None), Point("a", "a", None)], (1, 4, 2, 2), stop) as taps:
        result = model(torch.randn(1, 3, 4))
    assert result.requires_grad == (not stop)
    assert taps.features["a"].requires_grad and taps.features["b"].requires_grad
    assert torch.is_grad_enabled() == before


def test_nothing_of_an_earlier_pass_is_left():
    """The same taps may be used again: what they have read is forgotten, and the last point found anew."""
    model = Layers()
    taps = Taps(model, [Point("a", "a", None), Point("b", "b", None)], (1, 4, 2, 2))
    for _ in range(2):
        with taps:
            model(torch.randn(1, 3, 4))
        assert set(taps.features) == {"a", "b"}
    model.register_module("b", torch.nn.Identity())  # which nothing taps
    with pytest.raises(TapError, match="Could not read b:"), taps:
        model(torch.randn(1, 3, 4))
    assert not model.a._forward_hooks


def test_the_last_and_the_first_of_padded_tokens_are_told_apart():
    """Six tokens of an image, padded to eight, after or before three of text."""
    tokens = torch.arange(11.0).reshape(1, 11, 1).expand(1, 11, 6)
    last, first = Point("p", "m", (2, 2), (2, 4), "last", 8), Point("p", "m", (2, 2), (2, 4), "first", 8)
    for point, start in ((last, 3), (first, 0)):
        found = point.image_tokens(tokens, point.grid((1, 4, 4, 6)))
        assert found.shape == (1, 6, 2) and found[0, :, 0].tolist() == [*range(start, start + 6)]
    exact = Point("p", "m", (2, 2), tokens="last", pad_to=3)
    assert exact.image_tokens(tokens, (2, 3))[0, 0, 0] == 5
    with pytest.raises(TapError, match="Layer p has 11 tokens where the latent has 2 x 3"):
        Point("p", "m", (2, 2)).image_tokens(tokens, (2, 3))
    for point in (first, last):
        with pytest.raises(TapError, match="has 11 tokens where the latent has 3 x 4"):
            point.image_tokens(tokens, (3, 4))


def test_a_layer_that_does_not_run_is_an_error_that_names_it():
    model = tiny.build("FreeSteer playground")
    diffusion_model = model.model.model.diffusion_model
    with pytest.raises(TapError, match=r"output\.0\.attn1"), Taps(diffusion_model, families.structure_points(model.model), (1, 4, 24, 16)):
        pass


@pytest.mark.parametrize("tokens", [23, 25])
def test_tokens_that_are_not_the_grids_are_an_error_that_names_the_likely_patch(tokens):
    point = Point("output.3.attn1", "to_k", (4, 4))
    with pytest.raises(TapError, match="ToMe"):
        point.image_tokens(torch.zeros(1, tokens, 8), point.grid((1, 4, 24, 16)))


def test_odd_latents_are_padded_up_as_the_models_do():
    assert Point("", "", (4, 4)).grid((1, 4, 25, 15)) == (7, 4)
    assert Point("", "", (1, 2, 2)).grid((1, 16, 3, 13, 8)) == (3, 7, 4)


def test_an_odd_latent_is_read_on_its_padded_grid():
    model = tiny.build("SD 1.5")
    points = families.structure_points(model.model)

    def check(call: tiny.Call) -> None:
        shape = keys(call, points, torch.nn.functional.pad(call.x, (0, 1, 0, 3)))[points[0].name].shape
        assert shape[2:] == (7, 5)

    in_first_call(model, check)


@pytest.mark.parametrize(
    ("branches", "rows", "conditional"),
    [([1, 0], 2, [1]), ([0, 1], 2, [0]), ([1, 0], 6, [3, 4, 5]), ([0], 2, [0, 1]), ([1], 2, []), ([0, 1, 0], 6, [0, 1, 4, 5])],
)
def test_rows_of_a_branch_follow_the_host_and_not_halves(branches, rows, conditional):
    assert branch_rows({"cond_or_uncond": branches}, rows, CONDITIONAL) == conditional
    assert sorted(conditional + branch_rows({"cond_or_uncond": branches}, rows, UNCONDITIONAL)) == list(range(rows))
