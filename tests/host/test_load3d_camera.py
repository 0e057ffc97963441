# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
# The host leaves the types of its nodes open.
"""Our cameras and the host's: what one sees at a pixel, the other sees there too."""

import math

import pytest
import torch
from freesteer.core.geometry import cameras
from freesteer.core.geometry.cameras import Camera
from freesteer.core.splats import harmonics
from freesteer.core.splats.gaussians import Gaussians
from freesteer.core.splats.rasteriser import render
from freesteer.host import load3d_camera

SIZES = [(96, 128), (128, 80), (96, 96)]  # height, width
PLACES = torch.tensor([[0.0, 0.0, 3.0], [0.5, -0.3, 2.5], [-0.6, 0.5, 4.0]])  # in the camera's frame


def pose(seed: int) -> torch.Tensor:
    """Any: turned by up to a radian and a half, rolled too, away from the origin."""
    return cameras.exponential(torch.randn(6, generator=torch.Generator().manual_seed(seed)) * 0.9)


def host():
    return pytest.importorskip("comfy_extras.nodes_gaussian_splat", reason="this host has no splats yet")


def created(mode: dict, **more: float) -> dict:
    """What Create Camera Info gives."""
    given = {"target_x": 0.2, "target_y": 0.5, "target_z": -0.3, "roll": 0.0, "fov": 50.0, **more}
    return host().CreateCameraInfo.execute(mode, **given).result[0]


def middle(brightness: torch.Tensor) -> torch.Tensor:
    """The centroid x, y of a picture (H, W), in whole pixels from 0."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in brightness.shape), indexing="ij")
    weight = brightness.double() / brightness.double().sum()
    return torch.stack([(weight * columns).sum(), (weight * rows).sum()])


def seen_by_host(scene: Gaussians, info: dict, size: tuple[int, int]) -> torch.Tensor:
    nodes = host()
    from comfy_api.latest import Types

    parts = (scene.positions, scene.scales, scene.rotations, scene.opacities[:, None], scene.sh)
    splat = Types.SPLAT(*(part[None] for part in parts))
    options = {"frames": 1, "splat_scale": 1.0, "sharpen": 1.0, "headlight_shading": 0.0, "opacity_threshold": 0.0}
    shown = nodes.RenderSplat.execute(
        splat, size[1], size[0], **options, background="#000000", render_style="color", camera_info=info
    )  # fmt: skip
    return shown.result[1][0]


def speck(place: torch.Tensor, camera: Camera) -> Gaussians:
    """A Gaussian at a place in the camera's frame, (3,): 1.5 pixels wide, for the host does not smooth what is smaller than one."""
    position = cameras.inverse(camera.pose)[:3] @ torch.cat([place, torch.ones(1)])
    scales = (1.5 * place[2] / camera.focal[0]).expand(1, 3)
    turned = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return Gaussians(position[None], scales, turned, torch.tensor([0.9]), harmonics.of_colours(torch.ones(1, 3)))


def assert_seen_alike(camera: Camera, info: dict) -> None:
    """In the host a pixel's middle is at a whole number, so that all lies half a pixel further right and down."""
    for place in PLACES:
        scene = speck(place, camera)
        ours = render(scene, camera).alpha
        assert ours.max() > 0.5
        off = middle(seen_by_host(scene, info, camera.size)) - middle(ours)
        torch.testing.assert_close(off, torch.full((2,), 0.5).double(), atol=0.06, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_the_host_sees_what_our_camera_sees(size, seed):
    camera = cameras.from_field_of_view(pose(seed), 50, size)
    assert_seen_alike(camera, load3d_camera.to_host(camera))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ({"mode": "orbit", "yaw": 35.0, "pitch": 30.0, "distance": 3.0}, {}),
        ({"mode": "orbit", "yaw": -120.0, "pitch": -40.0, "distance": 3.0}, {"roll": 25.0, "zoom": 1.5}),
        ({"mode": "look_at", "position_x": 2.0, "position_y": -1.0, "position_z": 1.5}, {"fov": 70.0, "zoom": 0.8}),
        (
            {"mode": "quaternion", "position_x": 1.0, "position_y": 2.0, "position_z": 0.5,
             "quat_x": 0.3, "quat_y": -0.5, "quat_z": 0.2, "quat_w": 0.7}, {},
        ),
    ],
)  # fmt: skip
def test_our_camera_sees_what_the_host_sees(size, mode, more):
    info = created(mode, **more)
    assert_seen_alike(load3d_camera.from_host(info, size), info)


