import math
import random

import pytest
import torch
from freesteer.playground.world import captions, motion, motion_captions, world
from freesteer.playground.world.motion import DRIFTS, MOTIONS, Clips
from torch import Tensor


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clips(n: int = 48, seed: int = 0, **options) -> Clips:
    return motion.sample_clips(n, torch.Generator().manual_seed(seed), **options)


def per_clip(drawn: Clips, values: Tensor) -> Tensor:
    """(B * F, slots) as (B, objects, F)."""
    return values.unflatten(0, (len(drawn), drawn.frames))[..., : motion.OBJECTS].movedim(2, 1)


def of(drawn: Clips, name: str) -> tuple[Tensor, Tensor]:
    """Clip and object of each object that is there and moves so."""
    there = torch.arange(motion.OBJECTS) < drawn.count[:, None]
    return ((drawn.motion == MOTIONS.index(name)) & there).nonzero(as_tuple=True)  # pyright: ignore[reportReturnType]


def test_a_clip_has_the_promised_form_and_a_seed_draws_it_again():
    drawn = clips(6)
    pictures, masks = motion.render_clips(drawn)
    assert pictures.shape == (6, 13, 3, 128, 128) and masks.shape == (6, 13, 2, 128, 128)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert torch.equal(motion.render_clips(clips(6))[0], pictures)
    assert motion.render_clips(clips(2, frames=5))[0].shape == (2, 5, 3, 128, 128)


def test_a_frame_is_a_scene_of_the_drawn_world():
    drawn = clips(3)
    pictures, masks = motion.render_clips(drawn)
    picture, mask = world.render(drawn.scenes[17:18])  # frame 4 of clip 1
    torch.testing.assert_close(pictures[1, 4], picture[0])
    torch.testing.assert_close(masks[1, 4], mask[0, :2])


@pytest.mark.parametrize("name", ["left", "right", "up", "down"])
def test_what_goes_somewhere_goes_there_evenly_as_its_mask_shows(name):
    drawn = clips()
    clip, slot = of(drawn, name)
    assert len(clip) > 2
    x, y = (per_clip(drawn, v)[clip, slot] for v in (drawn.scenes.x, drawn.scenes.y))
    dx, dy = motion.WAYS[name]
    steps = torch.stack([x, y], -1).diff(dim=1)
    assert (steps @ torch.tensor([float(dx), float(dy)]) > 0).all() and (steps - steps[:, :1]).abs().max() < 1e-3
    masks = motion.render_clips(drawn)[1][clip[:8], :, slot[:8]]
    along = torch.arange(128) + 0.5
    centre = torch.stack([(masks.sum(-2) @ along), (masks.sum(-1) @ along)], -1) / masks.sum((-1, -2))[..., None]
    moved = centre[:, -1] - centre[:, 0]
    torch.testing.assert_close(moved, torch.stack([x, y], -1)[:8, -1] - torch.stack([x, y], -1)[:8, 0], atol=1.5, rtol=0)


def test_a_circle_comes_back_and_keeps_its_distance_from_the_middle():
    drawn = clips(400)
    clip, slot = of(drawn, "circle")
    way = torch.stack([per_clip(drawn, v)[clip, slot] for v in (drawn.scenes.x, drawn.scenes.y)], -1)
    torch.testing.assert_close(way[:, 0], way[:, -1], atol=1e-3, rtol=0)
    away = (way[:, :-1] - way[:, :-1].mean(1, keepdim=True)).norm(dim=-1)
    torch.testing.assert_close(away, away[:, :1].expand_as(away), atol=1e-2, rtol=0)
    assert away.min() > motion.ORBIT[0] - 0.1


def test_what_grows_shrinks_spins_or_stands_does_just_that():
    drawn = clips(400)
    for name in ("grow", "shrink", "spin", "still"):
        clip, slot = of(drawn, name)
        x, y, radius, angle = (per_clip(drawn, getattr(drawn.scenes, v))[clip, slot] for v in ("x", "y", "radius", "angle"))
        assert len(clip) > 10 and x.std(1).max() < 1e-3 and y.std(1).max() < 1e-3
        ratio = radius[:, -1] / radius[:, 0]
        low, high = {"grow": motion.GROWTH, "shrink": (1 / motion.GROWTH[1], 1 / motion.GROWTH[0])}.get(name, (1, 1))
        assert ratio.min() > low - 1e-4 and ratio.max() < high + 1e-4
        turned = (angle[:, -1] - angle[:, 0]).abs() / (2 * math.pi)
        if name == "spin":
            assert turned.min() >= 0.499 and turned.max() <= 1.001
            shapes = per_clip(drawn, drawn.scenes.shape)[clip, slot]
            assert not {world.SHAPES[int(s)] for s in shapes.unique()} & set(motion.ROUND)
        else:
            assert turned.max() < 1e-6


