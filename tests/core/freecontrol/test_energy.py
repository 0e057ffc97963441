"""The energy of a picture in the making, against its formula written down plainly."""

import math
from dataclasses import replace

import pytest
import torch
from freesteer.core.freecontrol import energy as en
from freesteer.core.freecontrol import tone
from freesteer.core.freecontrol.energy import Energy, Structure
from freesteer.core.freecontrol.feature_guidance import SLACK, relative
from freesteer.core.freecontrol.semantic_basis import Basis, LayerBasis

SIGMAS = torch.tensor([8.0, 2.0, 0.5])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def identity_basis(channels: int, shared: bool = True, deviation: float = 1.0) -> Basis:
    """Coordinates are the keys over `deviation`, at every one of SIGMAS."""
    count = len(SIGMAS)
    layer = LayerBasis(torch.zeros(count, channels), torch.eye(channels).expand(count, -1, -1), torch.full((count, channels), deviation))
    return Basis(SIGMAS, {"layer": layer}, shared)


def structure(read: torch.Tensor, grid: tuple[int, int], mask: torch.Tensor | None = None) -> Structure:
    """The same coordinates (B, tokens, N) at two levels."""
    return Structure(identity_basis(read.shape[-1]), SIGMAS[:2], {"layer": torch.stack([read, read])}, {"layer": grid}, mask)


def test_a_place_among_levels_is_by_log_sigma_and_stays_inside():
    falling = torch.tensor([16.0, 4.0, 1.0])
    places = {math.inf: 0, 17.0: 0, 16.0: 0, 8.0: 0.5, 4.0: 1, 2 * 2**0.5: 1.25, 1.0: 2, 0.2: 2, 0.0: 2}
    assert [en.log_position(falling, sigma) for sigma in places] == pytest.approx(list(places.values()))
    assert en.log_position(torch.tensor([3.0]), 0.1) == en.log_position(torch.tensor([3.0]), 9.0) == 0
    twice = torch.tensor([3.0, 3.0])  # as where a run begins at the end of the guided range
    assert [en.log_position(twice, sigma) for sigma in (4.0, 3.0, 2.0)] == [0, 0, 1]
    last = torch.tensor([1.0, 0.0])  # the host's schedules end with 0, which stands for 1e-6
    assert en.log_position(last, 1e-3) == pytest.approx(0.5) and en.log_position(last, 0.0) == 1


def test_values_between_levels_are_mixed():
    values = [torch.tensor([0.0]), torch.tensor([10.0]), torch.tensor([30.0])]
    found = [en.interpolate(values, [16.0, 4.0, 1.0], sigma).item() for sigma in (99.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.1)]
    assert found == pytest.approx([0, 0, 5, 10, 20, 30, 30])


def test_fewer_conditions_than_pictures_come_again_in_turn():
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert en.repeat_to(rows, 7).flatten().tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert en.repeat_to(rows, 2).flatten().tolist() == [1, 2]
    assert en.repeat_to(rows, 3) is rows


def test_conditions_are_spread_over_time_with_the_ends_in_their_places():
    rows = torch.tensor([[0.0], [10.0], [40.0]])
    assert en.in_time(rows, 5).flatten().tolist() == [0, 5, 10, 25, 40]
    assert en.in_time(rows, 2).flatten().tolist() == [0, 40]
    assert en.in_time(rows, 1) is en.in_time(rows, 3) is rows
    assert en.in_time(rows[:1], 5).tolist() == [[0]]


@pytest.mark.parametrize("conditions", [1, 3, 6], ids=["one picture", "a clip", "a clip for each"])
def test_a_clip_has_the_mean_energy_of_its_frames(conditions):
    """Two clips of three frames as (clips, frames * tokens, N), or all frames as pictures."""
    read, keys = random(conditions, 9, 2), random(6, 9, 2, seed=1)
    mask = (random(conditions, 1, 3, 3, seed=2) > -0.5).float()
    made, grids = structure(read, (3, 3), mask), {"layer": (3, 3)}
    apart = Energy(made, grids, appearance=0.0)({"layer": keys}, 2.0)
    clips = Energy(made, grids, frames=3, appearance=0.0)
    torch.testing.assert_close(clips({"layer": keys.reshape(2, 27, 2)}, 2.0), apart.view(2, 3).mean(1))
    assert torch.equal(clips({"layer": keys}, 2.0), apart)  # frames in the batch


def test_a_clip_keeps_the_look_of_the_frames_of_its_sibling():
    made, grids = structure(random(1, 9, 2), (3, 3)), {"layer": (3, 3)}
    seen, keys = random(6, 9, 2, seed=1), random(6, 9, 2, seed=2)
    apart, clips = Energy(made, grids), Energy(made, grids, frames=3)
    apart.remember({"layer": seen}, 2.0)
    clips.remember({"layer": seen.reshape(2, 27, 2)}, 2.0)
    torch.testing.assert_close(clips({"layer": keys.reshape(2, 27, 2)}, 2.0), apart({"layer": keys}, 2.0).view(2, 3).mean(1))


