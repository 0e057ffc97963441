"""Splatting as slowly and plainly as its formulas (3D Gaussian Splatting, arXiv 2308.04079): every Gaussian at every pixel, float64."""

import math
import sys
from dataclasses import replace

import torch
from torch import Tensor

from ...core.geometry import cameras
from ...core.geometry.cameras import Camera
from ...core.splats import harmonics, rasteriser
from ...core.splats.gaussians import Gaussians
from ...core.splats.rasteriser import Rendered

BACKGROUND = torch.tensor([0.2, 0.4, 0.6])
UNDECIDED = 1e-5  # of an opacity: so near to the least that is drawn, float32 cannot tell on which side it is


def render(gaussians: Gaussians, camera: Camera, background: Tensor) -> tuple[Rendered, Tensor]:
    """The picture, and where it is certain: (H, W) bool."""
    g = gaussians.to(torch.float64)
    pose, focal, centre = (getattr(camera, part).double() for part in ("pose", "focal", "centre"))
    height, width = camera.size
    y, x = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    light, certain = torch.ones(height, width).double(), torch.ones(height, width).bool()
    colour, depth, median = torch.zeros(height, width, 3).double(), torch.zeros(height, width).double(), torch.zeros(height, width).double()
    points = g.positions @ pose[:3, :3].T + pose[:3, 3]
    eye = -pose[:3, :3].T @ pose[:3, 3]
    for i in points[:, 2].argsort().tolist():
        px, py, pz = points[i].tolist()
        if pz <= 0.01:
            continue
        w, a, b, c = (g.rotations[i] / g.rotations[i].norm()).tolist()
        q = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]]).double()
        turn = torch.eye(3).double() + 2 * w * q + 2 * q @ q
        covariance = turn @ torch.diag(g.scales[i] ** 2) @ turn.T
        fx, fy, cx, cy = *focal.tolist(), *centre.tolist()
        tx = min(max(px / pz, -(cx / fx + 0.15 * width / fx)), (width - cx) / fx + 0.15 * width / fx)
        ty = min(max(py / pz, -(cy / fy + 0.15 * height / fy)), (height - cy) / fy + 0.15 * height / fy)
        j = torch.tensor([[fx / pz, 0, -fx * tx / pz], [0, fy / pz, -fy * ty / pz]]).double()
        flat = j @ pose[:3, :3] @ covariance @ pose[:3, :3].T @ j.T + 0.3 * torch.eye(2).double()
        inverse = torch.linalg.inv(flat)
        dx, dy = x - (fx * px / pz + cx), y - (fy * py / pz + cy)
        alpha = g.opacities[i] * torch.exp(-0.5 * (inverse[0, 0] * dx * dx + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy * dy))
        certain &= ((alpha - 1 / 255).abs() > UNDECIDED / 255) | (light < UNDECIDED)
        alpha = torch.where(alpha < 1 / 255, 0, alpha.clamp(max=0.999))
        direction = (g.positions[i] - eye)[None]
        weight = light * alpha
        colour += weight[..., None] * harmonics.colours(g.sh[i : i + 1], direction)[0]
        depth += weight * pz
        median = torch.where((light >= 0.5) & (light * (1 - alpha) < 0.5), pz, median)
        light = light * (1 - alpha)
    return Rendered(colour + light[..., None] * background.double(), 1 - light, depth / (1 - light).clamp(min=1e-6), median), certain


def cloud(count: int, seed: int = 0, size: float | None = None, opacity: tuple[float, float] = (0.1, 0.9), degree: int = 0) -> Gaussians:
    """Random Gaussians in a unit cube around the origin; `size`: their typical deviation."""
    draw = torch.Generator().manual_seed(seed)
    typical = 0.5 * count ** (-1 / 3) if size is None else size
    scales = typical * torch.exp(0.5 * torch.randn(count, 3, generator=draw))
    rotations = torch.nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=1)
    opacities = opacity[0] + (opacity[1] - opacity[0]) * torch.rand(count, generator=draw)
    sh = torch.cat([
        harmonics.of_colours(torch.rand(count, 3, generator=draw)), 0.1 * torch.randn(count, (degree + 1) ** 2 - 1, 3, generator=draw)
    ], 1)  # fmt: skip
    return Gaussians(torch.rand(count, 3, generator=draw) - 0.5, scales, rotations, opacities, sh)


