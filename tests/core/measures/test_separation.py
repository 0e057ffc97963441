"""What colours tell of an outline."""

import pytest
import torch
from freesteer.core.measures.separation import found, separation


def disc(x: float, y: float, radius: float, size=(96, 128)) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2)[None]


def picture(mask: torch.Tensor, noise: float = 0.1) -> torch.Tensor:
    """A thing of one colour on a ground of another, both grainy."""
    colours = torch.where(mask[..., None], torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.4, 0.5, 0.3]))
    return (colours + noise * torch.randn(colours.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_a_thing_in_its_place_is_found():
    mask = disc(40, 50, 20)
    assert separation(picture(mask), mask) > 0.95


def test_a_thing_in_half_its_place_counts_by_its_overlap():
    there, wanted = disc(40, 50, 20), disc(52, 50, 20)
    true = (there & wanted).sum() / (there | wanted).sum()
    assert abs(separation(picture(there), wanted) - true) < 0.12


@pytest.mark.parametrize("there", [disc(100, 30, 18), disc(0, 0, 0)], ids=["elsewhere", "nowhere"])
def test_what_is_not_there_is_not_found(there):
    assert separation(picture(there), disc(40, 50, 20)) < 0.2


def test_two_colours_of_ground_are_one_ground():
    mask = disc(40, 50, 20)
    made = picture(mask)
    made[:, ::8] = torch.where(mask[:, ::8, :, None], made[:, ::8], torch.tensor([0.1, 0.3, 0.7]))
    assert separation(made, mask) > 0.9


@pytest.mark.parametrize("whole", [True, False])
def test_an_outline_that_parts_nothing_finds_nothing(whole):
    mask = torch.full((1, 32, 32), whole)
    assert not found(torch.rand(1, 32, 32, 3), mask).any()


def test_one_colour_gives_no_nan():
    mask = disc(40, 50, 20)
    assert torch.isfinite(separation(torch.full((1, 96, 128, 3), 0.5), mask)).all()


def test_pictures_are_judged_one_by_one():
    masks = torch.cat([disc(40, 50, 20), disc(90, 30, 10)])
    pictures = torch.cat([picture(mask[None]) for mask in masks])
    one_by_one = torch.cat([separation(p[None], m[None]) for p, m in zip(pictures, masks, strict=True)])
    torch.testing.assert_close(separation(pictures, masks), one_by_one)
