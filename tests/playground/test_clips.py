import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from freesteer.core.geometry.cameras import inverse
from freesteer.playground.rooms import clips
from freesteer.playground.rooms.furniture import SCENES
from freesteer.playground.rooms.ray_caster import Box, Plane, Scene, Sphere, Surface
from torch import Tensor


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are small: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


everywhere = pytest.mark.parametrize("kind", clips.KINDS)


@cache
def drawn(kind: str, seed: int = 0, frames: int = 24) -> clips.Clip:
    return clips.draw(kind, frames, seed=seed)


def scene_of(kind: str, seed: int = 0) -> Scene:
    """What `draw` shows, made as it makes it."""
    return SCENES[kind](torch.Generator().manual_seed(len(clips.KINDS) * seed + clips.KINDS.index(kind)))


def points_of(clip: clips.Clip, frame: int) -> Tensor:
    """(H, W, 3) in the world, from depth and camera alone."""
    height, width = clip.path.size
    x, y = torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy")
    z = clip.depth[frame]
    (fx, fy), (cx, cy) = clip.path.focal, clip.path.centre
    seen = torch.stack([(x - cx) / fx * z, (y - cy) / fy * z, z], -1)
    pose = inverse(clip.path.poses[frame])
    return seen @ pose[:3, :3].mT + pose[:3, 3]


