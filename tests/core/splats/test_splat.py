"""The rasteriser against formulas written down plainly, in float64."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from freesteer.benchmarks.splats import splat_reference as reference
from freesteer.core.geometry import cameras
from freesteer.core.geometry.cameras import Camera
from freesteer.core.geometry.rotations import matrix, quaternion
from freesteer.core.splats import compositing, harmonics
from freesteer.core.splats.fitting import DEPTH_WEIGHT, difference, fit, grown
from freesteer.core.splats.gaussians import Gaussians, join
from freesteer.core.splats.projection import Projected, project
from freesteer.core.splats.rasteriser import Rendered, render
from freesteer.core.splats.tiles import assign
from torch import Tensor

SCENES = ("dense", "sparse", "huge", "sub-pixel", "behind", "rim")
PARTS = ("positions", "scales", "rotations", "opacities", "sh")


@pytest.mark.parametrize("name", SCENES)
def test_it_is_the_formula(name):
    scene, camera = reference.scenes(60)[name], reference.view((40, 51))
    wanted, certain = reference.render(scene, camera, reference.BACKGROUND)
    found = render(scene, camera, reference.BACKGROUND, median=True)
    assert certain.float().mean() > 0.98
    assert (found.colour - wanted.colour)[certain].abs().max() < 1e-4
    assert (found.alpha - wanted.alpha)[certain].abs().max() < 1e-4
    solid = certain & (wanted.alpha > 0.1)
    assert solid.any()
    assert (found.depth - wanted.depth)[solid].abs().max() < 1e-3
    assert found.median is not None and wanted.median is not None
    assert ((found.median - wanted.median)[certain].abs() < 1e-4).float().mean() > 0.999  # a tie of .5 may fall either way


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("at_once", [1, 2**19])
def test_pictures_and_gradients_do_not_depend_on_how_the_work_is_cut(monkeypatch, chunk, at_once):
    scene, view = reference.cloud(80, 0, 0.1, (0.5, 0.99)).to(torch.float64), reference.view((24, 30))
    camera = Camera(view.pose.double(), view.focal.double(), view.centre.double(), view.size)

    def run() -> tuple[torch.Tensor, ...]:
        leaves = {name: getattr(scene, name).clone().requires_grad_() for name in PARTS}
        found = render(Gaussians(**leaves), camera, reference.BACKGROUND.double())
        return found.colour.detach(), *torch.autograd.grad(found.colour.square().sum(), list(leaves.values()))

    wanted = run()
    monkeypatch.setattr(compositing, "CHUNK", chunk)
    monkeypatch.setattr(compositing, "AT_ONCE", {"cpu": at_once})
    for a, b in zip(run(), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # light below DARK may count or not


def smooth() -> dict[str, Tensor]:
    """Gaussians so wide and so faint that none of them is cut off, full or dark at any pixel, and the camera that sees them."""
    scene, camera, draw = reference.cloud(5, 7, 1.0, (0.1, 0.4), degree=1), reference.view((12, 15)), torch.Generator().manual_seed(0)
    scene = replace(scene, scales=0.9 + 0.6 * torch.rand(5, 3, generator=draw))
    values = {name: getattr(scene, name) for name in PARTS}
    values |= {"twist": torch.zeros(6), "focal": camera.focal, "centre": camera.centre, "pose": camera.pose}
    return {name: value.double() for name, value in values.items()}


def energy(values: dict[str, Tensor]) -> Tensor:
    """Of everything that is drawn, each pixel with a weight of its own."""
    pose = cameras.exponential(values["twist"]) @ values["pose"]
    camera = Camera(pose, values["focal"], values["centre"], (12, 15))
    shown = render(Gaussians(*(values[name] for name in PARTS)), camera, reference.BACKGROUND.double(), normals=True)
    assert shown.normal is not None
    drawn = torch.cat([shown.colour, shown.alpha[..., None], shown.depth[..., None], shown.normal], -1)
    weights = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (drawn * weights).sum()


@pytest.mark.parametrize("part", [*PARTS, "twist", "focal", "centre"])
def test_each_derivative_is_that_of_differences(part: str):
    values = smooth()
    start = values[part].requires_grad_()
    (found,) = torch.autograd.grad(energy(values), start)
    wanted, step = torch.zeros_like(found), 1e-5
    with torch.no_grad():
        for place in range(start.numel()):
            change = torch.zeros_like(start)
            change.view(-1)[place] = step
            above, below = (energy({**values, part: start + sign * change}) for sign in (1, -1))
            wanted.view(-1)[place] = (above - below) / (2 * step)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7 * float(wanted.abs().max()))


def test_depth_counts_where_it_is_known_and_something_is_shown():
    """However near it is; as a share of itself."""
    shown = Rendered(torch.zeros(12, 11, 3), torch.ones(12, 11), torch.full((12, 11), 0.6))
    shown.alpha[6:] = 0
    depth = torch.full((12, 11), 0.5)
    depth[:, 5:] = 0
    of_depth = difference(shown, shown.colour, depth, torch.zeros(2)) - difference(shown, shown.colour, None, torch.zeros(2))
    assert float(of_depth) == pytest.approx(DEPTH_WEIGHT * 0.2, rel=1e-4)


def test_pictures_of_very_many_tiles_have_each_gaussian_in_its_own():
    """More tiles than 16 bits can number."""
    rows = columns = 240
    places = torch.tensor([[4.0, 4.0], [8 * columns - 4.0, 4.0], [8 * columns - 4.0, 8 * rows - 4.0]])
    covariances = torch.tensor([[0.1, 0.0, 0.1]]).expand(3, 3)
    placed = Projected(places, covariances, torch.ones(3))
    tiles = assign(placed, torch.ones(3), (8 * rows, 8 * columns), 8)
    assert tiles.count.nonzero()[:, 0].tolist() == [0, columns - 1, rows * columns - 1]
    assert tiles.gaussian[tiles.start[[0, columns - 1, rows * columns - 1]]].tolist() == [0, 1, 2]


def test_gradients_of_a_scene_with_edges_are_those_of_differences():
    assert reference.grad_error(20) < 1e-5


def test_a_gradient_moves_a_camera_back_to_where_a_picture_was_taken():
    scene, camera = reference.cloud(300, 0, 0.08, (0.6, 0.95)), reference.view((48, 48))
    wanted = render(scene, camera).colour
    start = cameras.exponential(torch.tensor([0.02, -0.02, 0.03, 0.01, 0.02, -0.015])) @ camera.pose
    twist = torch.zeros(6, requires_grad=True)
    optimiser = torch.optim.Adam([twist], 4e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (render(scene, camera.at(cameras.exponential(twist) @ start)).colour - wanted).square().mean()
        loss.backward()
        optimiser.step()
    left = cameras.logarithm(cameras.exponential(twist.detach()) @ start @ cameras.inverse(camera.pose))
    assert left[3:].norm() < 5e-3 and left[:3].norm() < 1e-2


def test_a_scene_and_its_camera_may_turn_together():
    scene, camera = reference.cloud(60, 3, 0.1), reference.view((40, 40))
    motion = cameras.exponential(torch.tensor([0.5, -1.0, 2.0, 1.0, -0.7, 0.4]))
    turn = motion[:3, :3]
    rotations = torch.stack([quaternion(turn @ rotation) for rotation in matrix(scene.rotations)])
    turned = replace(scene, positions=scene.positions @ turn.mT + motion[:3, 3], rotations=rotations)
    seen = render(turned, camera.at(camera.pose @ cameras.inverse(motion)))
    torch.testing.assert_close(seen.colour, render(scene, camera).colour, atol=1e-4, rtol=0)


def test_harmonics_are_orthonormal():
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    values = harmonics.basis(directions, 3)
    torch.testing.assert_close(4 * torch.pi * values.mT @ values / len(values), torch.eye(16), atol=0.02, rtol=0)


def test_nothing_to_see_is_background():
    camera = reference.view((20, 30))
    nothing = reference.cloud(5)[torch.zeros(5, dtype=torch.bool)]
    behind = replace(reference.cloud(5), positions=reference.cloud(5).positions + camera.position - torch.tensor([0.0, 0.0, 9.0]))
    for scene in (nothing, behind):
        found = render(scene, camera, reference.BACKGROUND, median=True, normals=True)
        assert torch.equal(found.colour, reference.BACKGROUND.expand(20, 30, 3))
        assert not found.alpha.any() and torch.isfinite(found.depth).all()


def test_a_flat_splat_shows_its_normal():
    camera = Camera(torch.eye(4), torch.tensor([50.0, 50.0]), torch.tensor([16.0, 16.0]), (32, 32))
    flat = Gaussians(
        torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.5, 0.5, 0.001]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.ones(1),
        harmonics.of_colours(torch.ones(1, 3)),
    )  # fmt: skip
    found = render(flat, camera, normals=True)
    assert found.normal is not None
    torch.testing.assert_close(found.normal[16, 16], torch.tensor([0.0, 0.0, -1.0]))
    assert found.depth[16, 16] == pytest.approx(2.0, abs=1e-4)


def test_a_background_may_be_a_picture():
    camera, picture = reference.view((20, 30)), torch.rand(20, 30, 3)
    scene = reference.cloud(30)
    plain, before = render(scene, camera), render(scene, camera, picture)
    torch.testing.assert_close(before.colour, plain.colour + (1 - plain.alpha)[..., None] * picture)


def test_projection_is_gsplats():
    """An independent implementation of the same formulas, https://github.com/nerfstudio-project/gsplat. In float64: float32 itself
    is off by 1e-5 of a pixel's number."""
    gsplat = import_module("gsplat.cuda._torch_impl")
    scene, view = join([reference.cloud(200, 0, 0.1, degree=3), reference.cloud(200, 1, 0.3, degree=3)]), reference.view((40, 60))
    scene, camera = scene.to(torch.float64), Camera(view.pose.double(), view.focal.double(), view.centre.double(), view.size)
    intrinsics = torch.tensor([[camera.focal[0], 0, camera.centre[0]], [0, camera.focal[1], camera.centre[1]], [0, 0, 1.0]]).double()
    covariances, _ = gsplat._quat_scale_to_covar_preci(scene.rotations, scene.scales, True, False)
    placed = gsplat._fully_fused_projection(scene.positions, covariances, camera.pose[None], intrinsics[None], 60, 40)
    radii, means, depths, conics, _ = placed
    seen = (radii[0] > 0).all(-1)
    found = project(scene, camera)
    torch.testing.assert_close(found.means[seen], means[0][seen], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.depths[seen], depths[0][seen], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.conics[seen], conics[0][seen], rtol=1e-5, atol=1e-5)
    directions = torch.nn.functional.normalize(scene.positions - camera.position, dim=1)
    colours = (gsplat._spherical_harmonics(3, directions, scene.sh) + 0.5).clamp(min=0)
    torch.testing.assert_close(harmonics.colours(scene.sh, directions), colours, rtol=1e-5, atol=1e-5)


