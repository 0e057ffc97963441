"""What is read outside of a sampling run has a row for each picture, whatever is averaged."""

from typing import Any

import comfy.sample
import comfy.samplers
import torch
from freesteer.host.models import families
from freesteer.host.sampling import probe
from freesteer.host.sampling.reading import Readout
from freesteer.tests.host import tiny


def test_pictures_are_read_one_by_one_and_noises_averaged():
    model = tiny.build("FreeSteer playground")
    points = families.structure_points(model.model)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(3, *model.latent.shape[1:], generator=generator)
    seen: list[dict[str, torch.Tensor]] = []

    def visit(level: int, features: dict[str, torch.Tensor], clean: torch.Tensor) -> None:
        assert len(clean) == 3
        seen.append(features)

    for latents in (latent, latent.flip(0)):
        probe.inspect(model.model, points, model.positive, latents, torch.tensor([0.05]), 0, 2, visit)
    for name in seen[0]:
        there, back = (features[name] for features in seen)
        assert there.shape == back.shape and len(there) == 3
        assert (there - back.flip(0)).norm() < 0.5 * (there - back).norm()  # other noise, the same pictures


def test_pictures_are_made_as_the_hosts_euler_sampler_makes_them():
    model = tiny.build("FreeSteer playground")
    noise = torch.randn(model.latent.shape, generator=torch.Generator().manual_seed(0))
    sampling: Any = model.model.get_model_object("model_sampling")
    sigmas, seen = torch.tensor([float(sampling.sigma_max), 5.0, 1.0]), []
    prompts = probe.Prompts(model.positive, model.negative, 3.0)
    made = probe.generate(
        model.model, families.structure_points(model.model), prompts, noise, model.latent, sigmas, lambda i, *_: seen.append(i)
    )
    euler, ending = comfy.samplers.sampler_object("euler"), torch.cat([sigmas, torch.zeros(1)])
    plain = comfy.sample.sample_custom(
        model.model, noise, 3.0, euler, ending, model.positive, model.negative, model.latent, disable_pbar=True, seed=0
    )
    assert seen == [0, 1, 2]
    torch.testing.assert_close(made, plain, rtol=1e-3, atol=1e-3)


def test_rows_of_several_regions_are_averaged():
    passes = [{"a": torch.full((2, 3, 4), value), "b": torch.zeros(2, size, 4)} for value, size in ((1.0, 5), (3.0, 6))]
    found = Readout(passes=passes).features
    assert list(found) == ["a"] and torch.equal(found["a"], torch.full((2, 3, 4), 2.0))
