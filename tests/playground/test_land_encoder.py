"""The land's encoder: its loss against the formulas of the paper in float64, and the windows that it learns from."""

import torch
from freesteer.playground.land import encoder, land, train_encoder

GENERATOR = torch.Generator().manual_seed(0)


def vectors(seed: int) -> torch.Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(one: torch.Tensor, other: torch.Tensor) -> float:
    """Equations 1 to 6 of VICReg, number by number."""
    count, width = one.shape
    apart = sum(float((a - b) ** 2) for a, b in zip(one.flatten(), other.flatten(), strict=True)) / (count * width)
    total = 25 * apart
    for z in (one, other):
        mean = [sum(float(z[i, j]) for i in range(count)) / count for j in range(width)]
        shared = [
            [sum((float(z[i, j]) - mean[j]) * (float(z[i, k]) - mean[k]) for i in range(count)) / (count - 1) for k in range(width)]
            for j in range(width)
        ]
        total += 25 * sum(max(0.0, 1 - (shared[j][j] + 1e-4) ** 0.5) for j in range(width)) / width
        total += sum(shared[j][k] ** 2 for j in range(width) for k in range(width) if j != k) / width
    return total


def test_the_loss_is_that_of_the_paper():
    one, other = 0.7 * vectors(0), 0.7 * vectors(1)
    torch.testing.assert_close(float(encoder.vicreg(one, other)[0]), written_out(one, other), rtol=1e-10, atol=0)


def test_windows_go_on_beyond_the_rim():
    pictures, kinds = train_encoder.lands(2, 0, 64)
    places = train_encoder.Places(torch.tensor([1, 0]), torch.tensor([50, -3]), torch.tensor([0, 70]))
    found = train_encoder.windows(pictures, places, 32)
    assert torch.equal(found[0], pictures[1].roll((-50, 0), (-2, -1))[:, :32, :32])
    assert torch.equal(found[1], pictures[0].roll((3, -70), (-2, -1))[:, :32, :32])
    assert torch.equal(train_encoder.windows(kinds, places, 32)[1], kinds[0].roll((3, -70), (-2, -1))[:32, :32])


def test_a_pair_shows_two_places_and_is_the_same_for_a_step():
    pictures, _ = train_encoder.lands(1, 0, 192)
    one, other = train_encoder.pair(pictures, 0, torch.Generator().manual_seed(5))
    again, _ = train_encoder.pair(pictures, 0, torch.Generator().manual_seed(5))
    assert one.shape == other.shape == (train_encoder.BATCH, 3, 128, 128)
    assert torch.equal(one, again) and not torch.equal(one, other) and one.min() >= 0 and one.max() <= 1


def test_any_size_becomes_a_vector():
    network = encoder.Encoder()
    for size in ((128, 128), (96, 160), (64, 64)):
        assert network(torch.rand(2, 3, *size, generator=GENERATOR)).shape == (2, encoder.WIDTH)


def test_the_probe_finds_what_is_there():
    """Mean colours of a grid of places name most windows; noise names none."""

    class Means(torch.nn.Module):
        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            pooled = torch.nn.functional.adaptive_avg_pool2d(picture, 4)
            return torch.cat([pooled.flatten(1), picture.std((2, 3))], 1)

    class Noise(torch.nn.Module):
        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(picture), 8)

    found = train_encoder.lands(6, train_encoder.HELD_OUT, 256)
    seen, unseen = (train_encoder.probe(network, *found, 400, 200) for network in (Means(), Noise()))
    assert seen > 0.6 > 2 / len(land.KINDS) + 0.1 > unseen
