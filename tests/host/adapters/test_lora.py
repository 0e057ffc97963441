"""A LoRA in training is the one that the host loads afterwards, in every family, and leaves the model as it was."""

import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from freesteer.host.adapters.lora import AdapterError, Lora, louder
from freesteer.host.adapters.practice import PracticeError, practise
from freesteer.host.gradients import passes
from freesteer.host.models import families
from freesteer.tests.host import tiny
from freesteer.tests.host.gradients.test_gradients import fingerprint

SPOKEN = [name for name in tiny.RECIPES if name != "SVD"]


def filled(model: tiny.Tiny, rank: int = 4, scale: float = 1.0, targets: list[str] | None = None) -> Lora:
    dm = model.model.model.diffusion_model
    lora = Lora(dm, targets or [each[0] for each in families.family_of(model.model).text_linears(dm)], rank)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for up in lora.up:
            up.copy_(scale * torch.randn(up.shape, generator=generator))
    return lora


@pytest.mark.parametrize("family", SPOKEN)
def test_it_acts_as_the_one_that_the_host_loads(family):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), model.sample()
    lora = filled(model)
    with torch.inference_mode():
        loaded, _ = comfy.sd.load_lora_for_models(model.model, None, lora.for_the_host(), 1.0, 0)
    wanted = model.sample(loaded)
    with lora.attached(model.model.model.diffusion_model):
        found = model.sample()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    assert (found - plain).abs().max() > 1e-2 * plain.std()
    assert fingerprint(model.model) == before and torch.equal(model.sample(), plain)


def test_convolutions_are_trained_as_the_host_loads_them():
    """Wide ones, of one pixel, and those that halve a picture; its weights may come from elsewhere, such as an average."""
    model = tiny.build("SD 1.5", True)
    dm = model.model.model.diffusion_model
    layers = [name for name, layer in dm.named_modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))]
    strides = {dm.get_submodule(name).stride for name in layers if isinstance(dm.get_submodule(name), torch.nn.Conv2d)}
    assert strides == {(1, 1), (2, 2)}
    lora, plain = filled(model, scale=0.02, targets=layers), model.sample()
    with torch.inference_mode():
        loaded, _ = comfy.sd.load_lora_for_models(model.model, None, lora.for_the_host(), 1.0, 0)
    wanted = model.sample(loaded)
    with Lora(dm, layers, 4, seed=5).attached(dm, lora.state_dict()):
        found = model.sample()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))
    assert (found - plain).abs().max() > 1e-2 * plain.std()


def test_at_first_it_changes_nothing():
    model = tiny.build("SD 1.5", True)
    dm = model.model.model.diffusion_model
    lora = Lora(dm, [each[0] for each in families.family_of(model.model).text_linears(dm)], 4)
    plain = model.sample()
    with lora.attached(dm):
        assert torch.equal(model.sample(), plain)


@pytest.mark.parametrize(
    ("rank", "path", "says"), [(999, None, "rank is 999"), (4, "input_blocks.1.0.in_layers.0", "is neither linear nor a convolution")]
)
def test_what_cannot_be_trained_is_said(rank, path, says):
    model = tiny.build("SD 1.5", True)
    dm = model.model.model.diffusion_model
    targets = [path] if path else [each[0] for each in families.family_of(model.model).text_linears(dm)]
    with pytest.raises(AdapterError, match=says):
        Lora(dm, targets, rank)


@pytest.mark.parametrize("family", SPOKEN)
def test_a_practice_predicts_what_the_sampler_would(family):
    """With a graph to what is trained, and the same without one."""
    model = tiny.build(family, True)
    before = fingerprint(model.model)
    lora, seen = filled(model), []
    dm = model.model.model.diffusion_model

    def body(practice):
        x = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
        plain = practice.predict("0", x, 0.7)
        with lora.attached(dm):
            with torch.no_grad():
                without = practice.predict("0", x, 0.7)
            with torch.enable_grad():
                found = practice.predict("0", x, 0.7)
        seen.extend((plain, without, found))

    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(model.model, model.latent)
        practise(model.model, {"0": model.positive, "1": model.negative}, latent, len(latent), body)
    plain, without, found = seen
    assert found.requires_grad and not without.requires_grad
    torch.testing.assert_close(found.detach(), without, rtol=1e-3, atol=1e-3 * float(without.std()))
    assert not torch.equal(plain, without)
    assert fingerprint(model.model) == before


@pytest.mark.parametrize("family", SPOKEN)
def test_each_row_has_its_prompt_and_its_noise_level(family):
    model, seen = tiny.build(family, True), []

    def body(practice):
        x = torch.randn(2, *latent.shape[1:], generator=torch.Generator().manual_seed(2))
        both = practice.predict(("1", "0"), x, torch.tensor([0.4, 0.7]))
        seen.append((both, torch.cat([practice.predict("1", x[:1], 0.4), practice.predict("0", x[1:], 0.7)])))

    with torch.inference_mode():
        latent = comfy.sample.fix_empty_latent_channels(model.model, model.latent)
        practise(model.model, {"0": model.positive, "1": model.negative}, latent[:1], 2, body)
    ((found, wanted),) = seen
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def test_the_host_is_asked_for_room_for_all_pictures_of_a_step():
    model, asked = tiny.build("SD 1.5", True), []

    def note(executor, patcher, noise_shape, *args, **kwargs):
        asked.append(noise_shape[0])
        return executor(patcher, noise_shape, *args, **kwargs)

    model.model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "test", note)
    with torch.inference_mode():
        for pictures in (1, 8):
            practise(model.model, {"0": model.positive}, model.latent[:1], pictures, lambda practice: None)
    assert asked[1] > 4 * asked[0]


def test_a_prompt_of_several_parts_is_no_row():
    model = tiny.build("SD 1.5", True)
    parts = [*model.positive, *model.negative]

    def body(practice):
        practice.predict(("0", "0"), model.latent, 0.7)

    with torch.inference_mode(), pytest.raises(PracticeError, match="several parts"):
        practise(model.model, {"0": parts}, model.latent, 1, body)


def test_half_precision_does_not_lose_a_small_gradient():
    """Of a loss as small as one over many tokens."""
    found = []
    for dtype in (torch.float32, torch.float16):
        model = tiny.build("SD 1.5", True, dtype)
        lora, dm, latent = filled(model), model.model.model.diffusion_model, model.latent

        def body(practice, lora=lora, dm=dm, latent=latent):
            x = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
            with passes.differentiable(dm, passes.Settings()), lora.attached(dm), torch.enable_grad():
                (1e-3 * louder(practice.predict("0", x, 0.7)).square().mean()).backward()
            found.append(torch.cat([weight.grad.flatten() for weight in lora.parameters() if weight.grad is not None]))

        with torch.inference_mode():
            practise(model.model, {"0": model.positive, "1": model.negative}, latent, len(latent), body)
    assert (found[1] - found[0]).norm() < 0.02 * found[0].norm()