def test_the_energy_of_a_masked_picture_is_the_formula():
    """Mask and excess as in the paper, relative coordinates and slack as in ours; three pictures, one condition, another grid."""
    read, keys = random(1, 4, 2), 2 * random(3, 16, 2, seed=1)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1.0
    mask[..., :2, :2] = 0.5
    found = Energy(structure(read, (2, 2), mask), {"layer": (4, 4)}, background=0.7, appearance=0.0)({"layer": keys}, 2.0)
    target = torch.nn.functional.interpolate(read.mT.unflatten(-1, (2, 2)), (4, 4), mode="bilinear").flatten(2).mT
    target = target - target.mean(1, keepdim=True)
    placed = keys - keys.mean(1, keepdim=True)
    m = torch.nn.functional.avg_pool2d(mask, 2).flatten(1)
    limit = target[:, (m <= 0.5)[0]].amax(1, keepdim=True)
    distance = ((placed - target).abs() - SLACK).clamp(min=0).square().mean(-1)
    excess = (placed - limit).clamp(min=0).square().mean(-1)
    wanted = (m * distance).sum(1) / m.sum() + 0.7 * ((1 - m) * excess).sum(1) / (1 - m).sum()
    torch.testing.assert_close(found, wanted)
    assert len({round(float(value), 4) for value in found}) == 3


def test_without_a_mask_all_of_the_picture_is_placed():
    read = random(1, 9, 2)
    keys = random(1, 9, 2, seed=1)
    plain = Energy(structure(read, (3, 3)), {"layer": (3, 3)}, relative=False, background=5.0, appearance=0.0)
    torch.testing.assert_close(plain({"layer": keys}, 2.0), (keys - read).square().mean((1, 2)))
    assert Energy(structure(read, (3, 3)), {"layer": (3, 3)}).background == 1.0


def test_differences_are_squared_by_the_metric_in_our_formula_alone():
    """Metrics of two levels, between which they are interpolated."""
    read, keys = random(1, 9, 2), random(2, 9, 2, seed=1)
    metric = torch.stack([torch.tensor([[[1.0, 0.5], [0.5, 0.4]]]), torch.diag(torch.tensor([0.0, 3.0]))[None]])
    made = replace(structure(read, (3, 3)), metric={"layer": metric})
    off = relative(keys) - relative(read)
    off = off.sign() * (off.abs() - SLACK).clamp(min=0)
    first, second = (torch.einsum("bti,ij,btj->b", off, each[0], off) / 9 for each in metric)
    grids = {"layer": (3, 3)}
    found = Energy(made, grids, appearance=0.0)
    torch.testing.assert_close(found({"layer": keys}, 8.0), first)
    torch.testing.assert_close(found({"layer": keys}, 2.0), second)
    torch.testing.assert_close(found({"layer": keys}, 4.0), (first + second) / 2)
    paper = [Energy(each, grids, relative=False, appearance=0.0)({"layer": keys}, 2.0) for each in (made, structure(read, (3, 3)))]
    assert torch.equal(*paper)


def test_layers_count_alike():
    read = random(1, 9, 2)
    layers = {"a": torch.stack([read, read]), "b": torch.stack([read, read])}
    basis = identity_basis(2)
    both = Structure(Basis(SIGMAS, {name: basis.layers["layer"] for name in layers}), SIGMAS[:2], layers, {"a": (3, 3), "b": (3, 3)})
    energy = Energy(both, {"a": (3, 3), "b": (3, 3)}, relative=False, appearance=0.0)
    assert energy({"a": read + 1, "b": read + 3}, 2.0).item() == pytest.approx((1 + 9) / 2)


def test_appearance_is_held_to_the_siblings_of_the_same_noise_level():
    """v of the sibling between the levels it was seen at; in units of the variance that the basis knows."""
    read, first, second, keys = random(1, 9, 2), random(1, 9, 2, seed=2), random(1, 9, 2, seed=3), random(1, 9, 2, seed=4)
    spread = 3.0
    basis = identity_basis(2, deviation=spread)
    made = Structure(basis, SIGMAS[:2], {"layer": torch.stack([read, read])}, {"layer": (3, 3)})
    grids = {"layer": (3, 3)}
    plain = Energy(made, grids, appearance=0.0)
    energy = Energy(made, grids, appearance=0.6, components=1)
    assert torch.equal(energy({"layer": keys}, 4.0), plain({"layer": keys}, 4.0))  # no sibling seen yet
    energy.remember({"layer": first, "another layer": first}, 8.0)
    energy.remember({"layer": second}, 2.0)

    def look(keys: torch.Tensor) -> torch.Tensor:
        weight = (keys[..., :1] / spread).sigmoid()
        return torch.stack([keys.mean(1), (weight * keys).sum(1) / weight.sum(1)], 1)

    wanted = (look(keys) - (look(first) + look(second)) / 2).square().sum(-1).mean(1) / (2 * spread**2)
    torch.testing.assert_close(energy({"layer": keys}, 4.0), plain({"layer": keys}, 4.0) + 0.6 * wanted)


def test_two_components_and_a_tenth_of_appearance_unless_told():
    made = structure(random(1, 9, 4), (3, 3))
    grids = {"layer": (3, 3)}
    seen, keys = random(1, 9, 4, seed=1), random(1, 9, 4, seed=2)
    usual, told = Energy(made, grids), Energy(made, grids, relative=True, background=1.0, appearance=0.1, components=2)
    for energy in (usual, told):
        energy.remember({"layer": seen}, 2.0)
    assert torch.equal(usual({"layer": keys}, 2.0), told({"layer": keys}, 2.0))


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 2, 8, 6)], ids=["picture", "video"])
def test_the_ground_is_moved_by_whole_channels(shape):
    latent, wanted = random(*shape), random(2, 3, seed=1)
    moved = tone.toward(latent, wanted, 0.25)
    flat = (moved - latent).flatten(2)
    torch.testing.assert_close(flat, (0.25 * (wanted - latent.flatten(2).median(-1).values))[..., None].expand_as(flat))
