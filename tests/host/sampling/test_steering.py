"""Guides steer every family with every sampler, leave alone what is not theirs, and leave nothing behind."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.hooks import HookGroup, HookKeyframe, WeightHook
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from freesteer.benchmarks.host.counters import Reads
from freesteer.core.attention.probabilities import attention_probabilities
from freesteer.core.bounded_step import bounded_step
from freesteer.host.gradients import passes, preparation
from freesteer.host.gradients.recompute import recomputed
from freesteer.host.models import families
from freesteer.host.models.taps import Point, TapError
from freesteer.host.sampling import steering
from freesteer.host.sampling.guides import Predict
from freesteer.host.sampling.noise import LOUDEST, longest, noise_to_signal
from freesteer.host.sampling.sigma_range import SigmaRange
from freesteer.tests.host import tiny
from freesteer.tests.host.gradients.test_gradients import fingerprint
from torch import Tensor

FAMILIES = list(tiny.RECIPES)
PLAYGROUND = "FreeSteer playground"  # stands for all where the family does not matter
SAMPLERS = ["heun", "dpmpp_sde", "dpmpp_2m", "uni_pc", "ddim", "lcm"]
Features = dict[str, Tensor]


def distance(features: Features) -> Tensor:
    """Mean squared distance of each picture's keys to a fixed target: (pictures,)."""
    generator = torch.Generator().manual_seed(0)
    parts = [(f - torch.randn(f.shape[1:], generator=generator)).square().mean((1, 2)) for f in features.values()]
    return torch.stack(parts).mean(0)


@pytest.fixture(autouse=True)
def a_gradient_at_every_call(monkeypatch):
    monkeypatch.setattr(steering, "REUSE", 0.0)


@dataclass
class ToTarget:
    """A guide, and its own session: what it saw is in `seen`, as (sigma, energies)."""

    points: Sequence[Point]
    strength: float = 0.3
    range: SigmaRange = field(default_factory=SigmaRange)
    energy_of: Callable[[Features], Tensor] = distance
    first: Callable[[Any, Tensor, float], None] = lambda predict, x, sigma: None
    correction: Callable[[Tensor, float], Tensor] = lambda denoised, sigma: denoised
    refinements: int = 1
    fades: bool = False
    seen: list[tuple[float, Tensor]] = field(default_factory=list)

    def start(self, model, latent: Tensor, positive: list, range: SigmaRange) -> "ToTarget":
        return self

    def energy(self, features: Features, sigma: float) -> Tensor:
        energies = self.energy_of({point.name: features[point.name] for point in self.points})
        self.seen.append((sigma, energies.detach()))
        return energies

    def look_ahead(self, predict: Predict | None, x: Tensor, sigma: float, clean: Tensor, features: Features) -> None:
        self.first(predict, x, sigma)

    def correct(self, denoised: Tensor, sigma: float) -> Tensor:
        return self.correction(denoised, sigma)


def guide(model: tiny.Tiny, **changes) -> ToTarget:
    return ToTarget(families.structure_points(model.model), **changes)


def sample(model: tiny.Tiny, *guides: ToTarget, steps: int = 3, cfg: float = 4.0, sampler: str = "euler", patcher=None) -> Tensor:
    patcher = patcher or model.model
    for each in guides:
        patcher = steering.attach(patcher, each)
    return model.sample(patcher, steps, cfg, sampler)


def last_energies(model: tiny.Tiny, strength: float, **sampling) -> Tensor:
    """At the end of a run; strength 1e-9 looks on."""
    watching = guide(model, strength=strength)
    assert torch.isfinite(sample(model, watching, **sampling)).all()
    return watching.seen[-1][1]