@pytest.mark.parametrize(
    ("position", "target"),
    [((2, -1, 1.5), (0.2, 0.5, -0.3)), ((0, 3, 0), (0, 0, 0)), ((1, -2, 1), (1, 2, 1)), ((1, 1, 1), (1, 1, 1)), ((0, 0, -4), (0, 0, 0))],
)
def test_without_a_quaternion_it_looks_at_its_target_as_the_host_does(position, target):
    info = {"position": dict(zip("xyz", position, strict=True)), "target": dict(zip("xyz", target, strict=True)), "zoom": 1}
    eye, _, *axes = host()._camera_basis(info, torch.device("cpu"))
    camera = load3d_camera.from_host(info, (60, 80))
    torch.testing.assert_close(camera.pose[:3, :3], torch.stack(axes), atol=1e-5, rtol=0)
    torch.testing.assert_close(camera.position, eye, atol=1e-5, rtol=0)
    assert camera.focal.tolist() == pytest.approx([30 / math.tan(math.radians(35) / 2)] * 2)  # the host's own field of view


@pytest.mark.parametrize("seed", range(8))
def test_there_and_back_it_is_the_same_camera(seed):
    camera = cameras.from_focal(pose(seed), 70.0, (60, 90))
    again = load3d_camera.from_host(load3d_camera.to_host(camera), camera.size)
    torch.testing.assert_close(again.pose, camera.pose, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.focal, camera.focal)
    torch.testing.assert_close(again.centre, camera.centre)
    assert again.size == camera.size


def test_of_two_focal_lengths_the_host_gets_the_geometric_mean():
    camera = cameras.Camera(pose(0), torch.tensor([90.0, 40.0]), torch.tensor([45.0, 30.0]), (60, 90))
    assert load3d_camera.to_host(camera)["fov"] == pytest.approx(math.degrees(2 * math.atan(30 / 60)))


def test_the_target_lies_straight_ahead():
    camera = cameras.from_focal(pose(0), 70.0, (60, 90))
    target = load3d_camera.to_host(camera, distance=2.5)["target"]
    ahead = camera.pose[:3, :3] @ torch.tensor([target["x"], -target["y"], -target["z"]]) + camera.pose[:3, 3]
    torch.testing.assert_close(ahead, torch.tensor([0.0, 0.0, 2.5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cameraType": "orthographic"}, "orthographic"),
        ({"fov": 180.0}, "180 degrees"),
        ({"fov": "wide"}, "'wide' for fov"),
        ({"zoom": float("nan")}, "'nan' for zoom"),
        ({"zoom": -1.0}, "zoom of -1"),
        ({"position": {"x": float("inf")}}, "'inf' for x"),
        ({"position": [1, 2, 3]}, "as its position"),
        ({"quaternion": {"w": None, "x": "?"}}, "'\\?' for x"),
    ],
)
def test_what_is_no_camera_of_ours_is_said_in_a_sentence(changed, said):
    info = load3d_camera.to_host(cameras.from_focal(pose(0), 70.0, (60, 90)))
    with pytest.raises(ValueError, match=said):
        load3d_camera.from_host({**info, **changed}, (60, 90))


def test_nothing_is_no_camera():
    with pytest.raises(ValueError, match="what came is NoneType"):
        load3d_camera.from_host(None, (60, 90))  # pyright: ignore[reportArgumentType]
