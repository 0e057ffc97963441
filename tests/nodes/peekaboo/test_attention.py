"""Attention by label in every family of the host, against dense masks that are made token by token."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention
import comfy.sample
import pytest
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from comfy.quant_ops import QUANT_ALGOS
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from freesteer.core.attention.grouped import Part
from freesteer.host.models import families
from freesteer.host.models.attention_sites import sites
from freesteer.host.models.running import watching
from freesteer.host.models.taps import OVERRIDE
from freesteer.host.sampling import by_label
from freesteer.host.sampling.by_label import LabelError, mask_of
from freesteer.host.sampling.sigma_range import SigmaRange
from freesteer.recipes.peekaboo.patch import Objects, PeekabooError, PeekabooSettings, Special, Windowed, attach
from torch import Tensor

from ..conftest import tiny

ALWAYS = SigmaRange(0, 1)
FRAMES = 3
PATCHES = {
    "SD 3": (2, 2), "Flux": (2, 2), "Lumina 2 and Z-Image": (2, 2), "Qwen-Image": (1, 2, 2), "Hunyuan Video": (1, 2, 2), "Wan": (1, 2, 2),
    "LTX Video": (1, 1, 1),
}  # fmt: skip


class Halves:
    """The left half of even frames, the upper half of odd ones."""

    def coverage(self, frames, grid):
        found = torch.zeros(frames, *grid)
        found[::2, :, : max(1, grid[1] // 2)] = 1
        found[1::2, : max(1, grid[0] // 2)] = 1
        return found


def objects_for(encoded, policy: Special = "both") -> Objects:
    tokens = encoded.shape[1]
    phrase = torch.zeros(1, tokens, dtype=torch.bool)
    phrase[0, min(2, tokens - 1)] = True
    special = torch.zeros(tokens, dtype=torch.bool)
    special[0] = tokens > 1
    return Objects([Halves()], phrase, special, policy)


def made_of(family: str):
    return tiny.build(family, rows=FRAMES if family == "SVD" else 2)


def patched(made, model=None, policy: Special = "both", **settings):
    encoded = made.positive[0][0]
    return attach(
        model or made.model, PeekabooSettings(**{"range": ALWAYS, "space": True, **settings}), objects_for(encoded, policy), encoded
    )


@dataclass(frozen=True)
class Dense:
    """Masks of all attention of a tiny model, made token by token, from lengths alone: none of these models has two alike."""

    family: families.Family
    objects: Objects
    shape: torch.Size
    words: Tensor
    everywhere: bool = True
    space: bool = True

    def places(self, tokens: int) -> Tensor:
        """(frames or 1, tokens of a frame)"""
        if self.family.name in PATCHES:
            patch = PATCHES[self.family.name]
            *t, h, w = (-(-size // cells) for size, cells in zip(self.shape[-len(patch) :], patch, strict=True))
            return self.objects.places(t[0] if t else 1, (h, w)).flatten()[None]
        h, w = self.shape[-2:]
        while h * w > tokens:
            h, w = -(-h // 2), -(-w // 2)
        return self.objects.places(FRAMES if self.family.name == "SVD" else 1, (h, w)).flatten(1)

    @property
    def filled(self) -> int:
        return 32 if self.family.name == "Lumina 2 and Z-Image" else 1

    def joint(self, allowed: Tensor, conditional: bool) -> None:
        """allowed: (tokens, tokens) of one row, prompt before image, both filled up to a multiple."""
        text = self.words.shape[1]
        total = len(allowed)
        image = self.places(total)[0]
        label = torch.full((total,), 9)  # of everything that all may see
        start = total - (-(-len(image) // self.filled) * self.filled)
        label[start : start + len(image)] = image
        told = conditional and start >= text
        for i, own in enumerate(label.tolist()):
            asks = [own] if own < 2 else [n for n in (0, 1) if told and i < text and self.words[n, i] and not self.words[1 - n, i]]
            for n in asks:
                allowed[i] = (label == n) | (label == 9) | (not self.space)
                if told:
                    allowed[i, :text] = self.words[n]

    def apart(self, allowed: Tensor, label: Tensor, conditional: bool) -> None:
        """allowed: (queries, keys) of one row of a model whose prompt has attention of its own."""
        queries, keys = allowed.shape
        for i in range(queries):
            if keys == self.words.shape[1] and queries != keys:
                if conditional and self.words[int(label[i])].any():
                    allowed[i] = self.words[int(label[i])]
            elif self.space and (conditional or self.everywhere):
                allowed[i] = label == label[i]

    def __call__(self, function, q, k, v, heads, *rest, **named):
        branches = named["transformer_options"]["cond_or_uncond"]
        rows, queries = len(q), q.shape[-2]
        if self.family.text == "joint" and queries < (64 if self.filled > 1 else self.places(queries).numel()):
            return function(q, k, v, heads, *rest, **named)  # prompt or picture are refined by themselves
        allowed = torch.ones(rows, queries, k.shape[-2], dtype=torch.bool)
        each = rows // len(branches)
        for row in range(rows):
            conditional = branches[row // each] == 0
            if self.family.text == "joint":
                if conditional or self.everywhere:
                    self.joint(allowed[row], conditional)
            elif self.family.name == "SVD" and queries == FRAMES:
                self.apart(allowed[row], self.places(each)[:, row % each], conditional)
            else:
                places = self.places(queries)
                self.apart(allowed[row], places[row % each % len(places)], conditional)
        return masked(q, k, v, heads, allowed, **named)


def dense(made, policy: Special = "both", **options):
    """A clone on which every attention has a mask."""
    model, encoded = made.model.clone(), made.positive[0][0]
    objects = objects_for(encoded, policy)
    words = torch.stack([~objects.phrases[0] & ~objects.special, objects.phrases[0]])
    words[{"both": slice(0, 2), "ground": slice(0, 1), "object": slice(1, 2)}[policy]] |= objects.special
    shape = comfy.sample.fix_empty_latent_channels(made.model, made.latent).shape
    override = Dense(families.family_of(made.model), objects, shape, words, **options)
    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: override}
    return model


def masked(q, k, v, heads, allowed, mask=None, skip_reshape=False, skip_output_reshape=False, enable_gqa=False, **_):
    v = v.flatten(2) if v.ndim > q.ndim else v
    if not skip_reshape:
        q, k, v = (x.unflatten(-1, (-1, q.shape[-1] // heads)).transpose(1, 2) for x in (q, k, v))
    bias = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)[:, None]
    if mask is not None:
        mask = mask[None, None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask
        bias = bias + (torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=enable_gqa)
    return out if skip_output_reshape else out.transpose(1, 2).flatten(2)


def close(a, b) -> None:
    torch.testing.assert_close(a, b, atol=2e-4 * float(b.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("small", [0, by_label.SMALL])
@pytest.mark.parametrize("family", tiny.RECIPES)
def test_it_is_what_dense_masks_give(family, small, monkeypatch):
    monkeypatch.setattr(by_label, "SMALL", small)
    made = made_of(family)
    found = made.sample(patched(made))
    close(found, made.sample(dense(made)))
    assert (found - made.sample()).abs().max() > 1e-3 * found.abs().max()


@pytest.mark.parametrize("policy", ["ground", "object"])
@pytest.mark.parametrize("family", ["SD 1.5", "Flux"])
def test_begin_and_padding_belong_to_whom_they_are_given(family, policy):
    made = made_of(family)
    close(made.sample(patched(made, policy=policy)), made.sample(dense(made, policy)))


@pytest.mark.parametrize("family", ["SD 1.5", "Wan"])
def test_a_longer_negative_prompt_changes_nothing_of_where_words_go(family):
    """The host repeats the shorter prompt then, which is the same to a model whose prompt has attention of its own."""
    made = made_of(family)
    longer = dataclasses.replace(made, negative=[[made.negative[0][0].repeat(1, 2, 1), made.negative[0][1]]])
    for space in (True, False):
        found = longer.sample(patched(made, space=space))
        close(found, made.sample(patched(made, space=space)))
        assert (found - made.sample()).abs().max() > 1e-3 * found.abs().max()


def test_a_mask_may_come_without_its_name():
    """As LTX Video hands it on in older versions of the host."""
    made = made_of("SD 1.5")
    model = patched(made, space=False)
    named = made.sample(model)
    model = model.clone()

    def by_place(executor, *args, **kwargs):
        options = kwargs["transformer_options"]
        ours = options[OVERRIDE]

        def attention(function, q, k, v, heads, mask=None, **named):
            return ours(function, q, k, v, heads, mask, **named)

        return executor(*args, **{**kwargs, "transformer_options": {**options, OVERRIDE: attention}})

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "by place", by_place)
    assert torch.equal(made.sample(model), named)


@pytest.mark.parametrize("family", ["SD 1.5", "Wan", "Flux"])
def test_words_alone_can_be_kept_apart(family):
    made = made_of(family)
    close(made.sample(patched(made, space=False, time=False)), made.sample(dense(made, space=False)))


@pytest.mark.parametrize("family", ["SD 1.5", "SVD", "Wan", "Flux"])
def test_the_negative_branch_can_be_left_alone(family):
    made = made_of(family)
    close(made.sample(patched(made, everywhere=False)), made.sample(dense(made, everywhere=False)))


@pytest.mark.parametrize("family", tiny.RECIPES)
def test_at_strength_0_and_outside_of_its_range_it_is_plain_sampling_to_the_bit(family):
    made = made_of(family)
    plain = made.sample()
    assert torch.equal(made.sample(patched(made, strength=0.0)), plain)
    assert torch.equal(made.sample(patched(made, range=SigmaRange(1, 1))), plain)
    assert torch.equal(made.sample(), plain)


def test_half_a_strength_lies_between():
    made = made_of("SD 1.5")
    plain, half, whole = made.sample(), made.sample(patched(made, strength=0.5)), made.sample(patched(made))
    assert (half - plain).abs().mean() < (whole - plain).abs().mean()
    assert (half - plain).abs().mean() > 0.1 * (whole - plain).abs().mean()


def test_other_packs_overrides_are_called_in_every_part():
    made, calls = made_of("Wan"), []

    def override(function, *args, **kwargs):
        calls.append(args[0].shape[-2])
        return function(*args, **kwargs)

    model = made.model.clone()
    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: override}
    close(made.sample(patched(made, model)), made.sample(patched(made)))
    assert min(calls) < max(calls)


def test_other_kernels_are_given_no_mask():
    """For some pass over one without a word, and one of all tokens by all would fill the memory."""
    made, masks = made_of("Wan"), []
    model = made.model.clone()

    def override(function, q, k, *args, **kwargs):
        masks.append(kwargs.get("mask"))
        return function(q, k, *args, **kwargs)

    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: override}
    close(made.sample(patched(made, model)), made.sample(patched(made)))
    assert masks and all(mask is None for mask in masks)


@pytest.mark.parametrize("kernel", ["attention_basic", "attention_sub_quad", "attention_split"])
@pytest.mark.parametrize("family", ["SD 1.5", "Wan", "Flux"])
def test_every_kernel_of_the_host_will_do(family, kernel):
    made = made_of(family)
    model, calls = made.model.clone(), []

    def override(function, *args, **kwargs):
        calls.append(1)
        return getattr(comfy.ldm.modules.attention, kernel)(*args, **kwargs)

    model.model_options["transformer_options"] = {**model.model_options.get("transformer_options", {}), OVERRIDE: override}
    close(made.sample(patched(made, model)), made.sample(patched(made)))
    assert calls


@pytest.mark.parametrize("form", [form for form in sorted(QUANT_ALGOS) if form.startswith(("float8", "int8"))])  # those a CPU multiplies
def test_weights_of_any_kind_will_do(form):
    made = tiny.quantised("Flux", form)
    found, plain = made.sample(patched(made)), made.sample()
    assert torch.isfinite(found).all() and not torch.equal(found, plain)
    assert torch.equal(made.sample(), plain)


def test_a_window_of_a_longer_clip_has_its_part_of_the_track(monkeypatch):
    made = made_of("Wan")
    objects = objects_for(made.positive[0][0])
    assert torch.equal(Windowed(objects, (2, 0), 3).places(2, (4, 4)), objects.places(3, (4, 4))[[2, 0]])
    seen: list[tuple[int, ...]] = []

    def places(self, frames, grid):
        seen.append(self.frames)
        assert self.total == 5 and frames == len(self.frames)
        return self.objects_of.places(self.total, grid)[list(self.frames)]

    monkeypatch.setattr(Windowed, "places", places)
    latent = torch.zeros(1, made.model.get_model_object("latent_format").latent_channels, 5, *made.latent.shape[-2:])
    windows: Any = ContextWindowsManualNode.execute(patched(made), 3, 1, "standard_static", 1, False, "pyramid", 2, False)
    (model,) = windows.args
    drawn = comfy.sample.sample(
        model, torch.randn_like(latent), 1, 2.0, "euler", "normal", made.positive, made.negative, latent, disable_pbar=True
    )
    assert torch.isfinite(drawn).all() and len(set(seen)) > 1 and {frame for frames in seen for frame in frames} == set(range(5))


def test_areas_are_refused():
    made = made_of("SD 1.5")
    area = [[made.positive[0][0], {**made.positive[0][1], "area": (8, 8, 0, 0), "strength": 1.0}]]
    with pytest.raises(PeekabooError, match="use Conditioning Set Mask instead"):
        dataclasses.replace(made, positive=area).sample(patched(made))


def test_tokens_besides_prompt_and_picture_are_named():
    made = made_of("Flux")
    reference = torch.zeros(1, 16, 8, 8)
    positive = [[made.positive[0][0], {**made.positive[0][1], "reference_latents": [reference]}]]
    with pytest.raises(LabelError, match="reference pictures"):
        dataclasses.replace(made, positive=positive).sample(patched(made))


def test_what_would_mask_nothing_is_refused():
    made = made_of("Wan")
    with pytest.raises(PeekabooError, match="Nothing would be masked"):
        patched(made, text=False, space=False, time=True)


def test_a_mask_of_the_host_is_cut_along_with_the_tokens():
    part = Part(torch.tensor([1]), torch.tensor([[0, 2]]), torch.tensor([[1, 3, 4]]))
    mask = torch.arange(2 * 3 * 5.0).view(2, 3, 5)

    def cut(mask: Tensor) -> Tensor:
        found = mask_of(mask, part, (2, 3, 5))
        assert found is not None
        return found

    assert torch.equal(cut(mask), mask[1:, [0, 2]][:, :, [1, 3, 4]][:, None])
    assert torch.equal(cut(mask[:, :1]), mask[1:, :1, [1, 3, 4]][:, None])
    assert torch.equal(cut(mask[0]), mask[:1, [0, 2]][:, :, [1, 3, 4]][:, None])
    assert mask_of(None, part, (2, 3, 5)) is None


def test_another_prompt_at_the_sampler_is_refused_before_anything_is_drawn():
    made = made_of("SD 1.5")
    other = [[made.positive[0][0] + 1, {}]]
    model = patched(made)
    drawn: list[int] = []
    model.set_model_attn1_patch(lambda q, k, v, extra: drawn.append(1))
    with pytest.raises(PeekabooError, match="connect Peekaboo's own positive output"):
        comfy.sample.sample(
            model, torch.randn_like(made.latent), 1, 2.0, "euler", "normal", other, made.negative, made.latent, disable_pbar=True
        )
    assert not drawn


def test_tokens_that_were_merged_are_named():
    made = made_of("SD 1.5")
    model = patched(made)
    model.set_model_attn1_patch(lambda q, k, v, extra: (q[:, ::2], k[:, ::2], v[:, ::2]))
    with pytest.raises(LabelError, match="ToMe, HyperTile"):
        made.sample(model)


def test_each_attention_is_known_and_hooks_are_taken_off():
    made = made_of("SVD")
    network = made.model.model.diffusion_model
    where = sites(families.family_of(made.model), network)
    assert {site.kind for site in where} == {"space", "text", "time", "text in time"}
    with watching(network, where) as running:
        assert running() is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_two_of_them_on_one_model_are_refused():
    made = made_of("SD 1.5")
    with pytest.raises(PeekabooError, match="give all tracks to one of them"):
        patched(made, patched(made))