def assert_steered(model: tiny.Tiny, **sampling) -> None:
    plain, steered = (last_energies(model, strength, **sampling) for strength in (1e-9, 0.3))
    assert len(steered) == len(model.latent)
    assert (steered < plain).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_strength_and_outside_of_its_range_a_guide_changes_nothing(family):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), sample(model, steps=2)
    for idle in (guide(model, strength=0.0), guide(model, range=SigmaRange(0.8, 0.9))):
        assert torch.equal(sample(model, idle, steps=2), plain)
        assert not idle.seen
    assert fingerprint(model.model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guide_lowers_its_energy_and_leaves_nothing_behind(family):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), sample(model)
    assert_steered(model)
    assert fingerprint(model.model) == before
    assert torch.equal(sample(model), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_step_lowers_the_energy_by_the_share_that_was_asked_for(family, monkeypatch):
    """So the gradient that reaches the step is that of the clean latent under the same noise, scaled by no one."""
    model, share = tiny.build(family, True), 0.002
    monkeypatch.setattr(steering, "SHORT", math.inf)
    monkeypatch.setattr(steering, "bounded_step", lambda gradient, energy, *_: bounded_step(gradient, energy, share, 1e9))

    class OneStep(comfy.samplers.Sampler):
        def sample(self, model_wrap: Any, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
            run = extra_args["model_options"]["transformer_options"][steering.KEY]
            noisy = partial(model_wrap.inner_model.model_sampling.noise_scaling, sigmas[0], noise)
            x, sigma = noisy(latent_image, False), sigmas[:1].expand(len(noise))
            steered = model_wrap(x, sigma, **extra_args)
            guides, run.guides = run.guides, ()
            plain = model_wrap(x, sigma, **extra_args)
            run.guides = guides
            model_wrap(noisy(latent_image + steered - plain, False), sigma, **extra_args)
            return x

    asking = guide(model)
    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(model.model, model.latent)
        middle = SigmaRange(0.5).resolve(model.model.get_model_object("model_sampling")).high
        noise, sigmas = comfy.sample.prepare_noise(latent, 1), torch.tensor([middle, 0.0])
        comfy.sample.sample_custom(
            steering.attach(model.model, asking), noise, 4.0, OneStep(), sigmas, model.positive, model.negative, latent, disable_pbar=True
        )
    (_, there), (_, closer) = asking.seen
    torch.testing.assert_close(1 - closer / there, torch.full_like(there, share), rtol=0.1, atol=0)


@pytest.mark.parametrize("family", ["Flux", "SD 3", PLAYGROUND])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_can_be_steered(sampler, family):
    model, steering_it = tiny.build(family, True), guide(tiny.build(family, True))
    steered = sample(model, steering_it, sampler=sampler)
    assert torch.isfinite(steered).all()
    assert not torch.allclose(steered, sample(model, sampler=sampler), rtol=1e-3)
    assert len(steering_it.seen) >= 3


def test_each_call_is_guided_by_its_own_sigma():
    """heun calls the model twice a step, and the second call has the next step's sigma."""
    model = tiny.build(PLAYGROUND, True)
    steering_it = guide(model, range=SigmaRange(0.2, 0.5))
    sample(model, steering_it, steps=4, sampler="heun")
    bounds = steering_it.range.resolve(model.model.get_model_object("model_sampling"))
    assert len(steering_it.seen) > len({sigma for sigma, _ in steering_it.seen}) > 0
    assert all(bounds.contains(sigma) for sigma, _ in steering_it.seen)


@pytest.mark.parametrize("family", ["Flux", PLAYGROUND])
def test_a_picture_in_a_batch_is_steered_as_alone(family):
    batch, single = tiny.build(family, True, rows=3), tiny.build(family, True)
    assert_steered(batch)
    together, alone = sample(batch, guide(batch)), sample(single, guide(single))
    torch.testing.assert_close(together[:1], alone, rtol=1e-2, atol=1e-2 * alone.std().item())


def test_a_run_without_classifier_free_guidance_is_steered():
    assert_steered(tiny.build(PLAYGROUND, True), cfg=1.0)


def test_prompts_of_different_length_are_steered():
    model = tiny.build(PLAYGROUND, True)
    assert_steered(replace(model, negative=[[model.negative[0][0].repeat(1, 3, 1)[:, :37], {}]]))


@pytest.mark.parametrize("apart", [False, True], ids=["one call", "two calls"])
@pytest.mark.parametrize("family", ["Flux", PLAYGROUND])
def test_a_prompt_cut_into_regions_is_steered_as_the_whole_prompt(family, apart, monkeypatch):
    model = tiny.build(family, True)
    ((text, options),) = model.positive
    left = torch.zeros(1, *model.latent.shape[-2:])
    left[..., : left.shape[-1] // 2] = 1
    regions = [[text, {**options, "mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False}] for mask in (left, 1 - left)]
    whole = sample(model, guide(model))
    if apart:
        monkeypatch.setattr(model.model.model, "memory_required", lambda *_, **__: 1e20)
    steering_it = guide(model)
    torch.testing.assert_close(sample(replace(model, positive=regions), steering_it), whole, rtol=1e-2, atol=1e-2 * whole.std().item())
    assert {energies.shape for _, energies in steering_it.seen} == {(1,)}


def test_areas_are_refused_with_what_to_use_instead():
    model = tiny.build(PLAYGROUND, True)
    before = fingerprint(model.model)
    ((text, options),) = model.positive
    h, w = model.latent.shape[-2:]
    area = replace(model, positive=[[text, {**options, "area": (h // 2, w, 0, 0), "strength": 1.0}]])
    with pytest.raises(preparation.NoGradientError, match="Conditioning Set Mask"):
        sample(area, guide(area))
    assert fingerprint(model.model) == before


def test_an_area_beside_a_whole_prompt_is_left_to_the_host():
    model = tiny.build(PLAYGROUND, True)
    ((text, options),) = model.positive
    h, w = model.latent.shape[-2:]
    assert_steered(replace(model, positive=[*model.positive, [text, {**options, "area": (h // 2, w, 0, 0), "strength": 1.0}]]))


class Control(comfy.controlnet.ControlBase):
    """As a ControlNet answers, with tensors made in inference mode."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        h, w = x_noisy.shape[-2:]
        hint = torch.randn(len(x_noisy), 64, h // 4, w // 4, generator=torch.Generator().manual_seed(0))
        return {"input": [], "middle": [self.strength * hint], "output": []}

    def copy(self) -> "Control":
        return Control(self.strength)


def test_a_controlnet_goes_together_with_a_guide():
    model = tiny.build(PLAYGROUND, True)

    def controlled(strength: float) -> tiny.Tiny:
        def with_control(conditioning: tiny.Conditioning) -> tiny.Conditioning:
            return [[text, {**options, "control": Control(strength)}] for text, options in conditioning]

        return replace(model, positive=with_control(model.positive), negative=with_control(model.negative))

    assert_steered(controlled(2.0))
    assert not torch.allclose(sample(controlled(2.0), guide(model)), sample(controlled(0.0), guide(model)), rtol=1e-2)


@pytest.mark.parametrize("first", ["guide", "other pack"])
def test_what_another_pack_evaluates_within_a_step_is_not_steered(first):
    """Perturbed-attention guidance evaluates the conditional rows once more, with a patch, after the ordinary prediction."""
    model = tiny.build(PLAYGROUND, True)

    def perturbed(patcher, scale: float = 3.0):
        return PerturbedAttentionGuidance.execute(patcher, scale).args[0]

    def both(steering_it: ToTarget):
        patcher = model.model if first == "guide" else perturbed(model.model)
        patcher = steering.attach(patcher, steering_it)
        return perturbed(patcher) if first == "guide" else patcher

    steering_it, watching = guide(model), guide(model, strength=1e-9)
    steered, plain = model.sample(both(steering_it), 3), model.sample(both(watching), 3)
    assert len(steering_it.seen) == 3
    assert steering_it.seen[-1][1] < watching.seen[-1][1]
    torch.testing.assert_close(plain, model.sample(perturbed(model.model), 3), rtol=1e-3, atol=1e-3 * plain.std().item())
    assert not torch.allclose(steered, sample(model, guide(model)), rtol=1e-2)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_the_first_prompt_of_dual_cfg_is_steered(nested, cfg):
    """This guider of the host has the negative where others have the positive."""
    model = tiny.build(PLAYGROUND, True)
    ordinary, dual = guide(model), guide(model)
    sample(model, ordinary)
    guider = Guider_DualCFG(steering.attach(model.model, dual))
    guider.set_conds(model.positive, model.negative, [[torch.zeros_like(model.negative[0][0]), {}]])
    guider.set_cfg(cfg, cfg, nested)
    sampler = comfy.samplers.KSampler(model.model, 3, torch.device("cpu"), "euler", "normal")
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(model.latent, 1)
        guider.sample(noise, model.latent, comfy.samplers.sampler_object("euler"), sampler.sigmas, disable_pbar=True, seed=1)
    torch.testing.assert_close(dual.seen[0][1], ordinary.seen[0][1], rtol=1e-4, atol=0)


def lack_of_attention(features: Features) -> Tensor:
    """How little the picture looks at the third word, from queries and keys of text: (pictures,)."""
    queries, keys = (f for _, f in sorted(features.items(), key=lambda item: item[0].endswith(".q"), reverse=True))
    return 1 - attention_probabilities(queries, keys, 2)[..., 2].mean(1)


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL", "Wan", "LTX Video", PLAYGROUND])
def test_an_energy_of_cross_attention_is_lowered(family):
    """Keys of text do not depend on the latent, and count as constants."""
    model = tiny.build(family, True)
    layer = families.family_of(model.model).cross_layers(model.model.model.diffusion_model)[-1]
    plain, steered = (ToTarget([layer.query, layer.key], strength=strength, energy_of=lack_of_attention) for strength in (1e-9, 2.0))
    for each in (plain, steered):
        sample(model, each)
    assert steered.seen[-1][1] < plain.seen[-1][1]


def test_prompts_of_different_length_have_their_own_maps():
    """A regional prompt is read in one pass for each region, and each has as many keys as words."""
    model = tiny.build(PLAYGROUND, True)
    ((text, options),) = model.positive
    mask = torch.zeros(1, *model.latent.shape[-2:])
    mask[..., :8] = 1
    regions = [[words, {**options, "mask": m, "mask_strength": 1.0}] for words, m in ((text, mask), (text[:, :9], 1 - mask))]
    layer = families.family_of(model.model).cross_layers(model.model.model.diffusion_model)[-1]
    looked: list[Features] = []
    steered = ToTarget([layer.query, layer.key], strength=0.3, energy_of=lack_of_attention)
    steered.look_ahead = lambda predict, x, sigma, clean, features: looked.append(features)
    sample(replace(model, positive=regions), steered)
    assert steered.seen and list(looked[0]) == [layer.query.name]  # keys of texts of different length have no mean


def test_refinements_lower_the_energy_step_by_step_within_the_same_length():
    model = tiny.build(PLAYGROUND, True)
    once, often = guide(model, strength=0.3), guide(model, strength=0.3, refinements=4)
    plain, one, four = (sample(model, *guides, steps=3) for guides in ((), (once,), (often,)))
    assert len(often.seen) == 4 * len(once.seen)
    first = [float(energies) for _, energies in often.seen[:4]]
    assert first == sorted(first, reverse=True)
    assert (four - plain).norm() < 1.5 * (one - plain).norm()


def test_few_long_steps_are_guided_in_several_short_ones():
    model = tiny.build(PLAYGROUND, True)
    for steps, wanted in ((25, range(25, 26 + steering.MOST)), (5, range(11, 5 * steering.MOST)), (1, [steering.MOST])):
        watching = guide(model, refinements=0)
        sample(model, watching, steps=steps)
        assert len(watching.seen) in wanted


def test_what_nothing_comes_after_is_a_prediction():
    """A picture that is made in one step is what the model predicts from where the guide has moved it to."""
    model, predicted = tiny.build(PLAYGROUND, True), []

    def note(call: tiny.Call) -> Tensor:
        predicted.append(call.run(call.x))
        return predicted[-1]

    watched = replace(model, model=tiny.on_each_call(model.model, note))
    seen, unseen = (sample(each, guide(model, strength=2.0), steps=1, cfg=1.0) for each in (watched, model))
    latent_format: Any = model.model.get_model_object("latent_format")
    torch.testing.assert_close(seen, latent_format.process_out(predicted[-1]), rtol=1e-4, atol=1e-4)
    assert torch.equal(seen, unseen) and not torch.allclose(seen, latent_format.process_out(predicted[0]), rtol=0.1)


def test_a_guide_that_fades_ends_softly_unless_it_goes_on_to_the_end():
    model = tiny.build(PLAYGROUND, True)
    plain = sample(model, steps=8)
    for end, softer in ((0.7, True), (1.0, False)):
        hard, soft = (sample(model, guide(model, range=SigmaRange(0.0, end), fades=fades), steps=8) for fades in (False, True))
        assert torch.equal(hard, soft) != softer and not torch.equal(soft, plain)
    last = SigmaRange(0.5, 0.6)  # one step, of which a third is left
    hard, soft = (sample(model, guide(model, range=last, fades=fades), steps=8) for fades in (False, True))
    assert float((soft - plain).norm() / (hard - plain).norm()) == pytest.approx(1 / 3, abs=0.15)


@pytest.mark.parametrize("family", ["SDXL", "Flux"])
def test_a_guided_step_reads_hardly_a_number_from_the_device(family):
    """Each read makes the CPU wait for the GPU: not one for every layer."""
    model = tiny.build(family, True)
    with Reads() as plain:
        sample(model, steps=2)
    with Reads() as guided:
        sample(model, guide(model), steps=2)
    assert guided.counts["_local_scalar_dense"] - plain.counts["_local_scalar_dense"] <= 2 * 8
    assert guided.counts["nonzero"] + guided.counts["index"] == plain.counts["nonzero"] + plain.counts["index"]


def test_a_graph_that_does_not_fit_is_made_smaller_and_steers_alike(monkeypatch):
    model = tiny.build(PLAYGROUND, True)
    whole = sample(model, guide(model))
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda _=None, both=False: (1e5, 1e5) if both else 1e5)
    asked = []
    monkeypatch.setattr(passes, "recomputed", lambda diffusion_model: asked.append(1) or recomputed(diffusion_model))
    torch.testing.assert_close(sample(model, guide(model)), whole, rtol=1e-3, atol=1e-3 * whole.std().item())
    assert asked


@pytest.mark.parametrize("override", [lambda f, *a, **k: f(*a, **k).detach(), lambda f, *a, **k: attention_pytorch(*a, **k).detach()])
def test_attention_without_a_derivative_is_steered_as_any(override):
    model = tiny.build(PLAYGROUND, True)
    patcher = model.model.clone()
    patcher.model_options["transformer_options"]["optimized_attention_override"] = override
    ordinary, overridden = guide(model), guide(model)
    sample(model, ordinary)
    sample(model, overridden, patcher=patcher)
    torch.testing.assert_close(overridden.seen[-1][1], ordinary.seen[-1][1], rtol=1e-2, atol=0)


def spread(features: dict[str, Tensor]) -> Tensor:
    return torch.stack([feature.square().flatten(1).mean(1) for feature in features.values()]).mean(0)


def test_each_of_two_guides_does_what_it_would_do_alone(monkeypatch):
    model = tiny.build(PLAYGROUND, True)
    monkeypatch.setattr(steering, "SHORT", math.inf)
    one, other = guide(model, strength=0.3, refinements=1), guide(model, strength=0.1, energy_of=spread, refinements=1)
    plain = sample(model, steps=1)
    moved = [sample(model, *some, steps=1) - plain for some in ((one, other), (one,), (other,))]
    torch.testing.assert_close(moved[0], moved[1] + moved[2], rtol=0, atol=0.02 * moved[0].std().item())  # of rounding
    assert min(each.std() for each in moved) > 0


def test_a_guide_with_a_large_energy_does_not_drown_another():
    model = tiny.build(PLAYGROUND, True)
    found = [sample(model, guide(model), guide(model, energy_of=lambda features, k=k: k * spread(features))) for k in (1, 1000)]
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3 * found[0].std().item())


def test_two_guides_may_read_different_layers_and_cover_different_ranges():
    model = tiny.build(PLAYGROUND, True)
    points = families.structure_points(model.model)
    early = ToTarget(points[:1], range=SigmaRange(0.0, 0.4))
    late = ToTarget(points[1:], range=SigmaRange(0.3, 0.8))
    sample(model, early, late, steps=4)
    assert len({sigma for sigma, _ in early.seen}) == len({sigma for sigma, _ in late.seen}) == 2


def test_a_step_serves_again_while_sigma_is_near(monkeypatch):
    """Every gradient is taken at another noise level, and in a long run there are far fewer of them than calls."""
    model = tiny.build(PLAYGROUND, True)
    often, seldom = guide(model), guide(model)
    exact = sample(model, often, steps=20)
    monkeypatch.setattr(steering, "REUSE", 0.2)
    steered = sample(model, seldom, steps=20)
    levels = torch.tensor([sigma for sigma, _ in seldom.seen]).log()
    assert (levels[:-1] - levels[1:] >= 0.2).all()
    assert len(often.seen) == 20 > len(seldom.seen) > 5
    plain = sample(model, steps=20)
    assert (steered - exact).norm() < 0.5 * (exact - plain).norm()


@pytest.mark.parametrize("family", ["SD 3", "Wan"])
def test_flow_models_get_as_many_gradients_as_their_noise_changes(family, monkeypatch):
    """Their sigmas end at 1, and hardly fall at first."""
    model = tiny.build(family, True)
    monkeypatch.setattr(steering, "REUSE", 0.15)
    early = guide(model, range=SigmaRange(0.0, 0.5))
    sample(model, early, steps=20)
    assert len(early.seen) >= 3


def test_noise_to_signal_is_that_of_the_latent_itself():
    """Of unit latents: so that one strength means the same in both kinds of model."""
    signal = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    noise = noise - signal * (noise * signal).mean() / signal.square().mean()
    for family in (PLAYGROUND, "SD 3"):
        sampling: Any = tiny.build(family).model.get_model_object("model_sampling")
        for percent in (0.2, 0.5, 0.8):
            sigma = sampling.percent_to_sigma(percent)
            mixed = sampling.noise_scaling(torch.tensor(sigma), noise, signal, False)
            in_signal, in_noise = ((mixed * part).mean() / part.square().mean() for part in (signal, noise))
            assert noise_to_signal(sigma, sampling) == pytest.approx(float(in_noise / in_signal), rel=1e-3)


def test_where_the_schedule_begins_at_pure_noise_no_step_is_longer():
    """Checkpoints for v-prediction with zero terminal SNR begin at a sigma of 4500."""
    model = tiny.build("SD 2", True)
    patcher = ModelSamplingDiscrete().patch(model.model, "v_prediction", True)[0]
    seen: list[Tensor] = []
    watching = guide(model, strength=1.0, correction=lambda denoised, sigma: seen.append(denoised) or denoised)
    plain = guide(model, strength=1e-9, correction=watching.correction)
    for each in (watching, plain):
        assert torch.isfinite(sample(model, each, steps=4, patcher=patcher)).all()
    assert watching.seen[0][0] > 4000
    moved = seen[0] - seen[4]
    assert 0.1 < float(moved.square().mean().sqrt()) < 1.01 * longest(LOUDEST)


def test_a_step_remembers_the_one_before(monkeypatch):
    """Or a solver of higher order would extrapolate what changes from one gradient to the next."""
    model = tiny.build(PLAYGROUND, True)
    steps = {}
    for memory in (1e-6, 1.0):
        monkeypatch.setattr(steering, "MEMORY", memory)
        moved = []
        sample(model, guide(model, correction=lambda denoised, sigma, to=moved: to.append(denoised) or denoised), steps=12)
        steps[memory] = sum(float((a - b).norm()) for a, b in zip(moved[1:], moved[:-1], strict=True))
    assert steps[1.0] < steps[1e-6]


def test_nothing_looks_ahead_where_hooks_are_scheduled():
    model = tiny.build(PLAYGROUND, True)
    hook = WeightHook()
    hook.weights = {}
    hook.hook_keyframe.add(HookKeyframe(strength=0.5, start_percent=0.3))
    group = HookGroup()
    group.add(hook)
    looked = []
    steered = guide(model, first=lambda predict, x, sigma: looked.append(predict))
    positive = [[text, {**options, "hooks": group}] for text, options in model.positive]
    sample(replace(model, positive=positive), steered)
    assert looked == [None]


@pytest.mark.parametrize("family", ["Flux", PLAYGROUND])
@pytest.mark.parametrize("noisy", [True, False], ids=["img2img", "the second of two samplers"])
def test_percents_are_of_the_run_unless_it_goes_on(noisy, family):
    model = tiny.build(family, True)
    early = guide(model, range=SigmaRange(0.0, 0.5))
    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(model.model, model.latent)
        noise: Any = comfy.sample.prepare_noise(latent, 1)
        sampler = comfy.samplers.KSampler(model.model, 6, torch.device("cpu"), "euler", "normal", denoise=0.4)
        sampling: Any = model.model.get_model_object("model_sampling")
        assert sampling.percent_to_sigma(0.5) > sampler.sigmas[0] > 0
        comfy.sample.sample_custom(
            steering.attach(model.model, early), noise if noisy else 0 * noise, 4.0, comfy.samplers.sampler_object("euler"), sampler.sigmas,
            model.positive, model.negative, latent, disable_pbar=True,
        )  # fmt: skip
    assert len({sigma for sigma, _ in early.seen}) == (3 if noisy else 0)


def test_a_cache_that_skips_the_model_is_named():
    model = tiny.build(PLAYGROUND, True)
    cached: Any = EasyCacheNode.execute(model.model, 10.0, 0.0, 1.0, False)[0]
    with pytest.raises(TapError, match="cache"):
        sample(model, guide(model), steps=12, patcher=cached)


@pytest.mark.parametrize("first", ["guide", "cache"])
def test_a_cache_that_answers_for_the_whole_prediction_leaves_the_last_step(first):
    model = tiny.build(PLAYGROUND, True)

    def cached(patcher: ModelPatcher) -> ModelPatcher:
        return LazyCacheNode.execute(patcher, 10.0, 0.0, 1.0, False).args[0]

    steered = guide(model)
    patcher = steering.attach(model.model, steered) if first == "guide" else steering.attach(cached(model.model), steered)
    drawn = model.sample(cached(patcher) if first == "guide" else patcher, 12)
    assert 0 < len(steered.seen) < 12
    assert not torch.allclose(drawn, model.sample(cached(model.model), 12), rtol=1e-2)


def test_a_prompt_for_a_part_of_sampling_is_steered_in_that_part():
    model = tiny.build(PLAYGROUND, True)
    ((text, options),) = model.positive
    late, early = ([t, {**options, "start_percent": s, "end_percent": s + 0.5}] for t, s in ((text, 0.5), (text * 0.5, 0.0)))
    sampling: Any = model.model.get_model_object("model_sampling")
    whole, half, looked = guide(model), guide(model), []
    half.first = lambda predict, x, sigma: looked.append(sigma)
    sample(replace(model, positive=[late, early]), whole, steps=6)
    sample(replace(model, positive=[late]), half, steps=6)
    assert len(whole.seen) == 6 and 0 < len(half.seen) < 6
    assert looked == [half.seen[0][0]] and looked[0] <= sampling.percent_to_sigma(0.5)


def test_what_a_guide_corrects_is_what_the_sampler_gets():
    model = tiny.build(PLAYGROUND, True)
    corrected = guide(model, correction=lambda denoised, sigma: torch.zeros_like(denoised))
    assert sample(model, corrected).abs().max() < 1e-4


def test_a_look_ahead_is_the_plain_prediction_and_changes_nothing():
    model = tiny.build(PLAYGROUND, True)
    looked: list[tuple[Tensor, Features]] = []

    def look(predict: Predict, x: Tensor, sigma: float) -> None:
        looked.extend(predict(x, sigma) for _ in range(2))

    steered = sample(model, guide(model, first=look))
    assert torch.equal(steered, sample(model, guide(model)))
    (clean, features), (again, _) = looked
    assert torch.equal(clean, again)
    assert set(features) == {point.name for point in families.structure_points(model.model)}
    assert all(keys.shape[0] == 1 and not keys.requires_grad for keys in features.values())


@pytest.mark.parametrize("error", [ValueError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize("place", ["energy", "look ahead", "model"])
@pytest.mark.parametrize("family", [PLAYGROUND, "Flux"])
def test_an_error_or_an_interrupt_leaves_nothing_behind(family, place, error):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), sample(model)

    def fail(*_):
        raise error

    failing = guide(model)
    if place == "energy":
        failing.energy_of = fail
    elif place == "look ahead":
        failing.first = fail
    hooked = model.model.model.diffusion_model.get_submodule(failing.points[-1].module)
    handle = hooked.register_forward_hook(fail) if place == "model" else None
    with pytest.raises(error):
        sample(model, failing)
    if handle:
        handle.remove()
    assert fingerprint(model.model) == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(sample(model), plain)


def test_steps_reach_as_far_as_the_noise_and_then_as_its_root():
    assert longest(0.01) == pytest.approx(0.01, rel=1e-3)
    assert longest(1.0) == pytest.approx(2**-0.25)
    assert longest(100.0) == pytest.approx(10.0, rel=1e-3)