def projected(clip: clips.Clip, frame: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (..., 2), x before y, and z-depths (...) of points in a frame."""
    pose = clip.path.poses[frame]
    seen = points @ pose[:3, :3].mT + pose[:3, 3]
    return seen[..., :2] / seen[..., 2:] * clip.path.focal + clip.path.centre, seen[..., 2]


def warped(clip: clips.Clip, source: int, target: int) -> tuple[Tensor, Tensor]:
    """The source frame as `target` would see it (H, W, 3), and where that is not hidden (H, W)."""
    height, width = clip.path.size
    pixels, depth = projected(clip, source, points_of(clip, target))
    grid = (pixels / torch.tensor([width, height]) * 2 - 1)[None]
    picture = torch.cat([clip.frames[source], clip.depth[source, ..., None]], -1).permute(2, 0, 1)[None]
    found = F.grid_sample(picture, grid, align_corners=False)[0].permute(1, 2, 0)
    inside = ((pixels > 0.5) & (pixels < torch.tensor([width, height]) - 0.5)).all(-1) & (depth > 0)
    return found[..., :3], inside & ((found[..., 3] - depth).abs() < 0.03 * depth)


def distance_to(surface: Surface, points: Tensor) -> Tensor:
    """Signed distance (...) of points (..., 3) from a surface, positive outside; not by rays, so that it can contradict them."""
    match surface:
        case Plane():
            return points @ surface.normal.to(points) - surface.offset
        case Sphere():
            return (points - surface.centre).norm(dim=-1) - surface.radius
        case Box():
            beyond = ((points - surface.centre) @ surface.turn.to(points).mT).abs() - surface.half
            return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


def encloses(surface: Surface) -> bool:
    return isinstance(surface, Sphere) and surface.radius > 3


@everywhere
def test_a_clip_has_the_promised_form(kind):
    clip = clips.draw(kind, 3, (40, 56))
    assert clip.frames.shape == (3, 40, 56, 3) and clip.depth.shape == (3, 40, 56) and clip.path.poses.shape == (3, 4, 4)
    assert clip.frames.dtype == clip.depth.dtype == clip.path.poses.dtype == torch.float32
    assert clip.frames.min() >= 0 and clip.frames.max() <= 1
    assert clip.path.size == (40, 56) and clip.path.centre.tolist() == [28, 20]
    assert 2 * math.degrees(math.atan(28 / float(clip.path.focal[0]))) == pytest.approx(clips.FIELD_OF_VIEW, abs=1e-3)
    rotation = clip.path.poses[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    assert (rotation.det() > 0).all()
    assert (rotation[:, 1, 1] > 0.5).all()  # the camera's down is the world's


@pytest.mark.parametrize("size", [(33, 47), (64, 48), (16, 90)])
def test_any_size_will_do(size):
    clip = clips.draw("orbit", 2, size)
    assert clip.frames.shape == (2, *size, 3) and clip.depth.isfinite().all() and clip.depth.min() > 0.5


def test_one_frame_is_a_clip_too():
    assert clips.draw("arc", 1, (24, 32)).frames.shape == (1, 24, 32, 3)


@pytest.mark.slow
@everywhere
def test_depth_is_finite_and_at_a_sensible_distance(kind):
    for seed in range(8):
        clip = clips.draw(kind, 4, (24, 32), seed)
        assert clip.depth.isfinite().all()
        assert clip.depth.min() > 1.4 and clip.depth.max() < 8.2
        assert clip.depth.max() / clip.depth.min() > 2


@everywhere
def test_every_point_seen_lies_on_a_surface_and_nothing_is_before_it(kind):
    clip, scene = drawn(kind), scene_of(kind)
    for frame in (0, 11, 23):
        points, start = points_of(clip, frame).double(), clip.path[frame].position.double()
        nearest = torch.stack([distance_to(s, points).abs() for s in scene.surfaces]).amin(0)
        assert nearest.max() < 2e-5
        between = start + torch.linspace(0, 0.995, 100)[:, None, None, None] * (points[::2, ::2] - start)
        for surface in scene.surfaces:
            side = -1 if encloses(surface) else 1
            assert (side * distance_to(surface, between)).min() > 0


def test_a_sphere_is_hit_where_the_circle_says():
    sphere = Sphere(torch.tensor([0.0, 0.0, 4.0]), 1.0, lambda points: points)
    along = torch.tensor([0.0, 0.1, 0.2, 0.3])
    rays = torch.stack([along, torch.zeros(4), torch.ones(4)], -1).double()
    a = along.double()
    expected = (4 - (16 - 15 * (1 + a**2)).sqrt()) / (1 + a**2)  # (a z)² + (z - 4)² = 1
    expected[3] = torch.inf  # 16 < 15 * 1.09
    torch.testing.assert_close(sphere.hit(torch.zeros(3).double(), rays), expected)
    inside = sphere.hit(torch.tensor([0.0, 0.0, 4.0]), torch.tensor([[0.0, 0.0, 2.0]]))
    assert inside.tolist() == [0.5]


def test_planes_and_boxes_are_hit_where_geometry_says():
    floor = Plane(torch.tensor([0.0, -1.0, 0.0]), 0.0, lambda points: points)
    eye = torch.tensor([0.0, -1.5, 0.0])
    assert floor.hit(eye, torch.tensor([[0.3, 0.5, 1.0], [0.0, -0.1, 1.0]])).tolist() == [3.0, math.inf]
    half = math.sqrt(0.5)
    turn = torch.tensor([[half, 0, half], [0, 1, 0], [-half, 0, half]])
    box = Box(torch.tensor([0.0, 0.0, 4.0]), torch.ones(3), turn, lambda points: points)  # an edge towards the eye
    rays = torch.tensor([[0.0001, 0.0, 1.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.1]])
    reach = box.hit(torch.zeros(3), rays)
    assert reach[0] == pytest.approx(4 - math.sqrt(2), abs=1e-3) and reach[1:].tolist() == [math.inf, math.inf]
    normals = box.normals(torch.tensor([[-half - 0.01, 0.0, 4 - half], [0.0, -1.0, 4.0]]))
    torch.testing.assert_close(normals, torch.tensor([[-half, 0, -half], [0, -1, 0]]))


@everywhere
def test_a_frame_warped_by_depth_and_poses_is_the_other_frame(kind):
    clip = drawn(kind)
    for source, target in ((3, 4), (12, 9), (20, 23)):
        picture, seen = warped(clip, source, target)
        assert seen.float().mean() > 0.6
        error = (picture - clip.frames[target]).abs().mean(-1)[seen]
        still = (clip.frames[source] - clip.frames[target]).abs().mean(-1)[seen]
        assert error.median() < 0.015
        assert still.median() > 4 * error.median()


@everywhere
def test_colour_and_depth_show_the_same_place_to_a_twentieth_of_a_pixel(kind):
    clip = drawn(kind)
    picture, seen = warped(clip, 10, 12)
    down, across = (torch.gradient(clip.frames[12], dim=d)[0][seen].flatten() for d in (0, 1))
    moved = torch.linalg.lstsq(torch.stack([across, down], -1), (picture - clip.frames[12])[seen].flatten()[:, None]).solution
    assert moved.abs().max() < 0.05


@pytest.mark.slow
@everywhere
def test_neighbouring_frames_move_by_a_few_pixels(kind):
    for seed in range(3):
        clip = clips.draw(kind, 24, (24, 32), seed)
        height, width = clip.path.size
        pixels = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), -1)
        motion = torch.stack([(projected(clip, f + 1, points_of(clip, f))[0] - pixels).norm(dim=-1) for f in range(23)]) * 128 / width
        assert motion.max() < 9.5
        assert motion.flatten(1).quantile(0.99, 1).max() < 8.5
        assert 0.6 < motion.flatten(1).median(1).values.median() < 5
        spread = motion.flatten(1).quantile(0.95, 1) - motion.flatten(1).quantile(0.05, 1)
        assert spread.median() > 1  # parallax


@everywhere
def test_there_is_something_to_see_everywhere(kind):
    clip = drawn(kind)
    patches = clip.frames[::6].permute(0, 3, 1, 2).unfold(2, 8, 8).unfold(3, 8, 8)
    contrast = patches.std((-1, -2)).amax(1).flatten()
    assert contrast.quantile(0.01) > 0.02 and contrast.median() > 0.06
    assert (clip.frames.amax(-1) < 0.02).float().mean() < 0.01 and (clip.frames.amin(-1) > 0.99).float().mean() < 0.01


@pytest.mark.slow
def test_96_pixels_are_enough_for_the_textures():
    """A picture of a quarter as many pixels as a fine one is the fine one made smaller, so nothing in it is alias."""
    for kind in clips.KINDS:
        coarse, fine = (clips.draw(kind, 1, size).frames[0].permute(2, 0, 1)[None] for size in ((72, 96), (288, 384)))
        error = (F.avg_pool2d(fine, 4) - coarse).abs()
        assert error.mean() < 0.005 and error.flatten().quantile(0.99) < 0.06


@everywhere
def test_a_seed_draws_the_same_clip_and_another_seed_another(kind):
    first, again, other = (clips.draw(kind, 3, (24, 32), seed) for seed in (4, 4, 5))
    assert torch.equal(first.frames, again.frames) and torch.equal(first.depth, again.depth)
    assert torch.equal(first.path.poses, again.path.poses)
    assert (first.frames - other.frames).abs().mean() > 0.05 and not torch.equal(first.depth, other.depth)


def test_more_frames_are_the_same_way_with_smaller_steps():
    for kind in clips.KINDS:
        few, many = clips.draw(kind, 3, (12, 16)), clips.draw(kind, 5, (12, 16))
        torch.testing.assert_close(many.path.poses[::2], few.path.poses, atol=1e-5, rtol=0)
        torch.testing.assert_close(many.depth[::2], few.depth, atol=1e-3, rtol=0)


def test_motions_are_what_their_names_say():
    ways = {kind: drawn(kind).path for kind in clips.KINDS}
    moved = {kind: way.positions[-1] - way.positions[0] for kind, way in ways.items()}
    assert moved["forward"][2] > 2 and moved["forward"][2] > 4 * moved["forward"][0].abs()
    assert moved["sideways"][0].abs() > 2 and moved["sideways"][2].abs() < 0.1
    assert moved["arc"][1] < -1  # up
    axis = ways["orbit"].poses[:, 2, :3]
    flat = F.normalize(axis[:, [0, 2]], dim=-1)
    assert math.degrees(math.acos(float(flat[0] @ flat[-1]))) == pytest.approx(120, abs=0.1)
    assert ways["arc"].poses[-1, 2, 1] > 0.6  # looks down
    jerk = {kind: way.positions.diff(n=3, dim=0).norm(dim=-1).mean() for kind, way in ways.items()}
    assert jerk["handheld"] > 4 * max(value for kind, value in jerk.items() if kind != "handheld")


def fit(truth: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, shift and relative residue of an affine fit, where the estimate has no hole."""
    whole = estimate > 0
    x, y = truth[whole], estimate[whole]
    scale, shift = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), y[:, None]).solution[:, 0]
    return scale, shift, (y - scale * x - shift) / (scale * x + shift)