def test_a_frame_that_is_shown_exactly_has_no_loss():
    """Exposure counts: what is shown is made brighter before it is compared."""
    colour = torch.rand(12, 11, 3, generator=torch.Generator().manual_seed(0)) / 2
    shown = Rendered(colour, torch.ones(12, 11), torch.ones(12, 11))
    assert float(difference(shown, 1.25 * colour + 0.1, torch.ones(12, 11), torch.tensor([0.25, 0.1]))) == pytest.approx(0, abs=1e-6)
    assert float(difference(shown, colour, None, torch.tensor([0.25, 0.1]))) > 0.05


def test_gaussians_that_hide_all_behind_them_stay_finite_in_a_fit():
    camera = reference.view((16, 16))
    scene = replace(reference.cloud(20, 0, 0.2), opacities=torch.ones(20))
    pictures, depths = render(scene, camera).colour[None], torch.full((1, 16, 16), 3.0)
    path = cameras.CameraPath(camera.pose[None], camera.focal, camera.centre, camera.size)
    made = fit(scene, pictures, depths, path, torch.zeros(1, 2), 2).gaussians
    assert len(made) == 20 and all(part.isfinite().all() for part in (made.positions, made.opacities, made.sh))
    assert made.opacities.min() > 0.9


@pytest.mark.parametrize("unit", [0.1, 10.0])
def test_a_frame_brings_points_wherever_its_depth_is_known_in_any_unit(unit: float):
    """And what it brings can be seen: neither clear nor more than opaque, and no wider than its pixel."""
    camera = Camera(torch.eye(4), torch.tensor([20.0, 20.0]), torch.tensor([8.0, 6.0]), (12, 16))
    path = cameras.CameraPath(camera.pose[None], camera.focal, camera.centre, camera.size)
    depths = unit * (1 + torch.rand(1, 12, 16, generator=torch.Generator().manual_seed(0)))
    depths[0, :2] = 0
    made = grown(None, torch.rand(1, 12, 16, 3), depths, path, [0])
    assert len(made) == 10 * 16
    torch.testing.assert_close(made.positions[:, 2], depths[0, 2:].flatten())
    assert 0 < float(made.opacities.min()) <= float(made.opacities.max()) < 1
    assert float((made.scales / made.positions[:, 2:] * 20).max()) < 1
