"""A camera path as a picture: frusta, the way between them, and the scene as points, seen along each axis."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.geometry import cameras
from ...core.geometry.cameras import CameraPath
from ...core.splats import harmonics
from ...core.splats.gaussians import Gaussians
from ..common.previews import to_tensor

PANEL, MARGIN, HEAD = 320, 16, 22  # pixels
# Axes right and down, and the sign of the latter.
VIEWS = {"from above": (0, 2, -1), "from the side": (2, 1, 1), "from the front": (0, 1, 1)}
FRUSTUM = 0.08  # of the largest extent
WIDEST = 4.0  # of a frustum's depth: what sees more to a side is drawn as if it saw this
MOST_POINTS, MOST_FRUSTA = 20_000, 60


def drawn(path: CameraPath, scene: Gaussians | None = None) -> Tensor:
    """(H, W, 3)."""
    points, colours = some_points(scene) if scene is not None else (torch.zeros(0, 3), torch.zeros(0, 3))
    positions = path.positions.float().cpu()
    around = torch.cat([positions, points]) if len(points) else positions
    low, high = around.quantile(0.02, 0), around.quantile(0.98, 0)
    low, high = torch.minimum(low, positions.amin(0)), torch.maximum(high, positions.amax(0))
    middle, extent = (low + high) / 2, max(float((high - low).max()), 1e-3) * 1.15
    page = Image.new("RGB", (len(VIEWS) * PANEL, PANEL + HEAD), (24, 24, 24))
    font = ImageFont.load_default(14)
    for number, (name, (right, down, sign)) in enumerate(VIEWS.items()):
        panel = Image.new("RGB", (PANEL, PANEL), (24, 24, 24))
        axes = torch.tensor([right, down])
        scale = (PANEL - 2 * MARGIN) / extent

        def place(values: Tensor, axes: Tensor = axes, sign: int = sign, scale: float = scale) -> Tensor:
            """World (n, 3) to pixels (n, 2)."""
            return (values - middle)[:, axes] * torch.tensor([scale, sign * scale]) + PANEL / 2

        if len(points):
            dots(panel, place(points), colours)
        draw_cameras(ImageDraw.Draw(panel), path, extent, place)
        page.paste(panel, (number * PANEL, HEAD))
        ImageDraw.Draw(page).text((number * PANEL + MARGIN, HEAD / 2), name, "white", font, anchor="lm")
    return to_tensor(page)


def some_points(scene: Gaussians) -> tuple[Tensor, Tensor]:
    """Positions and colours of at most MOST_POINTS of the solid Gaussians."""
    scene = scene[scene.opacities > 0.3] if (scene.opacities > 0.3).any() else scene
    scene = scene[:: max(1, -(-len(scene) // MOST_POINTS))].to("cpu")
    return scene.positions, harmonics.colours(scene.sh[:, :1], scene.positions).clamp(0, 1)


def dots(panel: Image.Image, places: Tensor, colours: Tensor) -> None:
    pixels = to_tensor(panel)
    at = places.round().long()
    inside = ((at >= 0) & (at < PANEL)).all(1)
    pixels[at[inside, 1], at[inside, 0]] = 0.6 * colours[inside]
    panel.paste(Image.fromarray((pixels * 255).byte().numpy()))


def draw_cameras(pen: ImageDraw.ImageDraw, path: CameraPath, extent: float, place) -> None:
    positions = place(path.positions.float().cpu())
    pen.line([tuple(p) for p in positions.tolist()], (200, 200, 200), 1)
    step = max(1, len(path) // MOST_FRUSTA)
    for frame in [*range(0, len(path), step), len(path) - 1]:
        share = frame / max(len(path) - 1, 1)
        colour = (round(80 + 175 * share), round(220 - 150 * share), 80)
        corners = place(frustum(path, frame, FRUSTUM * extent)).tolist()
        centre, ring = tuple(corners[0]), [tuple(c) for c in corners[1:]]
        pen.line([*ring, ring[0]], colour, 1)
        for corner in ring:
            pen.line([centre, corner], colour, 1)


def frustum(path: CameraPath, frame: int, depth: float) -> Tensor:
    """Centre and the four corners of what a camera sees at a depth: (5, 3), in the world."""
    camera = path[frame]
    height, width = camera.size
    corners = torch.tensor([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    rays = ((corners - camera.centre.cpu()) / camera.focal.cpu()).clamp(-WIDEST, WIDEST)
    rays = torch.cat([rays, torch.ones(4, 1)], 1) * depth
    back = cameras.inverse(camera.pose.cpu())
    seen = torch.cat([torch.zeros(1, 3), rays])
    return seen @ back[:3, :3].mT + back[:3, 3]