@pytest.mark.parametrize("name", DRIFTS)
def test_the_ground_drifts_as_it_is_said(name):
    drawn = clips()
    chosen = (drawn.drift == DRIFTS.index(name)).nonzero()[:3, 0]
    assert len(chosen) == 3
    pairs = drawn.scenes[torch.cat([chosen * drawn.frames, chosen * drawn.frames + 1])]
    pictures, masks = world.render(pairs)
    free = torch.nn.functional.max_pool2d(masks.sum(1, keepdim=True), 25, 1, 12) == 0  # neither object nor shadow
    dx, dy = motion.WAYS.get(name, (0, 0))
    inner = slice(motion.SPEED, -motion.SPEED)
    for i in range(3):
        off = []
        for speed in range(1, motion.SPEED + 1):
            after, after_free = (t[i + 3].roll((-dy * speed, -dx * speed), (1, 2)) for t in (pictures, free))
            both = (free[i] & after_free)[0, inner, inner]
            off.append(float((pictures[i] - after).abs().amax(0)[inner, inner][both].max()))
        assert min(off) < 1e-5


def test_objects_stay_in_the_picture_and_clear_of_each_other():
    drawn = clips(64)
    _, masks = motion.render_clips(drawn)
    there = torch.arange(motion.OBJECTS) < drawn.count[:, None]
    areas = masks.sum((-1, -2)).movedim(2, 1)
    assert (areas[there] > 60).all() and (areas[~there] == 0).all()
    assert (masks.sum(2) <= 1 + 1e-5).all()
    drawn = clips(600)
    x, y, radius = (per_clip(drawn, getattr(drawn.scenes, v)) for v in ("x", "y", "radius"))
    gap = torch.hypot(x[:, 0] - x[:, 1], y[:, 0] - y[:, 1]) - radius.sum(1)
    clear = (gap > 0).all(-1)[drawn.count == 2]
    assert clear.float().mean() > 0.95


def test_boxes_are_those_of_the_masks():
    drawn = clips(8, counts=(0, 1))
    masks = motion.render_clips(drawn)[1]
    found = motion.boxes(masks)
    assert found.shape == (8, 13, 2, 4)
    for mask, box in zip(masks.flatten(0, 2), found.flatten(0, 2).tolist(), strict=True):
        y, x = (mask > 0.5).nonzero(as_tuple=True)
        assert box == [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
    assert motion.boxes(torch.zeros(3, 5, 7)).tolist() == [[0, 0, 0, 0]] * 3
    one = torch.zeros(4, 6)
    one[3, 5] = 1
    assert motion.boxes(one).tolist() == [5, 3, 6, 4]


def test_captions_say_what_moves_how_in_several_ways():
    drawn, rng = clips(400), random.Random(0)
    phrasings: dict[str, set[str]] = {name: set() for name in MOTIONS}
    for i in range(len(drawn)):
        said = motion_captions.caption(drawn, i, rng)
        assert set(said.words) <= set(motion_captions.CLIP_VOCABULARY)
        spoken = [(w, g) for w, g in zip(said.words, said.groups, strict=True)]
        for slot in range(int(drawn.count[i])):
            name = [w for w, g in spoken if g == slot + 1]
            shape = world.SHAPES[int(drawn.scenes.shape[i * drawn.frames, slot])]
            assert shape in name or captions.ANY_SHAPE in name
            verb = " ".join(w for w, g in spoken if g == captions.MOTION + slot + 1)
            assert verb in motion_captions.VERBS[MOTIONS[int(drawn.motion[i, slot])]]
            phrasings[MOTIONS[int(drawn.motion[i, slot])]].add(verb)
        drift = " ".join(w for w, g in spoken if g == captions.MOTION + captions.GROUND)
        assert drift in motion_captions.GROUNDS[DRIFTS[int(drawn.drift[i])]]
    assert all(len(found) >= 3 for found in phrasings.values())
    assert len({verb for verbs in motion_captions.VERBS.values() for verb in verbs}) == 4 * len(MOTIONS)  # none means two motions


def test_the_words_of_the_picture_model_stay_as_they_are():
    assert motion_captions.CLIP_VOCABULARY[: len(captions.VOCABULARY)] == captions.VOCABULARY
