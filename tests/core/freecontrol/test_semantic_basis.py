import pytest
import torch
from freesteer.core.freecontrol import semantic_basis
from freesteer.core.freecontrol.semantic_basis import Covariance, principal


def keys_of(pictures: int = 6, tokens: int = 50, channels: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(3, 0.1, channels)
    look = 5 * torch.randn(pictures, 1, channels, generator=generator)
    return torch.randn(pictures, tokens, channels, generator=generator) * scale + look


def matrix(covariance: Covariance) -> torch.Tensor:
    return covariance.factor.mT @ covariance.factor


def test_streamed_covariance_is_that_of_the_stacked_rows():
    keys = keys_of()
    streamed = Covariance(12, 4)
    for part in keys.split(2):
        streamed.update(part)
    rows = (keys - keys.mean(1, keepdim=True)).flatten(0, 1)
    torch.testing.assert_close(matrix(streamed), torch.cov(rows.T, correction=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(streamed.mean, keys.mean((0, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_components_are_the_right_singular_vectors_of_the_stacked_rows(decay):
    """Where the spectrum is flat, single components are not defined, but what they explain is."""
    rows = torch.randn(600, 64, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 65) ** -decay
    covariance = Covariance(64, 16)
    covariance.add(rows)
    components, deviation = principal(covariance.factor, 16)
    _, singular, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    torch.testing.assert_close(deviation.double(), singular[:16] / len(rows) ** 0.5, rtol=1e-4, atol=0)
    torch.testing.assert_close(components @ components.T, torch.eye(16), rtol=0, atol=1e-5)
    outside = components.double() - components.double() @ vectors[:16].T @ vectors[:16]
    assert outside.norm(dim=1).max() < 1e-2


@pytest.mark.parametrize("shared", [True, False])
def test_of_many_channels_a_sketch_keeps_nearly_all_that_the_components_can_explain(shared):
    """Variances fall like 1 / rank, more slowly than those of any keys we have seen; three batches, of which the first makes the probe."""
    rows = torch.randn(3, 4, 128, 512, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 513) ** -0.5
    sketch, count = Covariance(512, 16), 16
    for part in rows:
        sketch.update(part)
    assert sketch.image.shape == (512, 64)
    layer = semantic_basis.build(torch.ones(1), {"layer": [sketch]}, count, shared).layers["layer"]
    components = layer.components[0].double()
    centred = (rows - rows.mean(2, keepdim=True)).flatten(0, 2).double()
    explained = (centred @ components.T).square().mean(0)
    best = torch.linalg.svdvals(centred).square()[:count] / len(centred)
    assert explained.sum() > 0.985 * best.sum()
    assert explained[:4].sum() > 0.995 * best[:4].sum()
    torch.testing.assert_close(components @ components.T, torch.eye(count).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.deviation[0].double(), explained.sqrt(), rtol=0.05, atol=0)


def test_keys_of_fewer_rows_than_components_still_give_orthonormal_ones():
    covariance = Covariance(512, 16)
    covariance.update(torch.randn(1, 9, 512, generator=torch.Generator().manual_seed(0)))
    components, deviation = principal(covariance.factor, 16)
    torch.testing.assert_close(components @ components.T, torch.eye(16), rtol=0, atol=1e-4)
    assert deviation[7] > 0.1 and deviation[8] < 1e-2


def test_the_look_of_whole_pictures_stays_out_of_the_basis():
    """Pictures that differ only by a constant have no layout to tell apart."""
    layout = keys_of(1)
    shifted = layout + 100 * torch.randn(8, 1, 12, generator=torch.Generator().manual_seed(1))
    one, many = Covariance(12, 5), Covariance(12, 5)
    one.update(layout)
    many.update(shifted)
    torch.testing.assert_close(matrix(many), matrix(one), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_coordinates_have_unit_variance_on_the_seed_pictures_at_every_level(shared):
    levels = [Covariance(12, 5), Covariance(12, 5)]
    keys = [keys_of(seed=0), 4 * keys_of(seed=0)]
    for level, part in zip(levels, keys, strict=True):
        level.update(part)
    basis = semantic_basis.build(torch.tensor([10.0, 1.0]), {"layer": levels}, 5, shared)
    for i, part in enumerate(keys):
        coordinates = basis.layers["layer"].coordinates(part - part.mean(1, keepdim=True) + levels[i].mean, i)
        torch.testing.assert_close(coordinates.flatten(0, 1).var(0, correction=0), torch.ones(5), rtol=2e-2, atol=0)


def test_a_basis_is_found_by_the_nearest_sigma_on_a_log_scale():
    basis = semantic_basis.Basis(torch.tensor([10.0, 1.0, 0.1]), {})
    assert [basis.nearest(s) for s in (100.0, 4.0, 3.0, 0.5, 0.0)] == [0, 0, 1, 1, 2]


def test_two_builds_agree_in_sign():
    covariance = Covariance(12, 3)
    covariance.update(keys_of())
    first, _ = principal(covariance.factor, 3)
    again, _ = principal(covariance.factor * 1.0001, 3)
    assert (first * again).sum(1).min() > 0.99


def test_more_components_than_channels_are_refused():
    with pytest.raises(ValueError, match=r"12 channels.*not 13"):
        Covariance(12, 13)


def test_keys_that_are_not_finite_are_refused():
    covariance = Covariance(3, 2)
    covariance.update(torch.full((1, 3, 3), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        _ = covariance.factor


def two_layers() -> semantic_basis.Basis:
    """Of 5 and of 3 components."""
    layers = {
        name: semantic_basis.LayerBasis(torch.zeros(2, 6), torch.eye(6)[:count].expand(2, -1, -1), 1 + torch.arange(count).expand(2, -1))
        for name, count in (("a", 5), ("b", 3))
    }
    return semantic_basis.Basis(torch.tensor([4.0, 1.0]), layers, shared=False)


def test_a_basis_may_be_read_with_fewer_components():
    basis = two_layers()
    assert basis.components == 3
    few = basis.leading(2)
    keys = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(0))
    for name in ("a", "b"):
        for level in (0, 1):
            whole, first = (each.layers[name].coordinates(keys, level) for each in (basis, few))
            assert torch.equal(first, whole[..., :2])
    assert not few.shared and basis.leading(3).components == 3 and basis.leading(1).components == 1
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"3 components a layer; {count} were asked for"):
            basis.leading(count)


def test_levels_are_told_apart_down_to_a_millionth():
    basis = semantic_basis.Basis(torch.tensor([1.0, 1e-3, 0.0]), {})
    assert [basis.nearest(sigma) for sigma in (2.0, 1e-4, 2e-5, 0.0)] == [0, 1, 2, 2]


@pytest.mark.parametrize("count", [1, 12])
def test_one_component_and_as_many_as_channels_are_possible(count):
    covariance = Covariance(12, count)
    covariance.update(keys_of())
    components, deviation = principal(covariance.factor, count)
    assert components.shape == (count, 12) and deviation.shape == (count,) and (deviation.diff() <= 0).all()
    with pytest.raises(ValueError, match="12 channels"):
        Covariance(12, 0)


def test_signs_make_the_largest_entry_positive():
    covariance = Covariance(12, 4)
    covariance.update(keys_of())
    components, _ = principal(covariance.factor, 4)
    assert (components.gather(1, components.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_basis_of_keys_without_any_layout_has_no_infinite_coordinates():
    flat = Covariance(6, 2)
    flat.update(torch.ones(2, 5, 6))
    for shared in (True, False):
        layer = semantic_basis.build(torch.ones(1), {"layer": [flat]}, 2, shared).layers["layer"]
        assert layer.deviation.tolist() == [pytest.approx([1e-6] * 2)]
        assert torch.isfinite(layer.coordinates(torch.ones(1, 5, 6), 0)).all()


def test_shared_components_weigh_every_level_alike():
    """A level whose keys are a hundred times larger does not outvote the other: its second direction comes after the other's first."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, 400, 6, generator=generator) * 0.01 for _ in range(2))
    first[..., 0] *= 30_000
    first[..., 3] *= 10_000
    second[..., 1] *= 200
    second[..., 2] *= 100
    levels = [Covariance(6, 2), Covariance(6, 2)]
    for level, keys in zip(levels, (first, second), strict=True):
        level.update(keys)
    found = semantic_basis.build(torch.tensor([2.0, 1.0]), {"layer": levels}, 2, shared=True).layers["layer"].components[0]
    assert found[0, 0] > 0.99 and found[1, 1] > 0.95


def test_a_sketch_is_no_wider_than_four_vectors_a_component():
    assert [Covariance(channels, 4).width for channels in (8, 16, 17, 100)] == [8, 16, 16, 16]


def test_the_probe_of_a_sketch_takes_rows_from_everywhere():
    """Orthonormal, in the space of the rows, and it sees what only the last rows have."""
    rows = torch.zeros(1000, 40)
    rows[:, :4] = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    rows[900:, 4:8] = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    probe = semantic_basis._probe(rows, 8)
    torch.testing.assert_close(probe.mT @ probe, torch.eye(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(probe[:8].square().sum(), torch.tensor(8.0))


def test_means_are_those_of_all_rows_whatever_the_sketch():
    keys = torch.randn(4, 30, 64, generator=torch.Generator().manual_seed(0)) + 3
    covariance = Covariance(64, 4)
    for part in keys.split(1):
        covariance.update(part)
    assert covariance.rows == 120
    torch.testing.assert_close(covariance.mean, keys.mean((0, 1)))
