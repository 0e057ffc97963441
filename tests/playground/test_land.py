"""The drawn land: seamless, the same for a seed, of any size, and named for what is most of it."""

import pytest
import torch
from freesteer.playground.land import land, noise


def drawn(size: tuple[int, int] = (128, 192), seed: int = 1) -> land.Land:
    return land.draw(size, torch.Generator().manual_seed(seed))


def steps(values: torch.Tensor, axis: int) -> torch.Tensor:
    """How much neighbours differ along an axis, (places,): the last is across the rim."""
    others = [i for i in range(values.ndim) if i != axis % values.ndim]
    return (values - values.roll(-1, axis)).abs().mean(others)


@pytest.mark.parametrize("axis", [-1, -2])
def test_it_goes_on_from_each_side_to_the_opposite_one(axis):
    differences = steps(drawn((256, 256)).picture, axis)
    assert differences[-1] < 1.5 * differences.mean()


@pytest.mark.parametrize("size", [(128, 128), (96, 200), (131, 77), (8, 8)])
def test_any_size_is_drawn(size):
    found = drawn(size)
    assert found.picture.shape == (3, *size) and found.kinds.shape == size
    assert found.picture.isfinite().all() and found.picture.min() >= 0 and found.picture.max() <= 1


def test_a_seed_is_a_land():
    assert torch.equal(drawn().picture, drawn().picture)
    assert not torch.equal(drawn().picture, drawn(seed=2).picture)


def test_no_kind_is_rare():
    total = torch.stack([land.shares(drawn((256, 256), seed).kinds) for seed in range(8)]).mean(0)
    assert total.min() > 0.05 and total.max() < 0.25


def test_each_kind_has_a_look_of_its_own():
    """Told apart by the mean and deviation of their colours, and by how much neighbours differ."""
    generator = torch.Generator().manual_seed(0)
    pictures = [paint((96, 96), generator) for paint in land.PAINTERS.values()]
    seen = torch.stack([torch.cat([p.mean((1, 2)), p.std((1, 2)), steps(p, -1).mean()[None]]) for p in pictures])
    assert torch.pdist(seen).min() > 0.05


def test_smooth_noise_is_as_smooth_as_asked_for():
    generator = torch.Generator().manual_seed(0)
    coarse, fine = (noise.smooth((128, 128), scale, generator) for scale in (8.0, 2.0))
    assert steps(coarse, -1).mean() < 0.4 * steps(fine, -1).mean()
    assert float(coarse.std()) == pytest.approx(1.0, abs=1e-4)


def test_cells_know_their_nearest_point():
    found = noise.cells((60, 90), 15.0, torch.Generator().manual_seed(0))
    assert found.count == 4 * 6 and int(found.index.max()) < found.count
    assert (found.second >= found.distance).all()
    torch.testing.assert_close(torch.hypot(found.down, found.across), 15.0 * found.distance, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("share", "says"),
    [({"woods": 1.0}, "woods"), ({"woods": 0.6, "water": 0.35, "rock": 0.05}, "woods with water"),
     ({"sand": 0.2, "town": 0.5, "snow": 0.3}, "town with snow and sand")],
)  # fmt: skip
def test_a_caption_says_what_is_most_of_it(share, says):
    assert land.caption(torch.tensor([share.get(kind, 0.0) for kind in land.KINDS])) == says
