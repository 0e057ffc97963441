"""The demo's sheet: a labelled column for each kind of picture, in an order that tells the story."""

import numpy as np
from freesteer.tools.demo import CELL, GAP, HEAD, clip_length, columns, contact_sheet, sort_columns
from PIL import Image


def colour(name: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, name)


def cell(sheet: Image.Image, column: int, row: int) -> tuple[int, ...]:
    """The colour in the middle of a cell."""
    at = (GAP + column * (CELL + GAP) + CELL // 2, HEAD + row * (CELL + GAP) + CELL // 2)
    return tuple(np.asarray(sheet)[at[1], at[0]])


def test_a_column_is_named_after_the_last_part_of_the_prefix() -> None:
    workflow = {
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "freesteer/steered", "images": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "condition", "images": ["2", 0]}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    assert columns(workflow) == {"3": "steered", "4": "condition"}


def test_clips_are_as_long_as_the_empty_one() -> None:
    empty = {"class_type": "FreeSteerEmptyClip", "inputs": {"model": ["1", 0], "width": 128, "height": 128, "length": 13, "batch_size": 2}}
    picture = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 2}}
    assert clip_length({"1": picture, "2": empty}) == 13 and clip_length({"1": picture}) == 1


def test_the_columns_tell_the_story_whatever_order_the_nodes_ran_in() -> None:
    assert sort_columns(["steered", "basis", "unsteered", "condition"]) == ["condition", "unsteered", "steered", "basis"]


def test_every_picture_is_in_its_column_and_row() -> None:
    sheet = contact_sheet({"steered": [colour("blue"), colour("lime")], "condition": [colour("red"), colour("black")]})
    assert [cell(sheet, 0, 0), cell(sheet, 1, 0)] == [(255, 0, 0), (0, 0, 255)]
    assert [cell(sheet, 0, 1), cell(sheet, 1, 1)] == [(0, 0, 0), (0, 255, 0)]


def test_a_single_condition_stands_beside_every_row() -> None:
    sheet = contact_sheet({"condition": [colour("red")], "steered": [colour("blue")] * 3})
    assert [cell(sheet, 0, row) for row in range(3)] == [(255, 0, 0)] * 3


def test_rows_beyond_the_fourth_go_on_beside_the_first() -> None:
    sheet = contact_sheet({"steered": [colour("blue")] * 4 + [colour("lime")]})
    assert sheet.size == (2 * (GAP + CELL + GAP) + GAP, HEAD + 4 * (CELL + GAP))
    assert tuple(np.asarray(sheet)[HEAD + CELL // 2, GAP + CELL + GAP + GAP + GAP + CELL // 2]) == (0, 255, 0)


def test_a_picture_that_is_not_square_keeps_its_shape() -> None:
    pixels = np.asarray(contact_sheet({"steered": [colour("blue", (128, 32))]}))
    blue = (pixels == (0, 0, 255)).all(-1)
    assert blue.any(0).sum() == CELL
    assert blue.any(1).sum() == CELL // 4


def test_the_columns_have_labels() -> None:
    head = np.asarray(contact_sheet({"steered": [colour("blue")]}))[:HEAD]
    assert (head < 128).any()
