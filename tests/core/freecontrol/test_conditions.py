import time

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


def outline(low: int, high: int, width: int = 2, light: float = 1.0, ground: float = 0.0, side: int = 96) -> torch.Tensor:
    """(1, side, side, 3): the outline of a square from pixel `low` to `high`, `width` pixels wide."""
    grey = torch.full((side, side), ground)
    grey[low:high, low:high] = light
    grey[low + width : high - width, low + width : high - width] = ground
    return grey[None, :, :, None].expand(-1, -1, -1, 3).contiguous()


def is_filled(picture: torch.Tensor) -> bool:
    return not torch.equal(line_art.fill(picture), picture)


def test_a_filled_drawing_has_two_greys_and_is_the_square_to_the_pixel_but_for_its_corners():
    filled = line_art.fill(outline(20, 76))[0, :, :, 0]
    assert filled.unique().tolist() == pytest.approx([0.15, 0.9])
    wanted = torch.zeros(96, 96, dtype=torch.bool)
    wanted[20:76, 20:76] = True
    wrong = (filled > 0.5) != wanted
    assert wrong.sum() <= 12  # wearing rounds each corner
    assert not wrong[22:74].any() and not wrong[:, 22:74].any()


def test_what_is_enclosed_three_times_is_drawn_again():
    drawn = torch.maximum(torch.maximum(outline(6, 90), outline(22, 74)), outline(38, 58))
    filled = line_art.fill(drawn)[0, 48, :, 0] > 0.5
    assert [bool(filled[x]) for x in (2, 14, 30, 48, 66, 82, 93)] == [False, True, False, True, False, True, False]


def test_two_shapes_side_by_side_are_both_filled():
    drawn = torch.cat([outline(4, 44)[:, :, :48], outline(4, 44)[:, :, :48]], 2)
    filled = line_art.fill(drawn)[0, :, :, 0] > 0.5
    assert filled[24, 24] and filled[24, 72] and not filled[24, 47] and not filled[70, 24]


@pytest.mark.parametrize("turn", [lambda p: p.flip(1), lambda p: p.flip(2), lambda p: p.transpose(1, 2)], ids=["down", "across", "turned"])
def test_a_drawing_is_filled_alike_whichever_way_it_lies(turn):
    drawn = outline(13, 72)
    drawn[0, 13:15, 30:34] = 0  # as wide as a gap may be
    drawn[0, 40:44, 13:15] = 0
    drawn[0, 80:82, 7:60] = 1
    assert torch.equal(line_art.fill(turn(drawn)), turn(line_art.fill(drawn)))
    assert is_filled(drawn)


def corner(low: int, high: int, width: int = 2, side: int = 96) -> torch.Tensor:
    """(1, side, side, 3): the outline of a square without its upper right quarter."""
    middle = (low + high) // 2

    def solid(rim: int) -> torch.Tensor:
        grey = torch.zeros(side, side)
        grey[low + rim : high - rim, low + rim : high - rim] = 1
        grey[low : middle + rim, middle - rim : high] = 0
        return grey

    return (solid(0) - solid(width))[None, :, :, None].expand(-1, -1, -1, 3).contiguous()


def is_closed(drawn: torch.Tensor) -> bool:
    """Whether a `corner` is filled as it runs. One that counts as open is filled to its convex shape."""
    filled = line_art.fill(drawn)[0, :, :, 0] > 0.5
    half = len(filled) // 2
    assert filled[half + 2, half - 2]
    return not bool(filled[half - 2, half + 1])


@pytest.mark.parametrize(("gap", "closed"), [(4, True), (5, False)])  # of 96: twice GAP of the side, rounded
def test_gaps_are_closed_up_to_their_limit(gap, closed):
    drawn = corner(20, 76)
    drawn[0, 74:76, 40 : 40 + gap] = 0
    for lying in (drawn, drawn.transpose(1, 2).flip(1, 2)):
        assert is_closed(lying) == closed


