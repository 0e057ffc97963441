"""Whatever attention the host or another pack uses, the gradient is right: of kernels without a backward pass, of overrides."""

import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from freesteer.tests.host import tiny
from freesteer.tests.host.gradients.test_gradients import assert_gradient_is_right
from torch import Tensor

FAMILIES = ["SD 1.5", "SD 3", "Flux", "Wan"]


@torch.library.custom_op("freesteer_test::attention", mutates_args=())
def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As the host registers FlashAttention: autograd has no formula for it, and its backward pass fails."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def failing(function, q, k, v, heads, *args, **kwargs):
    """A fast kernel where there is no mask; it brings tensors into its own layout, as they all do."""
    if kwargs.get("mask") is not None or any(arg is not None for arg in args):
        return function(q, k, v, heads, *args, **kwargs)
    split = [t if kwargs.get("skip_reshape") else t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v)]
    out = kernel(*(t.contiguous() for t in split))
    return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


OVERRIDES = {
    "torch's own": lambda function, *args, **kwargs: attention_pytorch(*args, **kwargs),
    "without a graph": lambda function, *args, **kwargs: function(*args, **kwargs).detach(),
    "without a backward pass": failing,
    "one that changes the result": lambda function, *args, **kwargs: 1.5 * function(*args, **kwargs),
}


def overridden(model: tiny.Tiny, override):
    patched = model.model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    return patched


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_finite_differences(family, name):
    model = tiny.build(family, True)
    assert_gradient_is_right(model, overridden(model, OVERRIDES[name]))


def test_an_override_is_called_for_all_of_the_pass():
    """Also for the part behind the last layer that is read, which has no graph."""
    model, calls = tiny.build("SD 1.5", True), []

    def noting(function, *args, **kwargs):
        calls.append(torch.is_grad_enabled())
        return function(*args, **kwargs)

    assert_gradient_is_right(model, overridden(model, noting))
    assert True in calls and False in calls
