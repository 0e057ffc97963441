import pytest
import torch
from freesteer.core import semantic_basis
from freesteer.core.semantic_basis import Covariance


def keys_of(pictures: int = 6, tokens: int = 50, channels: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(3, 0.1, channels)
    look = 5 * torch.randn(pictures, 1, channels, generator=generator)
    return torch.randn(pictures, tokens, channels, generator=generator) * scale + look


def test_streamed_covariance_is_that_of_the_stacked_rows():
    keys = keys_of()
    streamed = Covariance(12)
    for part in keys.split(2):
        streamed.update(part)
    rows = (keys - keys.mean(1, keepdim=True)).flatten(0, 1)
    torch.testing.assert_close(streamed.matrix, torch.cov(rows.T, correction=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(streamed.mean, keys.mean((0, 1)), rtol=1e-4, atol=1e-4)


def test_components_are_the_right_singular_vectors_of_the_stacked_rows():
    keys = keys_of()
    covariance = Covariance(12)
    covariance.update(keys)
    components, deviation = semantic_basis.principal(covariance.matrix, 4)
    rows = (keys - keys.mean(1, keepdim=True)).flatten(0, 1)
    _, singular, vectors = torch.linalg.svd(rows, full_matrices=False)
    assert (components @ vectors[:4].T).abs().diagonal().min() > 0.999
    torch.testing.assert_close(deviation, singular[:4] / len(rows) ** 0.5, rtol=1e-3, atol=1e-3)


def test_the_look_of_whole_pictures_stays_out_of_the_basis():
    """Pictures that differ only by a constant have no layout to tell apart."""
    layout = keys_of(1)
    shifted = layout + 100 * torch.randn(8, 1, 12, generator=torch.Generator().manual_seed(1))
    one, many = Covariance(12), Covariance(12)
    one.update(layout)
    many.update(shifted)
    torch.testing.assert_close(many.matrix, one.matrix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shared", [True, False])
def test_coordinates_have_unit_variance_on_the_seed_pictures_at_every_level(shared):
    levels = [Covariance(12), Covariance(12)]
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
    covariance = Covariance(12)
    covariance.update(keys_of())
    first, _ = semantic_basis.principal(covariance.matrix, 3)
    again, _ = semantic_basis.principal(covariance.matrix * 1.0001, 3)
    assert (first * again).sum(1).min() > 0.99


def test_more_components_than_channels_are_refused():
    with pytest.raises(ValueError, match=r"12 channels.*not 13"):
        semantic_basis.principal(torch.eye(12), 13)


def test_keys_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        semantic_basis.principal(torch.full((3, 3), float("nan")), 2)