def test_corrupted_depth_is_affine_in_the_true_one_up_to_the_noise():
    clip = drawn("orbit")
    _, clean = clips.corrupted(clip, noise=0, holes=0)
    scales, shifts, residues = zip(*(fit(t, e) for t, e in zip(clip.depth, clean, strict=True)), strict=True)
    assert torch.cat(residues).abs().max() < 1e-4
    scale, shift = torch.stack(scales), torch.stack(shifts)
    assert scale.min() > 0.49 and scale.max() < 2.01 and scale.max() / scale.min() > 2
    relative = shift / (scale * clip.depth.flatten(1).median(1).values)
    assert relative.abs().max() < 0.101 and relative.std() > 0.03
    _, rough = clips.corrupted(clip, holes=0)
    ratio = (rough / clean).log()
    assert ratio.std() == pytest.approx(0.05, rel=0.05)
    neighbours = (ratio[:, :, 1:] * ratio[:, :, :-1]).mean() / ratio.square().mean()
    assert 0.4 < neighbours < 0.52  # the smooth half


def test_corrupted_depth_is_positive_but_for_its_holes():
    for kind in clips.KINDS:
        _, depth = clips.corrupted(drawn(kind), seed=3, holes=0.02)
        missing = (depth == 0).flatten(1).float().mean(1)
        assert depth.min() == 0 and depth.isfinite().all()
        torch.testing.assert_close(missing, torch.full_like(missing, 0.02), atol=2e-3, rtol=0)
        hole = (depth == 0).float()
        assert (hole[:, :, 1:] * hole[:, :, :-1]).sum() > 0.5 * hole.sum()  # blots, not pixels
        assert (clips.corrupted(drawn(kind), holes=0)[1] > 0).all()


def test_exposure_drifts_smoothly_and_sensor_noise_is_slight():
    clip = drawn("sideways")
    frames, _ = clips.corrupted(clip, drift=0.05)
    assert frames.shape == clip.frames.shape and frames.min() >= 0 and frames.max() <= 1
    middle = (clip.frames > 0.1) & (clip.frames < 0.8)
    gain = torch.stack([(f[m] / t[m]).median() for f, t, m in zip(frames, clip.frames, middle, strict=True)])
    assert gain.log().abs().max() > 0.03 and gain.diff().abs().max() < 0.06
    noise = (frames - gain[:, None, None, None] * clip.frames)[middle]
    assert noise.std() == pytest.approx(clips.SENSOR, rel=0.1)
    still, _ = clips.corrupted(clip, drift=0)
    assert (still - clip.frames)[middle].mean().abs() < 1e-3


def test_corruption_repeats_by_its_seed_and_leaves_the_clip_alone():
    clip = drawn("forward")
    before = clip.frames.clone(), clip.depth.clone()
    first, again, other = (clips.corrupted(clip, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    assert torch.equal(clip.frames, before[0]) and torch.equal(clip.depth, before[1])
