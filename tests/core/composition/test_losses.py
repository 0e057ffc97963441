"""The losses beside their formulas, written out place by place in float64."""

import itertools
import math
import statistics
from functools import partial

import pytest
import torch
from freesteer.core.composition import losses


@pytest.fixture
def maps():
    return torch.rand(3, 4, 2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


PRESENT = torch.tensor([[True, True, True, False], [True, False, True, False], [True, False, False, False]])
SINGLE = torch.tensor([[True, False, True, False], [True, False, True, False], [False, False, False, False]])
NOTHING = torch.zeros(3, 4, dtype=torch.bool)
GATHER = partial(losses.gather, single=SINGLE)


def blurred(picture):
    """A list of rows, by the Gaussian and mirrored edges."""
    weight = [[math.exp(-(dy * dy + dx * dx) / (2 * 0.5**2)) for dx in (-1, 0, 1)] for dy in (-1, 0, 1)]
    total = sum(map(sum, weight))
    h, w = len(picture), len(picture[0])

    def mirrored(i, count):
        return -i if i < 0 else 2 * (count - 1) - i if i >= count else i

    around = list(itertools.product((-1, 0, 1), repeat=2))
    return [
        [sum(weight[dy + 1][dx + 1] * picture[mirrored(y + dy, h)][mirrored(x + dx, w)] for dy, dx in around) / total for x in range(w)]
        for y in range(h)
    ]


def peak(volume):
    return max(max(map(max, blurred(frame.tolist()))) for frame in volume)


def there(row):
    return [i for i, here in enumerate(row.tolist()) if here]


def test_separate(maps):
    found = losses.separate(maps, PRESENT)
    for row, present, loss in zip(maps, PRESENT, found, strict=True):
        wanted = 0.0
        for i, j in itertools.combinations(there(present), 2):
            places = zip(row[i].flatten().tolist(), row[j].flatten().tolist(), strict=True)
            wanted += max(a * b / (a + b + losses.LEAST) for a, b in places)
        assert float(loss) == pytest.approx(wanted, abs=1e-12)


def test_enhance(maps):
    found = losses.enhance(maps, PRESENT)
    for row, present, loss in zip(maps, PRESENT, found, strict=True):
        assert float(loss) == pytest.approx(1 - min(peak(row[i]) for i in there(present)), abs=1e-12)


def test_apart(maps):
    found = losses.apart(maps, PRESENT)
    for row, present, loss in zip(maps, PRESENT, found, strict=True):
        flat = [[place for frame in volume for line in blurred(frame.tolist()) for place in line] for volume in row]
        alike = (statistics.correlation(flat[i], flat[j]) for i, j in itertools.combinations(there(present), 2))
        assert float(loss) == pytest.approx(sum(max(0.0, each + 0.1) for each in alike), abs=1e-5)


@pytest.mark.parametrize("enough", [0.5, 0.9, 2.0])
def test_seen(maps, enough):
    found = losses.seen(maps, PRESENT, enough)
    for row, present, loss in zip(maps, PRESENT, found, strict=True):  # a fortieth of 30 places is one
        wanted = sum(max(0.0, 1 - float(row[i].max()) / enough) for i in there(present))
        assert float(loss) == pytest.approx(wanted, abs=1e-12)


def test_gather(maps):
    found = losses.gather(maps, PRESENT, SINGLE)
    for row, present, single, loss in zip(maps, PRESENT, SINGLE, found, strict=True):
        wanted, soft = 0.0, {i: [blurred(frame.tolist()) for frame in row[i]] for i in there(present)}
        flat = {i: [place for frame in frames for line in frame for place in line] for i, frames in soft.items()}
        for i in there(single):
            nearest = max([0.0, *(statistics.correlation(flat[i], flat[j]) for j in soft if j != i)])
            frames = [blurred(frame) for frame in soft[i]]
            values = sorted(value for frame in frames for line in frame for value in line)
            median, total, varied = values[(len(values) - 1) // 2], 0.0, 0.0
            for frame in frames:
                weight = {(y, x): max(0, value - median) ** 2 for y, line in enumerate(frame) for x, value in enumerate(line)}
                here = sum(weight.values())
                middle = [sum(w * place[axis] for place, w in weight.items()) / here for axis in (0, 1)]
                total += here
                varied += sum(w * math.dist(place, middle) ** 2 for place, w in weight.items())
            wanted += max(0.0, 1 - nearest / losses.SHARED) * max(0.0, varied / total / ((5**2 + 3**2) / 12) / losses.WIDE - 1)
        assert float(loss) == pytest.approx(wanted, rel=1e-4)


def test_what_is_apart_seen_and_gathered_costs_nothing():
    maps = torch.zeros(1, 2, 1, 8, 8)
    maps[0, 0, 0, 0:3, 0:3], maps[0, 1, 0, 5:8, 5:8] = 0.3, 0.2
    both = torch.ones(1, 2, dtype=torch.bool)
    assert losses.apart(maps, both) == 0 and losses.seen(maps, both, 0.2) == 0 and losses.gather(maps, both, both) == 0
    twice = torch.stack([maps[:, 0] + maps[:, 0].flip(3), maps[:, 1]], 1)
    assert losses.gather(twice, both, both) > 1 and losses.gather(twice, both, ~both) == 0
    moving = torch.cat([maps, maps.flip(4)], 2)
    assert losses.gather(moving, both, both) == 0
    assert losses.gather(twice[:, :1].expand(-1, 2, -1, -1, -1), both, both) == 0  # two at one place are parted first
    assert losses.apart(maps.flip(1) + maps, both) == pytest.approx(1.1, abs=1e-5) and losses.seen(maps, both, 0.3) > 0


def test_attend_and_excite(maps):
    content = torch.tensor([[True, True, True, False]] * 3)
    sharp = losses.excited(maps, content)
    weight = (100 * maps[:, :3]).exp()
    assert torch.allclose(sharp[:, :3], weight / weight.sum(1, keepdim=True), atol=1e-12)
    assert not sharp[:, 3].any()
    found = losses.attend_and_excite(sharp, PRESENT)
    for row, present, loss in zip(sharp, PRESENT, found, strict=True):
        assert float(loss) == pytest.approx(max(max(0.0, 1 - peak(row[i])) for i in there(present)), abs=1e-12)


def test_boxes(maps):
    inside = torch.zeros_like(maps)
    inside[..., 1:3, :2] = 1
    found = losses.boxes(maps, inside, PRESENT)
    for row, present, loss in zip(maps, PRESENT, found, strict=True):
        shares = [float(row[i][:, 1:3, :2].sum()) / (float(row[i].sum()) + losses.LEAST) for i in there(present)]
        assert float(loss) == pytest.approx(sum((1 - share) ** 2 for share in shares) / len(shares), abs=1e-12)


def test_phrases_are_means_or_sums_of_their_tokens(maps):
    phrases = torch.zeros(3, 2, 4, dtype=torch.bool)
    phrases[:, 0, 1:3] = True
    mean = (maps.flatten(2).mT.float() @ losses.means(phrases)).mT.unflatten(2, maps.shape[2:])
    torch.testing.assert_close(mean[:, 0], ((maps[:, 1] + maps[:, 2]) / 2).float())
    torch.testing.assert_close(losses.sums(maps, phrases)[:, 0], maps[:, 1] + maps[:, 2])
    assert not mean[:, 1].any() and not losses.sums(maps, phrases)[:, 1].any()  # a phrase without tokens


def test_nothing_present_costs_nothing(maps):
    gathered = partial(losses.gather, single=NOTHING)
    for loss in (losses.separate, losses.enhance, losses.apart, partial(losses.seen, enough=0.5), gathered, losses.attend_and_excite):
        assert loss(maps, NOTHING).eq(0).all()
    assert losses.boxes(maps, maps, NOTHING).eq(0).all()


def test_empty_maps_give_finite_gradients():
    empty = torch.zeros(1, 2, 1, 1, 4, requires_grad=True)
    both = torch.ones(1, 2, dtype=torch.bool)
    loss = losses.separate(empty, both) + losses.enhance(empty, both) + losses.boxes(empty, torch.ones_like(empty), both)
    loss = loss + losses.gather(empty, both, both)
    (gradient,) = torch.autograd.grad(loss.sum(), empty)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [losses.separate, losses.enhance, losses.apart, GATHER, losses.attend_and_excite])
def test_gradients_against_finite_differences(maps, loss, monkeypatch):
    monkeypatch.setattr(losses, "SHARED", 1e9)  # that it is held constant is no derivative
    assert torch.autograd.gradcheck(lambda m: loss(m, PRESENT), maps.clone().requires_grad_())


def test_gradients_of_boxes_and_of_sharpened_attention(maps):
    content = torch.tensor([[True, True, True, False]] * 3)
    small = (maps / 50).clone().requires_grad_()  # as attention is: sharpened, it is still smooth
    assert torch.autograd.gradcheck(lambda m: losses.boxes(m, maps, PRESENT), maps.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda m: losses.excited(m, content), small)
