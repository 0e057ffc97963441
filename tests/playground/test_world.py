import random

import pytest
import torch
import torch.nn.functional as F
from freesteer.playground.world import captions, conditions, world
from freesteer.playground.world.textures import BACKGROUNDS


def scenes(n: int = 64, seed: int = 0, **options) -> world.Scenes:
    return world.sample_scenes(n, torch.Generator().manual_seed(seed), **options)


def test_a_seed_draws_the_same_pictures_whatever_the_batch():
    drawn = scenes(40)
    whole = world.render(drawn)[0]
    parts = torch.cat([world.render(drawn[i : i + 7])[0] for i in range(0, 40, 7)])
    torch.testing.assert_close(parts, whole)


def test_the_mask_is_where_the_colour_of_an_object_decides_the_picture():
    drawn = scenes(64, counts=(1, 0, 0))
    red, blue = drawn[:], drawn[:]
    red.colour = torch.zeros_like(drawn.colour)
    blue.colour = torch.full_like(drawn.colour, 4)
    pictures, masks = world.render(red)
    changed = (pictures - world.render(blue)[0]).abs().amax(1) > 0.02
    solid, any_part = masks[:, 0] > 0.9, masks[:, 0] > 0
    assert (changed[solid]).float().mean() > 0.99
    assert not changed[~any_part].any()


def test_objects_keep_clear_of_each_other_and_stay_mostly_in_the_picture():
    drawn = scenes(256, counts=(0, 0.5, 0.5))
    _, masks = world.render(drawn)
    assert (masks.sum(1) <= 1 + 1e-5).all()
    alone = world.render(scenes(256, counts=(1, 0, 0)))[1][:, 0].sum((1, 2))
    assert alone.min() > 100
    gaps = world._smallest_gap(torch.stack([drawn.x, drawn.y], -1)[:, None], drawn.radius, drawn.count)
    assert (gaps > 0).float().mean() > 0.98


@pytest.mark.parametrize("shape", range(len(world.SHAPES)))
def test_every_shape_has_its_own_outline(shape):
    drawn = scenes(1, counts=(1, 0, 0))
    drawn.x[:], drawn.y[:], drawn.radius[:], drawn.angle[:] = 64, 64, 30, 0
    areas = []
    for other in range(len(world.SHAPES)):
        drawn.shape[:] = other
        areas.append(world.render(drawn)[1][0, 0] > 0.5)
    overlaps = [(areas[shape] & a).sum() / (areas[shape] | a).sum() for a in areas]
    assert sum(float(o) > 0.9 for o in overlaps) == 1


def test_captions_tell_what_is_there_in_known_words():
    drawn, rng = scenes(300), random.Random(0)
    texts = []
    for i in range(300):
        said = captions.caption(drawn, i, rng)
        texts.append(said.text)
        assert set(said.words) <= set(captions.VOCABULARY)
        for slot in range(int(drawn.count[i])):
            about = [w for w, g in zip(said.words, said.groups, strict=True) if g == slot + 1]
            assert world.SHAPES[int(drawn.shape[i, slot])] in about or captions.ANY_SHAPE in about
        ground = [w for w, g in zip(said.words, said.groups, strict=True) if g == captions.GROUND]
        assert ground in ([], [BACKGROUNDS[int(drawn.background[i])]])
    assert any("left of" in t for t in texts) and any("above" in t for t in texts)
    assert any("photo of" in t for t in texts) and any("with" in t for t in texts)


def test_relations_in_captions_are_true():
    drawn, rng, found = scenes(400, counts=(0, 1, 0)), random.Random(1), set()
    for i in range(400):
        said = captions.caption(drawn, i, rng)
        word = next((w for w in ("left", "right", "above", "below") if w in said.words), None)
        if word is None:
            continue
        first, second = (g - 1 for g in dict.fromkeys(g for g in said.groups if g))
        place = drawn.x[i] if word in ("left", "right") else drawn.y[i]
        first, second = (first, second) if word in ("left", "above") else (second, first)
        assert place[first] < place[second]
        found.add(word)
    assert {"left", "above"} <= found


@pytest.mark.parametrize("kind", conditions.KINDS)
def test_conditions_show_the_mask_and_nothing_else(kind):
    masks = world.render(scenes(8, counts=(1, 0, 0)))[1][:, 0]
    generator = torch.Generator().manual_seed(0)
    picture = conditions.condition(kind, masks, generator)
    assert picture.shape == (8, 3, 128, 128) and picture.min() >= 0 and picture.max() <= 1
    grey, inside = picture.mean(1), masks > 0.5
    if kind in ("edge", "scribble"):  # ink lies along the outline: near to pixels of both sides
        near = (F.max_pool2d(masks, 13, 1, 6) > 0.5) & (F.max_pool2d(1 - masks, 13, 1, 6) > 0.5)
        assert grey[near].sum() > 0.98 * grey.sum()
    else:
        assert all(g[m].min() > g[~m & (F.max_pool2d(m[None].float(), 5, 1, 2)[0] < 0.5)].max() for g, m in zip(grey, inside, strict=True))
