"""Pictures of Gaussians: exact, sorted, differentiable in the scene and in the camera."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import Camera
from ..geometry.rotations import matrix
from . import harmonics
from .accelerated import kernel_for
from .compositing import composite, median_depth
from .gaussians import Gaussians
from .projection import project
from .tiles import SIDES, Tiles, assign

LARGE = 4  # deviation in pixels, of a Gaussian that large tiles are better for


@dataclass(frozen=True)
class Rendered:
    """colour: (H, W, 3); alpha: (H, W), 0..1; depth: (H, W), the mean over what is seen, in the world's units, 0 where nothing is.

    Only when asked for: median: (H, W), the depth where the transmittance falls below a half, without derivative, 0 where it never
    does; normal: (H, W, 3), in the camera's frame, towards the camera.
    """

    colour: Tensor
    alpha: Tensor
    depth: Tensor
    median: Tensor | None = None
    normal: Tensor | None = None


def render(gaussians: Gaussians, camera: Camera, background: Tensor | None = None, median: bool = False, normals: bool = False) -> Rendered:
    """background: (3,) or (H, W, 3), black unless given."""
    projected = project(gaussians, camera)
    conics = projected.conics
    kernel = kernel_for(projected.means.device, projected.means.dtype)
    side = tile_side(projected.covariances, SIDES if kernel is None else kernel.sides)
    tiles = assign(projected, gaussians.opacities, camera.size, side)
    directions = gaussians.positions - camera.position
    features = [harmonics.colours(gaussians.sh, directions), projected.depths[:, None]]
    if normals:
        features.append(normals_of(gaussians, camera))
    blended, transmittance = composite(projected.means, conics, gaussians.opacities, torch.cat(features, 1), tiles, kernel)
    picture, transmittance = untiled(blended, tiles, camera.size), untiled(transmittance[..., None], tiles, camera.size)
    alpha = 1 - transmittance
    colour = picture[..., :3] if background is None else picture[..., :3] + transmittance * background.to(transmittance)
    depth = picture[..., 3:4] / alpha.clamp(min=1e-6)
    halfway = None
    if median:
        halfway = median_depth(projected.means, conics, gaussians.opacities, projected.depths, tiles)
        halfway = untiled(halfway[..., None], tiles, camera.size)[..., 0]
    normal = torch.nn.functional.normalize(picture[..., 4:7], dim=-1) if normals else None
    return Rendered(colour, alpha[..., 0], depth[..., 0], halfway, normal)


def tile_side(covariances: Tensor, sides: tuple[int, ...]) -> int:
    """The smallest of the sides where the typical Gaussian is small, else the largest."""
    if len(sides) == 1 or len(covariances) == 0:
        return sides[0]
    typical = float(covariances[:, ::2].detach().amax(-1).median())
    return sides[-1] if typical > LARGE**2 else sides[0]


def normals_of(gaussians: Gaussians, camera: Camera) -> Tensor:
    """The shortest axis of each Gaussian, in the camera's frame, towards the camera: (N, 3)."""
    turn = camera.pose[:3, :3] @ matrix(gaussians.rotations)
    shortest = gaussians.scales.argmin(-1)[:, None, None].expand(-1, 3, 1)
    axis = turn.gather(2, shortest).squeeze(-1)
    seen_from = gaussians.positions @ camera.pose[:3, :3].mT + camera.pose[:3, 3]
    return torch.where((axis * seen_from).sum(-1, keepdim=True) > 0, -axis, axis)


def untiled(values: Tensor, tiles: Tiles, size: tuple[int, int]) -> Tensor:
    """(tiles, pixels, C) to (H, W, C)."""
    rows, columns = tiles.grid
    picture = values.view(rows, columns, tiles.side, tiles.side, -1).transpose(1, 2)
    return picture.reshape(rows * tiles.side, columns * tiles.side, -1)[: size[0], : size[1]]
