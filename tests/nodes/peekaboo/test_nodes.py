"""The Peekaboo nodes, as a user connects them, on the trained playground; and what they say of inputs that cannot be."""

import comfy.sample
import pytest
import torch
from freesteer.core.boxes.boxes import BoxError
from freesteer.host.models.prompt_tokens import PhraseError
from freesteer.host.sampling import by_label
from freesteer.nodes.common.checks import InputError
from freesteer.playground.image import models
from freesteer.playground.referee import referee
from freesteer.playground.world.motion import boxes
from freesteer.recipes.peekaboo.patch import PeekabooError

from ..conftest import run

NAN = float("nan")
BOX = "0.55 0.1 0.95 0.5"
TEXT = "a red star on grass"


@pytest.fixture(scope="module")
def playground():
    return models.load()


def track(phrase="red star", keyframes=BOX, **inputs):
    return run("FreeSteerBoxTrack", phrase=phrase, keyframes=keyframes, **inputs)[0]


def peekaboo(playground, tracks, text=TEXT, **inputs):
    return run("FreeSteerPeekaboo", model=playground[0], clip=playground[1], tracks=tracks, text=text, **inputs)


def draw(playground, model, positive, seed=0, steps=12, latent=None, denoise=1.0):
    """What the referee sees, and the latent."""
    _, clip, vae = playground
    latent = torch.zeros(1, 4, 16, 16) if latent is None else latent
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    noise = comfy.sample.prepare_noise(latent, seed)
    with torch.inference_mode():
        drawn = comfy.sample.sample(
            model, noise, steps, 4.0, "euler", "normal", positive, negative, latent, denoise=denoise, disable_pbar=True, seed=seed
        )
        return referee.look(referee.load(), vae.decode(drawn).movedim(-1, 1))[0], drawn


def inside(seen, colour, box) -> float:
    """The share of the largest thing of a colour that lies in a box of shares."""
    thing = next((o for o in seen.objects if o.colour == colour), None)
    if thing is None:
        return 0.0
    left, top, right, bottom = (round(128 * edge) for edge in box)
    return thing.mask[top:bottom, left:right].sum() / thing.mask.sum()


@pytest.mark.slow
def test_a_thing_is_where_its_box_is(playground):
    model, positive = peekaboo(playground, track())
    shares = [inside(draw(playground, model, positive, seed)[0], "red", (0.5, 0.05, 1, 0.55)) for seed in range(3)]
    assert min(shares) > 0.8, shares


def test_two_things_each_in_its_box(playground):
    tracks = track("blue ball", "0.05 0.5 0.45 0.95", tracks=track())
    model, positive = peekaboo(playground, tracks, "a red star and a blue ball on grass")
    seen, _ = draw(playground, model, positive, 1)
    assert inside(seen, "red", (0.5, 0.05, 1, 0.55)) > 0.8
    assert inside(seen, "blue", (0, 0.45, 0.5, 1)) > 0.8


def test_a_mask_will_do_in_place_of_a_box(playground):
    mask = torch.zeros(1, 64, 64)
    mask[0, 32:60, 2:30] = 1
    (tracks,) = run("FreeSteerMaskTrack", phrase="red star", masks=mask)
    model, positive = peekaboo(playground, tracks)
    seen, _ = draw(playground, model, positive, 2)
    assert inside(seen, "red", (0, 0.45, 0.5, 1)) > 0.8


def test_at_strength_0_and_afterwards_the_model_is_as_it_was(playground):
    model, positive = peekaboo(playground, track(), strength=0.0)
    plain = draw(playground, playground[0], positive, steps=3)[1]
    assert torch.equal(draw(playground, model, positive, steps=3)[1], plain)
    draw(playground, *peekaboo(playground, track()), steps=3)
    assert torch.equal(draw(playground, playground[0], positive, steps=3)[1], plain)


def test_percents_of_img2img_are_of_what_its_denoise_leaves(playground):
    model, positive = peekaboo(playground, track(), end_percent=0.4)
    _, picture = draw(playground, playground[0], positive, steps=4)
    held, plain = (draw(playground, each, positive, steps=4, latent=picture, denoise=0.5)[1] for each in (model, playground[0]))
    assert not torch.equal(held, plain)


def test_places_are_looked_up_once_a_run_and_not_kept(playground, monkeypatch):
    looked_up, tables = [], by_label.tables
    monkeypatch.setattr(by_label, "tables", lambda *arguments: looked_up.append(1) or tables(*arguments))
    model, positive = peekaboo(playground, track(), end_percent=1.0)
    counts = []
    for steps in (1, 3):
        looked_up.clear()
        draw(playground, model, positive, steps=steps)
        counts.append(len(looked_up))
    assert counts[0] == counts[1] > 0  # the second run found nothing left of the first