def test_strokes_that_enclose_nothing_are_filled_to_their_convex_shape():
    cross = torch.zeros(1, 96, 96, 3)
    for i in range(40):
        cross[0, 20 + i, 10 + i : 12 + i] = cross[0, 20 + i, 49 - i : 51 - i] = 1
    cross[0, 80:82, 5:90] = 1
    filled = line_art.fill(cross)[0, :, :, 0] > 0.5
    assert filled[40, 15] and filled[40, 45] and filled[25, 30] and filled[55, 30] and not filled[40, 60]
    assert not filled[70].any(), "a straight line is no shape"
    both = line_art.fill(torch.maximum(cross, outline(62, 90).flip(1)))[0, :, :, 0] > 0.5
    assert both[40, 15] and both[20, 75] and not both[40, 60], "beside an outline too"


def test_a_straight_line_stays_one():
    line = torch.zeros(1, 96, 96, 3)
    line[0, 40:42, 10:80] = 1
    assert torch.equal(line_art.fill(line)[..., 0] > 0.5, line[..., 0] > 0.5)


def test_a_drawing_of_many_dots_is_filled_in_a_moment():
    dots = torch.zeros(1, 384, 384, 3)
    dots[0, ::20, ::20] = dots[0, 1::20, ::20] = dots[0, ::20, 1::20] = 1
    start = time.perf_counter()
    line_art.fill(dots)
    assert time.perf_counter() - start < 3


def test_a_shape_that_reaches_the_rim_is_filled_to_it():
    drawn = outline(20, 76).roll(-20, 1)  # its upper line is the picture's first
    filled = line_art.fill(drawn)[0, :, :, 0] > 0.5
    assert filled[1, 30:66].all() and filled[30, 48] and not filled[80, 48] and not filled[30, 10]


@pytest.mark.parametrize(("light", "filled"), [(0.45, True), (0.55, True), (0.39, False)])
def test_lines_have_to_stand_out_from_their_ground(light, filled):
    assert is_filled(outline(20, 76, light=light, ground=0.1)) == filled


@pytest.mark.parametrize(("width", "filled"), [(2, True), (6, True), (8, False)])  # a stroke may be 7 of 96 pixels wide
def test_strokes_have_to_be_thin(width, filled):
    assert is_filled(outline(8, 88, width)) == filled


@pytest.mark.parametrize(("lines", "filled"), [(8, True), (14, False)])  # 17 and 29 of 100 pixels
def test_most_of_a_line_drawing_is_ground(lines, filled):
    drawn = outline(10, 86)
    drawn[0, 0 : 6 * lines : 6] = 1
    share = (drawn[0, :, :, 0] > 0.5).float().mean()
    assert (share < 1 - line_art.GROUND_SHARE) == filled == is_filled(drawn)


def test_faint_strokes_count_from_a_third_of_the_strongest():
    for faint, closed in ((0.40, True), (0.30, False)):
        drawn = corner(20, 76)
        drawn[0, 74:76, 35:60] = faint
        assert is_closed(drawn) == closed


