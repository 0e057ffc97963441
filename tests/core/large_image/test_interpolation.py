"""Between cells of a grid."""

import math

import pytest
import torch
from freesteer.core.large_image import interpolation
from freesteer.core.large_image.interpolation import at, between, cell_of, corners


def test_a_window_that_covers_a_cell_lies_in_its_middle():
    """As the paper has it: 4 cells over 256, windows of 64."""
    assert [cell_of(place, 64, 256, 4) for place in (0, 16, 64, 192)] == [0, 0.25, 1, 3]
    assert [cell_of(place, 64, 256, 4, True) for place in (0, 16, 64, 192, 224)] == [0, 0.25, 1, 3, 3.5]


def test_every_cell_is_read_and_one_window_reads_the_middle():
    assert [cell_of(place, 128, 256, 9) for place in (0, 32, 64, 128)] == [0, 2, 4, 8]
    assert cell_of(0, 128, 128, 3) == 1 and cell_of(0, 128, 128, 2) == 0.5


def test_beyond_the_last_cell_there_is_more_of_it_or_the_first_again():
    assert corners(-0.4, 4, False) == (0, 0, 0.0)
    assert corners(3.4, 4, False) == (3, 3, 0.0)
    before, after, share = corners(3.25, 4, True)
    assert (before, after, share) == (3, 0, 0.25)
    assert corners(-0.25, 4, True) == (3, 0, 0.75)
    assert corners(1.5, 4, False) == (1, 2, 0.5)


def test_a_spherical_way_goes_round_and_keeps_length():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    middle = between(a, b, 0.5)
    torch.testing.assert_close(middle, torch.full((1, 2), math.sqrt(2)))
    torch.testing.assert_close(between(a, b, 0.5, "linear"), torch.ones(1, 2))
    assert torch.equal(between(a, b, 0.4, "nearest"), a) and torch.equal(between(a, b, 0.6, "nearest"), b)


@pytest.mark.parametrize("way", interpolation.WAYS)
def test_a_way_begins_and_ends_where_it_should(way):
    a, b = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).unbind()
    torch.testing.assert_close(between(a, b, 0.0, way), a)
    torch.testing.assert_close(between(a, b, 1.0, way), b)
    torch.testing.assert_close(between(a, a, 0.3, way), a)
    torch.testing.assert_close(between(a, -a, 0.0, way), a)


@pytest.mark.parametrize("way", interpolation.WAYS)
def test_numbers_stay_numbers(way):
    zero = torch.zeros(1, 4)
    for other in (zero, torch.ones(1, 4)):
        assert between(zero, other, 0.5, way).isfinite().all()


def test_between_four_cells_rows_come_first():
    cells = [[torch.full((1, 1), 0.0), torch.full((1, 1), 1.0)], [torch.full((1, 1), 10.0), torch.full((1, 1), 11.0)]]
    assert at((0, 1, 0.5), (0, 1, 0.25), cells, "linear").item() == pytest.approx(5.25)
