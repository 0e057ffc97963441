import pytest
import torch
from freesteer.core.boxes import boxes
from freesteer.core.boxes.boxes import BoxError

BOX = "0.1 0.2 0.5 0.6"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (f"0%: {BOX}\n100%: {BOX}", [0, 1]),
        (f"0: {BOX}\n0.25: {BOX}\n1: {BOX}", [0, 0.25, 1]),
        (f"{BOX}\n{BOX}\n{BOX}", [0, 0.5, 1]),
        (f"# a comment\n\n  50 % : {BOX}  ", [0.5]),
        ("10%: 0.1, 0.2; 0.5,0.6", [0.1]),
    ],
)
def test_keyframes_are_read_as_people_write_them(text, times):
    made = boxes.parse(text)
    torch.testing.assert_close(made.times, torch.tensor(times, dtype=torch.float))
    torch.testing.assert_close(made.boxes, torch.tensor([[0.1, 0.2, 0.5, 0.6]]).expand(len(times), 4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no box"),
        ("# nothing", "no box"),
        ("red ball", "'red ball' is no keyframe"),
        ("0%: 0.1 0.2 0.5", "no keyframe"),
        ("0%: 0.1 0.2 0.5 0.6 0.7", "no keyframe"),
        ("0%: 0.1 0.2 0.5 x", "no keyframe"),
        (f"then: {BOX}", "no keyframe"),
        (f"1-2: {BOX}", "times go from 0 to 1"),
        (f"120%: {BOX}", "Keyframe 1 is at 1.2: times go from 0 to 1"),
        (f"-1: {BOX}", "times go from 0 to 1"),
        (f"0%: {BOX}\n{BOX}", "Some lines of the track have a time"),
        (f"100%: {BOX}\n0%: {BOX}", "Keyframe 2 is at 0, not after the one before it at 1"),
        (f"0%: {BOX}\n0%: {BOX}", "put them in order"),
        ("0%: 0.5 0.2 0.5 0.6", "without an area: left 0.5, right 0.5"),
        ("0%: 0.6 0.2 0.1 0.6", "without an area"),
        ("0%: -0.1 0.2 0.5 0.6", "shares of the picture, 0 to 1"),
        ("0%: 10 20 50 60", "shares of the picture, 0 to 1"),
        ("0%: nan 0.2 0.5 0.6", "shares of the picture, 0 to 1"),
        ("0%: 0.1 0.2 inf 0.6", "shares of the picture, 0 to 1"),
    ],
)
def test_what_is_wrong_with_a_keyframe_is_said(text, says):
    with pytest.raises(BoxError, match=says):
        boxes.parse(text)


def test_a_box_of_another_picture_is_told_by_its_pixels():
    with pytest.raises(BoxError, match="600, 20 of 100 x 50 pixels, which is not inside of the picture's 512 x 512: set width and height"):
        boxes.from_pixels([{"x": 600, "y": 20, "width": 100, "height": 50}], 512, 512, [0.0])


def test_the_hosts_boxes_are_keyframes():
    given = [{"x": 0, "y": 64, "width": 128, "height": 64}, {"x": 128, "y": 0, "width": 128, "height": 128}]
    made = boxes.from_pixels(given, 256, 128, [0.0, 0.5])
    assert made.times.tolist() == [0, 0.5]
    assert made.boxes.tolist() == [[0, 0.5, 0.5, 1], [0.5, 0, 1, 1]]
    with pytest.raises(BoxError, match="draw at least one"):
        boxes.from_pixels([], 256, 128, [])
    with pytest.raises(BoxError, match="not inside of the picture"):
        boxes.from_pixels([{"x": 200, "y": 0, "width": 128, "height": 64}], 256, 128, [0.0])
