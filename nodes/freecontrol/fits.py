"""Whether a basis or a structure fits a MODEL, in one sentence where it does not."""

from comfy.model_patcher import ModelPatcher

from ...core.freecontrol.bases_file import ModelBasis
from ...host.models import families
from ...host.models.taps import Point
from ..common import checks
from .types import ModelStructure


def width(model: ModelPatcher, point: Point) -> int:
    """Channels of the keys at a point."""
    module = model.model.diffusion_model.get_submodule(point.module)
    return point.channels[1] - point.channels[0] if point.channels else int(getattr(module, "out_features", 0))


def components(model: ModelPatcher, layers: families.Choice, count: int) -> int:
    checks.number("components", count, 1)
    points = families.structure_points(model, layers)
    narrowest = min(width(model, point) for point in points)
    if 0 < narrowest < count:
        raise checks.InputError(f"components is {count}, but the keys of this model have {narrowest} channels: choose 1 to {narrowest}.")
    return count


def basis_of(model: ModelPatcher, made: ModelBasis) -> list[Point]:
    """The points at which `model` is read with a basis."""
    return _points(model, "basis", made.family, {name: layer.mean.shape[-1] for name, layer in made.basis.layers.items()})


def structure_of(model: ModelPatcher, made: ModelStructure) -> list[Point]:
    """The points at which `model` is read with a structure."""
    layers = made.structure.basis.layers
    return _points(model, "structure", made.family, {name: layers[name].mean.shape[-1] for name in made.layers})


def _points(model: ModelPatcher, what: str, family: str, widths: dict[str, int]) -> list[Point]:
    ours = families.family_of(model).name
    if ours != family:
        raise checks.InputError(f"This {what} was made with a {family} model, and this model is {ours}: make it again with Extract Basis.")
    points = {point.name: point for point in families.structure_points(model, "all decoder")}
    missing = [name for name in widths if name not in points]
    if missing:
        raise checks.InputError(
            f"This {what} speaks of layer {missing[0]}, which this {ours} model lacks: make it again with Extract Basis."
        )
    for name, channels in widths.items():
        if width(model, points[name]) not in (0, channels):
            raise checks.InputError(
                f"This {what} of a {family} model has {channels} channels in layer {name}, this {ours} model {width(model, points[name])}: "
                "make it again with Extract Basis."
            )
    return [points[name] for name in points if name in widths]
