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