@pytest.mark.parametrize(("side", "gap", "closed"), [(32, 2, True), (32, 3, False), (16, 2, True)])
def test_the_smallest_pictures_have_gaps_of_two_pixels_closed(side, gap, closed):
    drawn = corner(2, side - 2, 1, side)
    drawn[0, side - 3, side // 2 : side // 2 + gap] = 0
    assert is_closed(drawn) == closed


@pytest.mark.parametrize(("width", "filled"), [(2, True), (3, False)])
def test_the_smallest_pictures_have_strokes_of_two_pixels(width, filled):
    assert is_filled(outline(13, 25, width, side=32)) == filled


def test_each_picture_of_a_batch_is_looked_at_on_its_own():
    photo = torch.full((1, 96, 96, 3), 0.2)
    filled = line_art.fill(torch.cat([outline(20, 76), photo, outline(30, 60)]))
    assert torch.equal(filled[1:2], photo)
    assert torch.equal(filled[:1], line_art.fill(outline(20, 76))) and torch.equal(filled[2:], line_art.fill(outline(30, 60)))


def test_a_stroke_beside_a_filled_shape_is_left_out_and_one_within_it_belongs_to_it():
    drawn = outline(30, 90)
    drawn[0, 10:12, 10:80] = 1  # outside
    drawn[0, 58:60, 45:75] = 1  # inside, touching nothing
    filled = line_art.fill(drawn)[0, :, :, 0] > 0.5
    assert not filled[:28].any() and filled[34:86, 34:86].all()


def test_colours_count_by_their_mean():
    coloured = outline(20, 76)
    coloured[..., 0] = coloured[..., 1] = 0  # blue on black: a third as bright
    assert torch.equal(line_art.fill(coloured), line_art.fill(outline(20, 76, light=1 / 3)))
    assert is_filled(coloured)


@pytest.mark.parametrize(("size", "small"), [((384, 500), (384, 500)), ((385, 770), (384, 768)), ((700, 500), (538, 384))])
def test_the_shorter_side_that_is_looked_at_has_384_pixels(monkeypatch, size, small):
    looked_at = []
    monkeypatch.setattr(line_art, "_fill", lambda grey: looked_at.append(grey.shape))
    line_art.fill(torch.zeros(2, *size, 3))
    assert looked_at == [small, small]


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


def test_brightness_runs_from_one_colour_to_the_other():
    grey = torch.tensor([0.2, 0.5, 0.6]).reshape(1, 1, 3, 1).expand(2, -1, -1, 3)
    shown = tints.tinted(torch.cat([grey[:1], 0.5 * grey[1:]]), 4)
    assert shown.shape == (4, 2, 1, 3, 3)
    dark, middle, light = shown[1:, 0, 0].unbind(1)
    torch.testing.assert_close(middle, dark + 0.75 * (light - dark))  # .2 to .6 is stretched to 0 to 1
    torch.testing.assert_close(shown[1:, 1], shown[1:, 0])  # each picture to its own range
    assert (shown >= 0).all() and (shown <= 1).all()
    assert len({tuple(colour.tolist()) for colour in dark}) == 3
    assert not torch.equal(tints.tinted(grey, 4, seed=1)[1:], shown[1:])


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_there_are_as_many_tints_as_are_asked_for(count):
    assert len(tints.tinted(square(), count)) == count


def test_a_flat_picture_can_be_tinted():
    assert torch.isfinite(tints.tinted(torch.full((1, 8, 8, 3), 0.5), 3)).all()


def test_components_that_follow_colour_tell_nothing_of_layout():
    """Of three over a picture: one is the same in all colourings, one changes its sign, one does half of each."""
    place = torch.randn(1, 64, 1, generator=torch.Generator().manual_seed(0))
    other = torch.randn(1, 64, 1, generator=torch.Generator().manual_seed(1))
    signs = [1.0, -1.0, 1.0, -1.0]
    coordinates = torch.stack([torch.cat([place, sign * place, place + sign * other], -1) for sign in signs]) + 7.0
    found = tints.signal_to_noise(coordinates)
    assert found.shape == (1, 3)
    plainest = tints.PLAINEST / (1 - tints.PLAINEST)
    assert found[0, :2].tolist() == pytest.approx([plainest, 0], rel=1e-4)
    ratio = float(place.var() / other.var())
    assert 0.5 * ratio < float(found[0, 2]) < ratio


def test_chance_alone_is_no_layout():
    coordinates = torch.randn(6, 2, 4096, 5, generator=torch.Generator().manual_seed(0))
    assert tints.signal_to_noise(coordinates).max() < 0.02
    assert tints.signal_to_noise(torch.zeros(3, 1, 9, 2)).abs().max() == 0
