import pytest
import torch
from freesteer.core.freecontrol import tone
from freesteer.core.freecontrol.energy import Energy, Structure
from freesteer.core.freecontrol.semantic_basis import Basis, LayerBasis


def test_without_shared_components_a_picture_is_read_with_those_of_its_condition():
    """Component 3 of one noise level is not component 3 of another."""
    generator = torch.Generator().manual_seed(0)
    components = torch.linalg.qr(torch.randn(3, 8, 8, generator=generator)).Q[:, :4]
    layer = LayerBasis(torch.randn(3, 8, generator=generator), components, torch.ones(3, 4))
    basis = Basis(torch.tensor([10.0, 1.0, 0.1]), {"layer": layer}, shared=False)
    keys = torch.randn(1, 16, 8, generator=generator)
    structure = Structure(basis, torch.tensor([1.0]), {"layer": layer.coordinates(keys, 1)[None]}, {"layer": (4, 4)})
    energy = Energy(structure, {"layer": (4, 4)}, relative=False, background=0.0, appearance=0.0)
    for sigma in (10.0, 1.0, 0.1):
        assert energy({"layer": keys}, sigma).item() < 1e-6
        assert energy({"layer": keys + 1}, sigma).item() > 0.01


def test_targets_between_two_levels_are_mixed_by_log_sigma():
    layer = LayerBasis(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3), torch.ones(2, 3))
    basis = Basis(torch.tensor([4.0, 1.0]), {"layer": layer})
    read = torch.stack([torch.zeros(1, 4, 3), torch.ones(1, 4, 3)])
    structure = Structure(basis, torch.tensor([4.0, 1.0]), {"layer": read}, {"layer": (2, 2)})
    for sigma, share in ((9.0, 0.0), (4.0, 0.0), (2.0, 0.5), (1.0, 1.0), (0.1, 1.0)):
        assert structure.at("layer", sigma).mean().item() == pytest.approx(share)


def test_the_ground_goes_the_share_of_the_way_and_a_small_subject_does_not_count():
    latent = torch.zeros(1, 2, 8, 8)
    latent[:, :, 2:5, 2:5] = 9.0
    wanted = torch.tensor([[1.0, -2.0]])
    moved = tone.toward(latent, wanted, 0.5)
    torch.testing.assert_close(tone.ground(moved), wanted / 2)
    torch.testing.assert_close(moved - latent, (wanted / 2)[..., None, None].expand_as(latent))