def test_the_track_is_drawn_as_it_goes():
    tracks = track(keyframes="0%: 0 0 0.25 0.25\n100%: 0.75 0.75 1 1")
    (frames,) = run("FreeSteerTrackPreview", tracks=tracks, frames=5)
    assert frames.shape == (5, 256, 256, 3)
    painted = boxes(((frames - 0.5).abs().amax(-1) > 0.1).float())
    assert painted[0, 0] <= 2 and painted[4, 2] >= 254
    assert painted[:, 0].tolist() == sorted(painted[:, 0].tolist())
    (over,) = run("FreeSteerTrackPreview", tracks=tracks, image=torch.rand(3, 64, 96, 3))
    assert over.shape == (3, 64, 96, 3)


def test_the_hosts_boxes_are_taken():
    given = [{"x": 0, "y": 0, "width": 64, "height": 64}, {"x": 64, "y": 64, "width": 64, "height": 64}]
    for bboxes, keyframes in ((given, 2), (given[0], 1)):
        (placed,) = track(bboxes=bboxes, width=128, height=128)
        assert len(placed.where.track.times) == keyframes


def test_the_hosts_boxes_may_be_a_list_for_each_frame():
    """As detectors give them, with none where they see nothing."""
    box = {"x": 0, "y": 0, "width": 64, "height": 64}
    (placed,) = track(bboxes=[[box], [], [{**box, "x": 64}]], width=128, height=128)
    assert placed.where.track.times.tolist() == [0, 1]
    (placed,) = track(bboxes=[[], [box], [box]], width=128, height=128)
    assert placed.where.track.times.tolist() == [0.5, 1]


def test_a_mask_that_is_painted_faintly_is_one():
    faint = torch.zeros(1, 16, 16)
    faint[:, :8] = 0.3
    (tracks,) = run("FreeSteerMaskTrack", phrase="red ball", masks=faint)
    assert tracks[0].where.coverage(1, (4, 4))[0, :, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({"phrase": "  "}, InputError, "phrase is empty"),
        ({"keyframes": ""}, BoxError, "no box"),
        ({"keyframes": "0.5 0.5 0.2 0.2"}, BoxError, "without an area"),
        ({"keyframes": "5 5 9 9"}, BoxError, "shares of the picture"),
        ({"bboxes": []}, BoxError, "draw at least one"),
        ({"bboxes": [[], []]}, BoxError, "draw at least one"),
        ({"bboxes": "boxes"}, InputError, "bboxes has to be boxes"),
        ({"bboxes": [[{"x": 0, "y": 0, "width": 9, "height": 9}] * 2]}, InputError, "2 boxes in frame 1, and a track is of one object"),
        ({"bboxes": ["a box"]}, InputError, "bboxes has to be boxes"),
        ({"bboxes": [{"x": 0, "y": 0}]}, InputError, "bboxes has to be boxes"),
        ({"bboxes": [{"x": 0, "y": 0, "width": 900, "height": 9}]}, BoxError, "not inside of the picture"),
        ({"bboxes": [{"x": 0, "y": 0, "width": 9, "height": 9}], "width": 0}, InputError, "width is 0"),
    ],
)
def test_a_track_that_cannot_be_is_refused(inputs, error, says):
    with pytest.raises(error, match=says):
        track(**inputs)


def test_too_many_things_are_refused():
    tracks = None
    for _ in range(8):
        tracks = track(tracks=tracks)
    with pytest.raises(InputError, match="8 objects already"):
        track(tracks=tracks)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (torch.zeros(1, 8, 8), "masks is empty"),
        (torch.full((1, 8, 8), NAN), "of numbers"),
        (torch.ones(1, 1, 8, 8), "has to be a MASK"),
        (torch.ones(0, 8, 8), "has to be a MASK"),
        (None, "has to be a MASK"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(masks, says):
    with pytest.raises(InputError, match=says):
        run("FreeSteerMaskTrack", phrase="red star", masks=masks)


@pytest.mark.parametrize(
    ("inputs", "error", "says"),
    [
        ({"text": "a blue star on grass"}, PhraseError, "The prompt does not say 'red star'"),
        ({"text": ""}, PhraseError, "does not say 'red star'"),
        ({"tracks": ()}, InputError, "tracks is empty"),
        ({"tracks": None}, InputError, "tracks is empty"),
        ({"clip": None}, InputError, "clip is missing"),
        ({"start_percent": 0.5, "end_percent": 0.2}, InputError, "Swap them"),
        ({"start_percent": -1.0}, InputError, "start_percent is -1"),
        ({"end_percent": NAN}, InputError, "end_percent is nan"),
        ({"strength": 1.5}, InputError, "strength is 1.5: choose 0 to 1"),
        ({"special_tokens": "nobody"}, InputError, "special_tokens is 'nobody'"),
        ({"frames": "sideways"}, InputError, "frames is 'sideways'"),
    ],
)
def test_what_cannot_be_is_said(playground, inputs, error, says):
    given = {"model": playground[0], "clip": playground[1], "tracks": track(), "text": TEXT}
    with pytest.raises(error, match=says):
        run("FreeSteerPeekaboo", **{**given, **inputs})


def test_a_second_one_on_the_same_model_is_refused(playground):
    model, _ = peekaboo(playground, track())
    with pytest.raises(PeekabooError, match="a Peekaboo already"):
        peekaboo((model, *playground[1:]), track())
