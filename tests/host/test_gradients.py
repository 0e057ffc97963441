import comfy.model_management
import comfy.patcher_extension
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from freesteer.host import families, gradients
from freesteer.host.taps import Taps
from freesteer.tests.host import tiny
from torch import Tensor

FAMILIES = list(tiny.RECIPES)
CONDITIONAL = 0  # in cond_or_uncond


def guided(model, energy, step, dtype=None, cut=slice(None)):
    """A clone of `model` that calls step(output, gradient, energies) on the conditional rows of every model call."""
    model = gradients.prepare(model)
    points = families.structure_points(model)

    def wrapper(executor, x, *args, **kwargs):
        args, kwargs = gradients.normal((args, kwargs))
        options = next(a for a in (*args, *kwargs.values()) if isinstance(a, dict) and "cond_or_uncond" in a)
        repeats = x.shape[0] // len(options["cond_or_uncond"])
        rows = [i * repeats + r for i, kind in enumerate(options["cond_or_uncond"]) if kind == CONDITIONAL for r in range(repeats)]
        diffusion_model = executor.class_obj
        taps = Taps(diffusion_model, points, x.shape)
        if not rows:
            return executor(x, *args, **kwargs)

        def conditional(features: dict[str, Tensor]) -> Tensor:
            return energy({name: feature[rows] for name, feature in features.items()})

        output, gradient, energies = gradients.forward_with_gradient(
            lambda x: executor(x, *args, **kwargs), x, taps, conditional, diffusion_model
        )
        step(x, output, gradient, energies, rows)
        return output

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    return model


def mean_square(features: dict[str, Tensor]) -> Tensor:
    return torch.stack([feature.square().flatten(1).mean(1) for feature in features.values()]).mean(0)


def nothing(*_):
    pass


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_with_gradient_gives_the_sample_of_the_plain_model(family):
    model = tiny.build(family)
    torch.testing.assert_close(model.sample(guided(model.model, mean_square, nothing)), model.sample(), rtol=0, atol=0)
