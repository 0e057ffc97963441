"""Gradients through what is changed in place are those of the same computation without changes in place."""

import pytest
import torch
from freesteer.host.gradients.copying import copied_on_change


def gradient(energy, x):
    return torch.autograd.grad(energy(x), x)[0]


@pytest.mark.parametrize("changed", [slice(None), slice(0, 2), slice(2, 4)], ids=["whole", "its beginning", "its end"])
def test_what_is_changed_in_place_counts_as_it_was(changed):
    def energy(x):
        h = x * 2
        squared = (h**2).sum()
        h[changed] += 5
        return squared + (h**3).sum()

    def without(x):
        h = x * 2
        later = h + torch.zeros(4, 2).index_fill(0, torch.arange(4)[changed], 5.0)
        return (h**2).sum() + (later**3).sum()

    x = torch.arange(8.0).reshape(4, 2).requires_grad_()
    with copied_on_change():
        found = gradient(energy, x)
    assert torch.equal(found, gradient(without, x))


def test_memory_that_is_used_again_is_no_longer_that_of_before():
    """A skip connection is added to in place and freed; the next has its address. torch's own way fails in one of five."""

    def energy(x):
        total = x.new_zeros(())
        for k in range(8):
            h = x * (k + 1.0)
            total = total + (h**2).sum()
            h += 1.0
            del h
        return total

    x = torch.full((64, 64), 2.0, requires_grad=True)
    for _ in range(50):
        with copied_on_change():
            assert torch.equal(gradient(energy, x), torch.full_like(x, 4.0 * sum((k + 1) ** 2 for k in range(8))))


def test_operations_with_an_output_and_with_lists_change_in_place_too():
    def energy(x):
        a, b = x * 2, x * 3
        squared = (a**2).sum() + (b**2).sum()
        with torch.no_grad():
            torch.add(x, 7, out=a)
            torch.ops.aten._foreach_add_.Scalar([b], 5)
        return squared

    x = torch.arange(4.0).requires_grad_()
    with copied_on_change():
        assert torch.equal(gradient(energy, x), 2 * (4 + 9) * x.detach())


def test_a_tensor_that_is_saved_twice_is_copied_once(monkeypatch):
    x = torch.arange(4.0).requires_grad_()
    copies = []
    clone = torch.Tensor.clone
    with copied_on_change():
        h = x * 2
        energy = (h**2).sum() + h.sin().sum()
        monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: copies.append(1) or clone(tensor))
        h += 5
        h += 5  # nothing needs it any more as it is between the two
        monkeypatch.undo()
        torch.testing.assert_close(torch.autograd.grad(energy, x)[0], 8 * x.detach() + 2 * (2 * x.detach()).cos())
    assert len(copies) == 1
