from functools import partial

import pytest
import torch
from freesteer.training.compiled import compile_each
from freesteer.training.loop import Run
from freesteer.training.optimisers import MuonAndAdamW
from freesteer.training.settings import Settings
from torch import Tensor, nn

STEPS = 12


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 36), nn.LayerNorm(36), nn.Linear(36, 3))


def numbers(step: int, generator: torch.Generator) -> Tensor:
    return torch.randn(32, 40, generator=generator)


def error(module: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return (module(batch) - batch[:, :3].sin()).square().mean(), {}


def begun(folder=None, steps: int = STEPS, **options) -> Run:
    return Run(network(), Settings(steps, 1e-2, seed=3, warm_up=5, weight_decay=0.0, muon=True, **options), folder)


def go(run: Run, stop: int | None = None) -> Run:
    def watch(progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    run.go(numbers, partial(error, run.module), watch)
    return run


def test_it_learns_and_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(begun(tmp_path), stop=5)
    resumed, whole = begun(tmp_path), go(begun())
    assert resumed.step == 5
    go(resumed)
    assert resumed.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(resumed.module.parameters(), whole.module.parameters(), strict=True))
    losses = go(begun(steps=150)).history["loss"]
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def test_steps_of_matrices_are_orthogonal_and_as_long_as_adamws():
    module = network()
    settings = Settings(STEPS, 1e-2, weight_decay=0.0)
    optimiser = MuonAndAdamW(list(module.parameters()), settings)
    assert len(optimiser.param_groups) == 2
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 6]  # biases, norm and head are AdamW's
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    optimiser.step()
    steps = [p.detach() - b for p, b in zip(module.parameters(), before, strict=True)]
    lengths = torch.linalg.svdvals(steps[2])
    assert lengths.min() > 0.5 * lengths.max()  # of 36 directions, all about the same, where those of its gradient are from 1 to 7
    assert float(steps[2].square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.3)
    assert float(steps[3].abs().max()) == pytest.approx(1e-2, rel=0.01)  # AdamW's first step
    optimiser.zero_grad()
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.slow
def test_compiled_layers_compute_the_same():
    plain, compiled = network(), network()
    compile_each(compiled)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for rows in (8, 3):
        x = torch.randn(rows, 40, generator=torch.Generator().manual_seed(rows))
        found = [error(module, x)[0] for module in (plain, compiled)]
        torch.testing.assert_close(found[1], found[0])
        for loss in found:
            loss.backward()
    for one, two in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)
