"""Windows of a picture are drawn as a picture of their own would be, with all that belongs to their place, and averaged."""

import importlib
from typing import Any

import comfy.controlnet
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.conds import CONDRegular
from comfy.patcher_extension import WrappersMP
from freesteer.core import windows
from freesteer.host.gradients.preparation import NoGradientError
from freesteer.host.sampling import steering, windowed
from freesteer.host.sampling.windowed import Windowing
from freesteer.tests.host import controls, predicting, tiny
from freesteer.tests.host.gradients.test_gradients import fingerprint
from torch import Tensor

from .test_steering import guide

PLAYGROUND = "FreeSteer playground"
FAMILIES = [name for name in tiny.RECIPES if name != "SVD"]


def whole(model: tiny.Tiny) -> tuple[int, int]:
    return model.latent.shape[-2], model.latent.shape[-1]


def halves(model: tiny.Tiny, **changed) -> Windowing:
    """Windows half as high, a quarter of the picture apart."""
    h, w = whole(model)
    return Windowing(**{"window": (h // 2, w), "stride": (h // 4, w), "blending": "uniform", **changed})


@pytest.mark.parametrize("family", FAMILIES)
def test_one_window_is_the_plain_model(family):
    model = tiny.build(family, True)
    before, plain = fingerprint(model.model), model.sample()
    h, w = whole(model)
    for window in ((h, w), (2 * h, 3 * w)):
        assert torch.equal(model.sample(windowed.attach(model.model, Windowing(window, window))), plain)
    assert fingerprint(model.model) == before and torch.equal(model.sample(), plain)


def prediction(model: tiny.Tiny, x: Tensor, patcher=None, sigma: float = 2.0) -> Tensor:
    return predicting.prediction(patcher or model.model, model.positive, model.negative, x, sigma)


@pytest.mark.parametrize("together", [1, 2, 0])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_window_is_drawn_as_a_picture_of_its_own(family, together):
    model = tiny.build(family, True)
    setting = halves(model, together=together)
    x = torch.randn(
        2, *comfy.sample.fix_empty_latent_channels(model.model, model.latent).shape[1:], generator=torch.Generator().manual_seed(3)
    )
    total, counted = torch.zeros_like(x), torch.zeros(whole(model))
    for place in windows.places(whole(model), setting.window, setting.stride, setting.wraps):
        windows.add(total, prediction(model, windows.cut(x, place, setting.window).contiguous()), place, setting.window)
        windows.add(counted, torch.ones(setting.window), place, setting.window)
    found = prediction(model, x, windowed.attach(model.model, setting))
    torch.testing.assert_close(found, total / counted, rtol=1e-3, atol=1e-3 * float(found.std()))


def test_a_picture_that_wraps_is_the_same_wherever_it_begins():
    model = tiny.build(PLAYGROUND, True)
    setting = halves(model, wraps=(True, False))
    x = torch.randn(1, *model.latent.shape[1:], generator=torch.Generator().manual_seed(3))
    patcher, by = windowed.attach(model.model, setting), setting.stride[0]
    rolled = prediction(model, x.roll(by, -2), patcher).roll(-by, -2)
    torch.testing.assert_close(rolled, prediction(model, x, patcher), rtol=1e-3, atol=1e-3)


def test_masks_and_areas_are_cut_to_windows():
    model = tiny.build(PLAYGROUND, True)
    h, w = whole(model)
    ((first, options),), ((second, _),) = model.positive, model.negative
    mask = torch.zeros(1, h, w)
    mask[:, : h // 2] = 1
    masked = [[text, {**options, "mask": m, "mask_strength": 1.0}] for text, m in ((first, mask), (second, 1 - mask))]
    areas = [[text, {**options, "area": (h // 2, w, top, 0), "strength": 1.0}] for text, top in ((first, 0), (second, h // 2))]
    x = torch.randn(1, *model.latent.shape[1:], generator=torch.Generator().manual_seed(3))
    setting = Windowing((h // 2, w), (h // 2, w), blending="uniform")
    separate = torch.cat(
        [
            prediction(tiny.replace(model, positive=[[text, options]]), half.contiguous())
            for text, half in zip((first, second), x.chunk(2, 2), strict=True)
        ],
        2,
    )
    for positive in (masked, areas):
        found = prediction(tiny.replace(model, positive=positive), x, windowed.attach(model.model, setting))
        torch.testing.assert_close(found, separate, rtol=1e-3, atol=1e-3)


def test_the_host_is_asked_for_room_for_a_window():
    model, asked = tiny.build(PLAYGROUND, True), []

    def note(executor, patcher, noise_shape, *args, **kwargs):
        asked.append(tuple(noise_shape))
        return executor(patcher, noise_shape, *args, **kwargs)

    patcher = windowed.attach(model.model, halves(model))
    patcher.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "test", note)
    model.sample(patcher)
    h, w = whole(model)
    assert asked == [(*model.latent.shape[:2], h // 2, w)]


@pytest.mark.parametrize("together", [1, 0])
def test_hints_of_controlnets_are_cut_to_windows(together):
    model = tiny.build(PLAYGROUND, True)
    h, w = whole(model)
    first, second = (controls.control_of(model, seed) for seed in (0, 1))
    hint = torch.rand(1, 8 * h, 8 * w, 3, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, *model.latent.shape[1:], generator=torch.Generator().manual_seed(3))

    def under(hint: Tensor) -> tiny.Tiny:
        given, host = (model.positive, model.negative), importlib.import_module("nodes")
        for control in (first, second):
            given = host.ControlNetApplyAdvanced().apply_controlnet(*given, control, hint, 1.0, 0.0, 1.0)
        return tiny.replace(model, positive=given[0], negative=given[1])

    setting = Windowing((h // 2, w), (h // 2, w), blending="uniform", together=together)
    parts = zip(hint.chunk(2, 1), x.chunk(2, 2), strict=True)
    separate = torch.cat([prediction(under(part), half.contiguous()) for part, half in parts], 2)
    for given in (hint, hint.repeat_interleave(2, 1).repeat_interleave(2, 2)):  # in another size, too
        found = prediction(under(given), x, windowed.attach(model.model, setting))
        torch.testing.assert_close(found, separate, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(prediction(under(1 - hint), x, windowed.attach(model.model, setting)), separate, rtol=0.1)


def test_a_guide_that_sees_the_whole_picture_says_so_in_one_of_several_windows():
    model = tiny.build(PLAYGROUND, True)
    h, w = whole(model)
    guided = steering.attach(model.model, guide(model))
    for patcher in (windowed.attach(guided, halves(model)), steering.attach(windowed.attach(model.model, halves(model)), guide(model))):
        with pytest.raises(NoGradientError, match="Grid Guidance in a picture of several windows"):
            model.sample(patcher)
    assert torch.equal(model.sample(windowed.attach(guided, Windowing((h, w), (h, w)))), model.sample(guided))


def areas(model: tiny.Tiny, *boxes: tuple[int, int, int, int]) -> tiny.Tiny:
    """The positive prompt in boxes (height, width, top, left), and everywhere a little."""
    ((text, options),) = model.positive
    return tiny.replace(model, positive=[[text, {**options, "area": box, "strength": 1.0}] for box in boxes] + [[text, options]])


def test_one_window_with_areas_is_the_plain_model():
    model = tiny.build(PLAYGROUND, True)
    h, w = whole(model)
    divided = areas(model, (h // 2, w, h // 4, 0), (h // 4, w // 2, 0, 3))
    assert torch.equal(divided.sample(windowed.attach(model.model, Windowing((h, w), (h, w)))), divided.sample())


@pytest.mark.parametrize("box", [(8, 6, 3, 2), (8, 16, 0, 0), (24, 5, 0, 11), (3, 3, 21, 13), (40, 40, 4, 4)])
def test_areas_begin_and_end_as_the_hosts(box):
    x = torch.zeros(1, 4, 24, 16)
    height, width, top, left = box
    fitting = (min(height, 24 - top), min(width, 16 - left), top, left)  # as the host makes it at the beginning of a run
    wanted = torch.zeros(24, 16)
    asked: Any = comfy.samplers.get_area_and_mult({"area": fitting, "model_conds": {}, "uuid": 0}, x, torch.ones(1))
    wanted[top : top + fitting[0], left : left + fitting[1]] = asked.mult[0, 0]
    cut = windowed.Cut(((0, 0),), (24, 16), x.shape, x.device)
    mask = windowed.cut_condition({"area": fitting, "model_conds": {}, "uuid": 0}, cut)["mask"]
    torch.testing.assert_close(mask[0], wanted)


def test_a_picture_as_large_as_a_window_wraps_too():
    model = tiny.build(PLAYGROUND, True)
    h, w = whole(model)
    patcher = windowed.attach(model.model, Windowing((h, w), (h // 2, w), wraps=(True, False), blending="uniform"))
    x = torch.randn(1, *model.latent.shape[1:], generator=torch.Generator().manual_seed(3))
    found = prediction(model, x, patcher)
    torch.testing.assert_close(prediction(model, x.roll(h // 2, -2), patcher).roll(h // 2, -2), found, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, prediction(model, x), atol=1e-3)


def test_what_others_keep_of_a_window_is_not_taken_for_another():
    shape = torch.Size([1, 4, 24, 16])
    cuts = [windowed.Cut(((top, 0),), (12, 16), shape, torch.device("cpu")) for top in (0, 12)]
    first, second = (windowed.cut_condition({"model_conds": {}, "uuid": 5}, cut)["uuid"] for cut in cuts)
    assert first != second and hash(first) and "5" in str(first)


@pytest.mark.parametrize("kind", ["gligen", "vace_context", "effnet", "several GPUs", "sound"])
def test_what_cannot_be_cut_is_refused_where_there_are_several_windows(kind):
    x = torch.zeros(1, 4, 24, 16) if kind != "sound" else torch.zeros(1, 4, 24)
    condition: dict = {"model_conds": {}}
    if kind == "gligen":
        condition[kind] = ("position", None, [])
    elif kind == "several GPUs":
        control: Any = comfy.controlnet.ControlBase()
        control.multigpu_clones = {torch.device("cpu"): control}
        condition["control"] = control
    elif kind != "sound":
        condition["model_conds"][kind] = CONDRegular(torch.zeros(1, 3, 5, 5))
    with pytest.raises(windowed.WindowsError, match="use no Grid Guidance"):
        windowed.check([[condition], None], x, 2)
    windowed.check([[condition], None], x, 1)
