"""Pictures of Gaussians: exact, sorted, differentiable in the scene and in the camera."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import Camera
from ..geometry.rotations import matrix
from . import harmonics
from .compositing import composite, median_depth
from .gaussians import Gaussians
from .projection import project
from .tiles import Tiles, assign


@dataclass(frozen=True)
class Rendered:
    """colour: (H, W, 3); alpha: (H, W), 0..1; depth: (H, W), the mean over what is seen, in the world's units, 0 where nothing is;
    median: (H, W), the depth where half of the light is gone, without derivative, 0 where it never is; normal: (H, W, 3), in the
    camera's frame, towards the camera. The last two only when asked for."""

    colour: Tensor
    alpha: Tensor
    depth: Tensor
    median: Tensor | None = None
    normal: Tensor | None = None


def render(gaussians: Gaussians, camera: Camera, background: Tensor | None = None, median: bool = False, normals: bool = False) -> Rendered:
    """background: (3,) or (H, W, 3), black unless given. Raises ValueError for values that are not finite."""
    projected = project(gaussians, camera)
    conics = projected.conics
    tiles = assign(projected, gaussians.opacities, camera.size, tile_side(projected.covariances))
    directions = gaussians.positions - camera.position
    features = [harmonics.colours(gaussians.sh, directions), projected.depths[:, None]]
    if normals:
        features.append(facing(gaussians, camera))
    blended, light = composite(projected.means, conics, gaussians.opacities, torch.cat(features, 1), tiles)
    picture, light = untiled(blended, tiles, camera.size), untiled(light[..., None], tiles, camera.size)
    alpha = 1 - light
    colour = picture[..., :3] if background is None else picture[..., :3] + light * background.to(light)
    depth = picture[..., 3:4] / alpha.clamp(min=1e-6)
    middle = None
    if median:
        middle = median_depth(projected.means, conics, gaussians.opacities, projected.depths, tiles)
        middle = untiled(middle[..., None], tiles, camera.size)[..., 0]
    normal = torch.nn.functional.normalize(picture[..., 4:7], dim=-1) if normals else None
    return Rendered(colour, alpha[..., 0], depth[..., 0], middle, normal)


def tile_side(covariances: Tensor) -> int:
    """Small tiles waste little where Gaussians are small; large ones are fewer where they are not."""
    typical = float(covariances[:, ::2].detach().amax(-1).median()) if len(covariances) else 1.0
    return 16 if math.sqrt(typical) > 4 else 8


def facing(gaussians: Gaussians, camera: Camera) -> Tensor:
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
