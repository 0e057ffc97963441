"""A condition's own colours do not count."""

import torch
from freesteer.core.freecontrol.tints import contrast, tinted


def test_a_thing_as_bright_as_its_ground_is_seen_by_its_hue():
    picture = torch.tensor([0.2, 0.6, 0.4]).repeat(1, 16, 16, 1)
    picture[:, 4:10, 4:10] = torch.tensor([0.8, 0.2, 0.2])  # as bright
    seen = contrast(picture)[0, ..., 0]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:10, 4:10] = True
    assert (seen[inside].mean() - seen[~inside].mean()).abs() > 0.6
    assert seen[inside].std() < 1e-4 and seen[~inside].std() < 1e-4


def test_the_contrast_of_a_grey_picture_is_its_brightness():
    grey = torch.rand(3, 8, 12, 1, generator=torch.Generator().manual_seed(0))
    seen = contrast(grey.expand(-1, -1, -1, 3))
    for one, shown in zip(grey.flatten(1), seen.flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([one, shown]))[0, 1] > 0.9999


def test_one_colour_has_no_contrast():
    assert (contrast(torch.full((1, 8, 8, 3), 0.3)).abs() < 1e-6).all()
    assert torch.isfinite(tinted(torch.full((1, 8, 8, 3), 0.3), 4)).all()


def test_the_first_is_the_picture_and_the_others_lie_between_two_colours():
    pictures = torch.rand(2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    made = tinted(pictures, 4)
    assert made.shape == (4, 2, 8, 8, 3) and torch.equal(made[0], pictures)
    assert made.min() >= 0 and made.max() <= 1
    flat = made[1].flatten(1, 2)
    assert torch.linalg.matrix_rank(flat[0] - flat[0].mean(0), atol=1e-4) == 1
