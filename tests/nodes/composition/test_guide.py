"""Losses on attention in every family: the maps and the gradient they come from, and what the guide leaves as it was."""

import dataclasses
from dataclasses import dataclass, field

import comfy.sample
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from freesteer.core.boxes.places import BoxPlaces
from freesteer.core.boxes.tracks import Track
from freesteer.core.composition import losses
from freesteer.host.gradients import passes, preparation
from freesteer.host.models import families
from freesteer.host.models.attention_sites import text_layers
from freesteer.host.models.taps import OVERRIDE, Taps
from freesteer.host.sampling import steering
from freesteer.recipes.composition import guide as recipe
from freesteer.recipes.composition.guide import PROMPT, CompositionError, CompositionSettings, Named
from torch import Tensor

from ..conftest import tiny

SPOKEN = [name for name in tiny.RECIPES if name != "SVD"]  # which has no prompt of words
SETTINGS = CompositionSettings(strength=0.3, end=1.0, enough=1.0)  # so that there always is something to do
BOX = BoxPlaces(Track(torch.zeros(1), torch.tensor([[0.0, 0.0, 0.5, 1.0]])))


def named(made, boxed: bool = False) -> Named:
    """Two objects: the second token, and the third and fourth."""
    encoded = made.positive[0][0]
    phrases = torch.zeros(2, encoded.shape[1], dtype=torch.bool)
    phrases[0, 1], phrases[1, 2:4] = True, True
    special = torch.zeros(encoded.shape[1], dtype=torch.bool)
    special[0] = True
    telling = phrases.clone()
    telling[1, 2] = False
    single = torch.tensor([True, False])
    return Named(encoded, phrases, telling, single, special, [BOX if boxed else None, None])


def steered(made, model=None, prompt: Named | None = None, **settings):
    return recipe.attach(model or made.model, [prompt or named(made)], dataclasses.replace(SETTINGS, **settings))


