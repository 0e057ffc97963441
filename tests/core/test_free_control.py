import torch
from freesteer.core.free_control import Energy, Structure
from freesteer.core.semantic_basis import Basis, LayerBasis


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
