"""Intersection over union, counted by hand."""

import torch
from freesteer.core.measures.masks import overlap


def mask(*cells: tuple[int, int]) -> torch.Tensor:
    """(4, 5), true in these cells."""
    drawn = torch.zeros(4, 5, dtype=torch.bool)
    for row, column in cells:
        drawn[row, column] = True
    return drawn


def test_it_is_the_shared_part_of_both():
    one, other = mask((0, 0), (1, 1), (3, 4)), mask((1, 1), (3, 4), (2, 2))
    assert overlap(one, other).item() == overlap(other, one).item() == 2 / 4
    assert overlap(one, one).item() == 1
    assert overlap(mask((2, 3)), mask((2, 3))).item() == 1


def test_nothing_in_common_is_0_and_so_are_two_empty_masks():
    assert overlap(mask((0, 1)), mask((1, 0))).item() == 0
    assert overlap(mask(), mask()).item() == 0
    assert overlap(mask(), mask((1, 2), (0, 0))).item() == 0


def test_each_pair_of_a_batch_is_measured_on_its_own():
    ones = torch.stack([mask((0, 0)), mask((0, 0), (1, 1)), mask((3, 3))])[None]
    others = torch.stack([mask((0, 0)), mask((0, 0)), mask((0, 0))])[None]
    assert overlap(ones, others).tolist() == [[1, 0.5, 0]]