@dataclass
class Seen:
    """Another pack's attention, which keeps the maps of layers over text, made head by head in float64."""

    text: int
    joint: bool
    maps: list[Tensor] = field(default_factory=list)

    def __call__(self, function, q, k, v, heads, *rest, **named):
        own_q, own_k = (x if named.get("skip_reshape") else x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        words = own_k.shape[2] == self.text if not self.joint else own_k.shape[2] > self.text and own_q.shape[2] == own_k.shape[2]
        if words:
            start = self.text if self.joint else 0
            mean = torch.zeros(())
            for head in range(own_q.shape[1]):
                scores = own_q[:, head, start:].double() @ own_k[:, head, : self.text].double().mT / own_q.shape[-1] ** 0.5
                weight = (scores - scores.amax(-1, keepdim=True)).exp()
                mean = mean + weight / weight.sum(-1, keepdim=True) / own_q.shape[1]
            self.maps.append(mean)
        return function(q, k, v, heads, *rest, **named)


@pytest.mark.parametrize("family", ["SD 1.5", "Wan", "LTX Video", "SD 3", "Flux", "Qwen-Image", "Hunyuan Video"])
def test_maps_are_what_attention_pays_to_the_prompt(family, monkeypatch):
    """Of all layers; those of a U-Net's decoder differ in their grids, so the last one is looked at."""
    made = tiny.build(family)
    known = families.family_of(made.model)
    layers = recipe.told_apart(text_layers(known, made.model.model.diffusion_model, "all decoder"), made.latent.shape)
    seen, found = Seen(made.positive[0][0].shape[1], known.text == "joint"), []
    before = recipe.attention_to

    def kept(features, layers, shape, words=None):
        read = [(*layer.queries_and_keys(features, shape), layer.heads) for layer in layers]
        found.append([recipe.attention_probabilities(q, k, heads).detach() for q, k, heads in read])
        return before(features, layers, shape, words)

    monkeypatch.setattr(recipe, "attention_to", kept)
    model = made.model.clone()
    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: seen}
    made.sample(steered(made, model, layers="all decoder"), steps=1, cfg=1.0)
    assert len(found[0]) == len(layers)
    wanted = [m for m in seen.maps if m.shape[1:] == found[0][-1].shape[1:]][: len(seen.maps)]
    each = [min(float((one - other).abs().max()) for other in wanted) for one in found[0] if one.shape[1:] == found[0][-1].shape[1:]]
    assert each and max(each) < 1e-4
    assert torch.allclose(found[0][-1].sum(-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("method", recipe.METHODS)
@pytest.mark.parametrize("family", SPOKEN)
def test_gradients_agree_with_finite_differences(family, method, monkeypatch):
    monkeypatch.setattr(losses, "SHARED", 1e9)  # what L_gather holds constant is no derivative
    made = tiny.build(family, True, torch.float64)
    model = preparation.prepare(made.model)
    prompt = named(made, boxed=True)
    layers = text_layers(families.family_of(made.model), made.model.model.diffusion_model)
    guide = recipe.CompositionGuide([prompt], layers, dataclasses.replace(SETTINGS, method=method))
    checked: list[tuple[float, float, float]] = []
    given = [{"cross_attn": made.positive[0][0]}]

    def check(call) -> Tensor:
        session, dm = guide.start(model, call.x[call.rows], given, guide.range), call.model.diffusion_model

        def energy(features: dict[str, Tensor]) -> Tensor:
            return session.energy({name: f[call.rows] for name, f in features.items()}, 1.0)

        taps = Taps(dm, guide.points, call.x.shape, stop_gradient=True)
        found = passes.forward_with_gradient(lambda x: call.run(x, taps=taps), call.x, taps, energy, dm)
        along = found.gradient / found.gradient.norm()
        step = 1e-5 * call.x.norm().item()

        def at(x: Tensor) -> float:
            with passes.differentiable(dm), Taps(dm, guide.points, x.shape) as taps:
                call.run(x, taps=taps)
            return energy({name: f.detach().double() for name, f in taps.features.items()}).sum().item()

        checked.append(((at(call.x + step * along) - at(call.x - step * along)) / (2 * step), found.gradient.norm().item(), step))
        return found.output

    made.sample(tiny.on_each_call(model, check), steps=1)
    for measured, derived, _ in checked:
        assert derived > 0 and derived == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("family", SPOKEN)
def test_without_strength_and_outside_of_its_range_it_is_plain_sampling_to_the_bit(family):
    made = tiny.build(family, True)
    plain = made.sample()
    assert torch.equal(made.sample(steered(made, strength=0.0)), plain)
    assert torch.equal(made.sample(steered(made, start=1.0)), plain)
    changed = made.sample(steered(made))
    assert torch.isfinite(changed).all() and not torch.equal(changed, plain)
    assert torch.equal(made.sample(), plain)


@pytest.mark.parametrize("family", ["SD 1.5", "Wan", "Flux"])
def test_a_box_draws_its_object_in(family, monkeypatch):
    monkeypatch.setattr(steering, "REUSE", 0.0)
    made = tiny.build(family, True)
    seen: list[float] = []
    before = losses.boxes

    def kept(maps, inside, present):
        seen.append(float(before(maps, inside, present).sum()))
        assert inside[:, 0].mean() == 0.5 and present.tolist() == [[True, False]] * len(maps)
        return before(maps, inside, present)

    monkeypatch.setattr(losses, "boxes", kept)
    for strength in (1e-9, 0.5):
        made.sample(steered(made, prompt=named(made, boxed=True), strength=strength, separate=0.0, enhance=0.0, gather=0.0), steps=3)
    plain, pulled = seen[len(seen) // 2 - 1], seen[-1]
    assert pulled < plain


def test_each_regional_prompt_has_its_own_objects():
    made = tiny.build("SD 1.5", True)
    other = torch.randn(made.positive[0][0].shape, generator=torch.Generator().manual_seed(9))
    mask = torch.zeros(1, 24, 16)
    mask[:, :, :8] = 1
    regions = [[made.positive[0][0], {"mask": mask, "mask_strength": 1.0}], [other, {"mask": 1 - mask, "mask_strength": 1.0}]]
    both = dataclasses.replace(made, positive=regions)
    second = dataclasses.replace(named(made), encoded=other)
    plain = both.sample()
    first_only, two = both.sample(steered(made)), both.sample(steered(made, steered(made), second))
    assert not torch.equal(first_only, plain) and not torch.equal(two, first_only)
    assert torch.equal(both.sample(), plain)


def test_prompts_of_a_batch_have_their_own_objects():
    """And one picture is steered as it is alone."""
    made = tiny.build("SD 1.5", True, rows=2)
    other = torch.randn(made.positive[0][0].shape, generator=torch.Generator().manual_seed(9))
    pair = dataclasses.replace(made, positive=[[torch.cat([made.positive[0][0], other]), {}]])
    second = dataclasses.replace(named(made), encoded=other)
    model = recipe.attach(made.model, [named(made), second], SETTINGS)
    guide = recipe.CompositionGuide([named(made), second], (), SETTINGS)
    words = guide.start(made.model, made.latent, [{"cross_attn": other}], guide.range).words(pair.positive[0][0], (1, 4, 4))
    assert words.present.all() and torch.equal(words.phrases[0], named(made).phrases)
    assert not torch.equal(pair.sample(model), pair.sample())


def test_another_prompt_at_the_sampler_is_refused():
    made = tiny.build("SD 1.5", True)
    other = dataclasses.replace(made, positive=[[made.positive[0][0] + 1, {}]])
    with pytest.raises(CompositionError, match="connect the positive output"):
        other.sample(steered(made))


def test_a_shorter_text_in_a_layer_is_named():
    made = tiny.build("SD 1.5", True)
    model = steered(made)
    model.set_model_attn2_patch(lambda n, context, value, extra: (n, context[:, :5], value[:, :5]))
    with pytest.raises(CompositionError, match="attends to 5 tokens of text, where the prompt has 77"):
        made.sample(model)


def test_other_packs_attention_stays_in_place():
    made, calls = tiny.build("Flux", True), []

    def override(function, *args, **kwargs):
        calls.append(1)
        return attention_pytorch(*args, **kwargs)

    model = made.model.clone()
    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: override}
    torch.testing.assert_close(made.sample(steered(made, model)), made.sample(steered(made)), rtol=1e-3, atol=1e-3)
    assert calls


def test_what_is_well_already_is_left_as_it_is():
    made = tiny.build("SD 1.5", True)
    plain = made.sample()
    torch.testing.assert_close(
        made.sample(steered(made, separate=0.0, gather=0.0, enough=1e-6)), plain, rtol=0, atol=2e-3
    )  # another kernel
    assert (made.sample(steered(made, separate=0.0, gather=0.0, enough=1.0)) - plain).abs().max() > 1e-2


def test_zeros_before_a_prompt_are_no_part_of_it():
    """As Flux.2 is given its prompts."""
    made = tiny.build("Flux", True)
    given = made.positive[0][0]
    context = torch.nn.functional.pad(given, (0, 0, 7, 0)).repeat(2, 1, 1)
    assert named(made).rows(context).tolist() == [True, True]
    fitted = named(made).fitted(context)
    assert torch.equal(fitted.phrases[:, 7:], named(made).phrases) and not fitted.phrases[:, :7].any() and fitted.special[:7].all()
    longer = dataclasses.replace(made, positive=[[context[:1], made.positive[0][1]]])
    assert (longer.sample(steered(longer, prompt=named(made))) - longer.sample()).abs().max() > 1e-2


def test_a_clip_in_the_batch_and_several_steps():
    made = tiny.build("SD 1.5", True, rows=3)
    assert torch.isfinite(made.sample(steered(made, refinements=3), steps=4, sampler="dpmpp_2m")).all()
    with torch.inference_mode():
        begun = comfy.sample.sample(
            steered(made), torch.randn_like(made.latent), 4, 2.0, "euler", "normal", made.positive, made.negative,
            torch.randn_like(made.latent), denoise=0.5, disable_pbar=True,
        )  # fmt: skip
    assert torch.isfinite(begun).all()


def test_words_that_the_model_does_not_see_have_no_attention():
    """LTX Video masks its padding out."""
    made = tiny.build("LTX Video", True)
    mask = torch.ones(1, 9, dtype=torch.long)
    mask[:, 6:] = 0
    masked = dataclasses.replace(made, positive=[[made.positive[0][0], {**made.positive[0][1], "attention_mask": mask}]])
    seen: list[Tensor] = []

    class Looking(recipe.CompositionSession):
        def energy(self, features, sigma):
            seen.append(recipe.attention_to(features, self.guide.layers, self.shape).detach())
            return super().energy(features, sigma)

    class Guide(recipe.CompositionGuide):
        def start(self, model, latent, positive, range):
            return Looking(**vars(super().start(model, latent, positive, range)))

    guide = Guide([named(made)], text_layers(families.family_of(made.model), made.model.model.diffusion_model), SETTINGS)
    masked.sample(steering.attach(made.model, guide), steps=1)
    assert seen[0][:, 6:].abs().max() == 0 and torch.allclose(seen[0].sum(1), torch.ones(()), atol=1e-5)


def test_prompt_is_read_as_the_model_is_given_it():
    made = tiny.build("Flux", True)
    assert PROMPT.grid((1, 4, 8, 8)) is None
    assert named(made).rows(made.positive[0][0].repeat(2, 1, 1).to(torch.bfloat16)).tolist() == [True, True]
    assert named(made).rows(made.positive[0][0].repeat(1, 2, 1)).tolist() == [True]
    assert named(made).rows(made.positive[0][0][:, :-1]).tolist() == [False]
    assert named(made).rows(made.positive[0][0] * 1.1).tolist() == [False]