def view(size: tuple[int, int], distance: float = 2.0, degrees: float = 35.0) -> Camera:
    """Of the unit cube, from outside, a little from the side."""
    angle = math.radians(20)
    position = torch.tensor([distance * math.sin(angle), -0.3, -distance * math.cos(angle)])
    return cameras.from_field_of_view(cameras.look_at(position, torch.zeros(3)), degrees, size)


def scenes(count: int) -> dict[str, Gaussians]:
    """Each is hard in its own way."""
    behind = cloud(count, 4, 0.05)
    rim = cloud(count, 5, 0.1)
    return {
        "dense": cloud(2 * count, 0, 0.06, (0.5, 1.0), degree=3),
        "sparse": cloud(count // 10, 1, 0.03),
        "huge": cloud(count // 10, 2, 1.0, (0.05, 0.6)),
        "sub-pixel": cloud(count, 3, 0.0005),
        "behind": replace(behind, positions=4 * behind.positions),
        "rim": replace(rim, positions=2.2 * rim.positions),
    }


def max_error(count: int, side: int) -> float:
    worst = 0.0
    for name, scene in scenes(count).items():
        camera = view((side, side + 13))
        wanted, certain = render(scene, camera, BACKGROUND)
        found = rasteriser.render(scene, camera, BACKGROUND, median=True)
        errors = [(found.colour - wanted.colour).abs().amax(-1), (found.alpha - wanted.alpha).abs()]
        error = max(float(e[certain].max()) for e in errors)
        sys.stderr.write(f"{name}: {error:.1e} at {float(certain.float().mean()):.1%} of the pixels\n")
        worst = max(worst, error)
    return worst


def grad_error(count: int) -> float:
    """The worst derivative along random directions, of every input, against central differences: relative."""
    scene = cloud(count, 7, 0.15, (0.3, 0.8), degree=1).to(torch.float64)
    camera = view((40, 48))
    camera = Camera(camera.pose.double(), camera.focal.double(), camera.centre.double(), camera.size)
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(*camera.size, 4, generator=draw, dtype=torch.float64)

    def energy(values: dict[str, Tensor]) -> Tensor:
        parts = {name: values[name] for name in ("positions", "scales", "rotations", "opacities", "sh")}
        seen = Camera(cameras.exponential(values["twist"]) @ camera.pose, values["focal"], values["centre"], camera.size)
        found = rasteriser.render(Gaussians(**parts), seen, BACKGROUND.double())
        return (torch.cat([found.colour, found.depth[..., None]], -1) * weights).sum()

    values = {name: getattr(scene, name) for name in ("positions", "scales", "rotations", "opacities", "sh")}
    values |= {"twist": torch.zeros(6).double(), "focal": camera.focal, "centre": camera.centre}
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    gradients = dict(zip(leaves, torch.autograd.grad(energy(leaves), list(leaves.values())), strict=True))
    worst = 0.0
    for name, value in values.items():
        along = gradients[name] / gradients[name].norm()  # the steepest direction: its slope is the gradient's length
        step = 1e-6 * max(1.0, float(value.norm()) / math.sqrt(value.numel()))
        above, below = (energy({**values, name: value + sign * step * along}) for sign in (1, -1))
        slope, wanted = float((above - below) / (2 * step)), float(gradients[name].norm())
        sys.stderr.write(f"d/d {name}: {wanted:.4g}, by differences {slope:.4g}\n")
        worst = max(worst, abs(slope - wanted) / abs(wanted))
    return worst
