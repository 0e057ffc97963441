import pytest
import torch
from freesteer.core.freecontrol import line_art, tints
from freesteer.playground.world import textures


def square(ring: bool = False) -> torch.Tensor:
    """(1, 96, 96, 3): a white outline on black; with `ring`, one inside of another."""
    grey = torch.zeros(96, 96)
    for low, high in ((20, 76), (36, 60)) if ring else ((20, 76),):
        grey[low:high, low:high] = 1
        grey[low + 2 : high - 2, low + 2 : high - 2] = 0
    return grey[None, :, :, None].expand(-1, -1, -1, 3).contiguous()


@pytest.mark.parametrize("dark_on_light", [False, True])
def test_an_outline_is_filled_whichever_way_it_is_drawn(dark_on_light):
    drawn = 1 - square() if dark_on_light else square()
    filled = line_art.fill(drawn).mean(-1)[0]
    inside = torch.zeros(96, 96, dtype=torch.bool)
    inside[20:76, 20:76] = True
    agreement = ((filled > 0.5) == inside).float().mean()
    assert agreement > 0.98


def test_what_is_enclosed_twice_is_a_hole():
    filled = line_art.fill(square(ring=True)).mean(-1)[0]
    assert filled[28, 48] > 0.5 and filled[48, 48] < 0.5 and filled[5, 5] < 0.5


def test_a_gap_of_a_pixel_is_closed():
    drawn = square()
    drawn[0, 20:22, 40] = 0
    assert line_art.fill(drawn).mean(-1)[0, 48, 48] > 0.5


def test_a_large_drawing_is_made_smaller_before_it_is_filled(monkeypatch):
    looked_at = []
    fill = line_art._fill
    monkeypatch.setattr(line_art, "_fill", lambda grey: looked_at.append(grey.shape) or fill(grey))
    drawn = torch.zeros(1, 2400, 1800, 3)
    drawn[0, 600:1800, 400:1400] = 1
    drawn[0, 630:1770, 430:1370] = 0
    filled = line_art.fill(drawn).mean(-1)[0]
    assert looked_at == [(512, 384)]
    assert filled.shape == (2400, 1800)
    assert filled[1200, 900] > 0.5 and filled[200, 200] < 0.5


def test_strokes_that_enclose_nothing_stay():
    drawn = torch.zeros(1, 96, 96, 3)
    drawn[0, 40:43, 10:80] = 1
    filled = line_art.fill(drawn).mean(-1)[0]
    assert filled[41, 40] > 0.5 and filled[60, 40] < 0.5


@pytest.mark.parametrize("kind", ["filled shape", "photo", "noise", "empty"])
def test_what_is_no_line_drawing_stays_untouched(kind):
    picture = torch.full((1, 96, 96, 3), 0.2)
    if kind == "filled shape":
        picture[0, 20:70, 20:70] = 0.9
    elif kind == "noise":
        picture = torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(0))
    elif kind == "photo":
        picture = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)), 96).movedim(1, -1)
    assert torch.equal(line_art.fill(picture), picture)


@pytest.mark.parametrize("ground", [g for g in textures.BACKGROUNDS if g != "night"])  # stars cannot be told from strokes
def test_a_textured_ground_is_no_line_drawing(ground):
    index = textures.BACKGROUNDS.index(ground)
    picture = textures.textures()[index : index + 1, :, :128, :128].movedim(1, -1)
    assert torch.equal(line_art.fill(picture), picture)


def test_tints_begin_with_the_picture_and_keep_its_edges():
    picture = square()
    shown = tints.tinted(picture, 5)
    assert torch.equal(shown[0], picture)
    contrast = (shown[:, 0, 20, 48] - shown[:, 0, 5, 5]).norm(dim=-1)
    assert (contrast[1:] > tints.LEAST_CONTRAST).all()
    assert torch.equal(tints.tinted(picture, 5), shown)


def test_a_flat_picture_can_be_tinted():
    assert torch.isfinite(tints.tinted(torch.full((1, 8, 8, 3), 0.5), 3)).all()
