"""Where attention layers are, and how wide: against what the recipes of the tiny models say."""

import pytest
from freesteer.host.models import families
from freesteer.host.models.layouts import Layer
from freesteer.tests.host import tiny

HEADS = {"SD 3": 4, "Lumina 2 and Z-Image": 4}  # of all others: 2


def layers(family: str, cross: bool = False) -> list[Layer]:
    layout = families.family_of(tiny.build(family).model).layout
    diffusion_model = tiny.build(family).model.model.diffusion_model
    return layout.cross_attention(diffusion_model) if cross else layout.attention(diffusion_model)


@pytest.mark.parametrize("family", list(tiny.RECIPES))
def test_a_layer_has_as_many_heads_as_its_recipe_says(family):
    assert {layer.heads for layer in layers(family)} == {HEADS.get(family, 2)}
    assert {layer.heads for layer in layers(family, cross=True)} <= {2}


def test_a_unets_layers_are_named_by_part_and_number_and_halve_the_resolution_by_level():
    found = {layer.name: (layer.part, layer.level, layer.key.patch, layer.query.patch) for layer in layers("SD 1.5")}
    wanted = {
        **{f"input.{n}": level for n, level in ((1, 0), (2, 0), (4, 1), (5, 1), (7, 2), (8, 2))},
        "middle.0": 3,
        **{f"output.{n}": level for n, level in ((3, 2), (4, 2), (5, 2), (6, 1), (7, 1), (8, 1), (9, 0), (10, 0), (11, 0))},
    }
    assert found == {
        f"{name}.attn1": (name.split(".")[0], level, (2**level, 2**level), (2**level, 2**level)) for name, level in wanted.items()
    }
    assert list(found) == [f"{name}.attn1" for name in wanted]  # in the order they run


def test_transformers_that_share_a_block_are_numbered():
    names = [layer.name for layer in layers("SDXL") if layer.part == "output"]
    assert names[:2] == ["output.0.0.attn1", "output.0.1.attn1"] and names[-1] == "output.5.attn1"


def test_text_has_no_grid_and_is_read_beside_each_layer_of_a_unet():
    for cross, own in zip(layers("SD 1.5", cross=True), layers("SD 1.5"), strict=True):
        assert cross.name == own.name.replace("attn1", "attn2")
        assert cross.key.patch is cross.value.patch is None and cross.query.patch == own.query.patch


@pytest.mark.parametrize(
    ("family", "channels"),
    [
        ("Flux", [(0, 64), (64, 128), (128, 192)]),
        ("SD 3", [(0, 256), (256, 512), (512, 768)]),
        ("Lumina 2 and Z-Image", [(0, 256), (256, 384), (384, 512)]),  # two heads of k and v serve four of q
        ("Wan", [None, None, None]),
    ],
)
def test_a_fused_projection_is_query_key_and_value(family, channels):
    for layer in layers(family):
        assert [point.channels for point in (layer.query, layer.key, layer.value)] == channels


def test_a_transformers_blocks_are_numbered_and_all_of_one_resolution():
    assert [layer.name for layer in layers("Wan")] == [f"block.{n}" for n in range(4)]
    assert [layer.name for layer in layers("Wan", cross=True)] == [f"block.{n}.cross" for n in range(4)]
    assert {(layer.part, layer.level, layer.key.patch) for layer in layers("Wan")} == {("output", 0, (1, 2, 2))}
    assert layers("Flux", cross=True) == []


@pytest.mark.parametrize(
    ("family", "resblocks", "transformers"),
    [("SD 1.5", 22, 16), ("SVD", 22, 2 * 16), ("FreeSteer playground", 2 * 3 + 2 + 3 * 1, 2 + 1 + 4)],
)
def test_what_is_computed_again_are_the_outermost_blocks_of_a_unet(family, resblocks, transformers):
    diffusion_model = tiny.build(family).model.model.diffusion_model
    blocks = families.family_of(tiny.build(family).model).layout.blocks(diffusion_model)
    found = [type(diffusion_model.get_submodule(block.path)).__name__ for block in blocks]
    assert sum(name.endswith("ResBlock") for name in found) == resblocks
    assert sum(name == "BasicTransformerBlock" for name in found) == transformers
    assert len(found) == resblocks + transformers


@pytest.mark.parametrize("family", ["Flux", "Wan", "SD 3", "LTX Video"])
def test_what_is_computed_again_are_all_blocks_of_a_transformer(family):
    layout = families.family_of(tiny.build(family).model).layout
    assert len(layout.blocks(tiny.build(family).model.model.diffusion_model)) == 4
