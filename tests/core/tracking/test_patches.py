"""Cameras and depth adjusted together."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from freesteer.core.geometry import cameras, trajectory
from freesteer.core.tracking import bundle, patches, residuals
from freesteer.core.tracking.tracking import between
from freesteer.playground.rooms import clips

SIZE, COUNT = (36, 48), 5


@pytest.fixture(scope="module")
def clip() -> clips.Clip:
    drawn = clips.draw("sideways", 24, SIZE)
    return clips.Clip(drawn.frames[:COUNT], drawn.depth[:COUNT], replace(drawn.path, poses=drawn.path.poses[:COUNT]))


def focal_of(clip: clips.Clip) -> float:
    return float(clip.path.focal[0]) / SIZE[1]


def state_of(clip: clips.Clip, depth: torch.Tensor, poses: torch.Tensor, inverse: bool) -> residuals.State:
    return replace(bundle.start(COUNT, focal_of(clip), depth, depth > 0, inverse), poses=poses, frames=depth.new_zeros(COUNT, 4))


@pytest.mark.parametrize("inverse", [False, True])
def test_slopes_are_those_of_the_cost(monkeypatch, clip, inverse):
    """The derivative of a picture is that over two pixels, not that of its interpolation, so it is the direction that has to be right."""
    monkeypatch.setattr(patches, "DEPTH_NOISE", 1e6)  # how the other frame's depth changes along the picture is left out
    depth = (1 / clip.depth if inverse else clip.depth).double()
    smooth = F.avg_pool2d(clip.frames.double().movedim(-1, 1), 5, 1, 2).movedim(1, -1)
    level = residuals.pyramid(smooth, depth, depth > 0)[-1]
    draw = torch.Generator().manual_seed(0)
    poses = cameras.exponential(0.01 * torch.randn(COUNT, 6, generator=draw, dtype=torch.float64)) @ clip.path.poses.double()
    state, patch = state_of(clip, depth, poses, inverse), patches._patch_of(level)
    pairs = [torch.tensor([pair for pair in between(range(COUNT), (1, 2)) if pair[0] == frame]) for frame in range(COUNT)]
    nothing = depth.new_zeros(COUNT, int(patch[-1]) + 1)

    def cost(change: torch.Tensor) -> float:
        return patches._equations(patches._changed(level, change, patch), state, pairs, patch).cost

    found, wanted = patches._equations(level, state, pairs, patch).more[2].slope, []
    some = range(0, nothing.shape[1], 7)
    for place in some:
        step = nothing.clone()
        step[2, place] = 1e-5
        wanted.append(cost(step) - cost(-step))
    assert torch.cosine_similarity(found[list(some)].float(), torch.tensor(wanted), dim=0) > 0.9


def test_eliminating_patches_gives_the_solution_of_all_equations():
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(30, 12, generator=draw, dtype=torch.float64)
    whole, slope = root.mT @ root, torch.randn(12, generator=draw, dtype=torch.float64)
    whole[8:, 8:] = whole[8:, 8:].diag().diag()  # four patches, which do not touch each other
    some = torch.tensor([1, 2, 3, 5, 7])  # of eight others, those that patches touch
    for other in {*range(8)} - {*some.tolist()}:
        whole[8:, other] = whole[other, 8:] = 0
    whole += 30 * torch.eye(12, dtype=torch.float64)
    own = patches._Patches(whole[8:, some], some, whole[8:, 8:].diag(), slope[8:])
    left, lower = whole[:8, :8].clone(), slope[:8].clone()
    patches.eliminate(left, lower, own)
    step = -torch.linalg.solve(left, lower)
    both = torch.cat([step, own.step(step)])
    torch.testing.assert_close(both, -torch.linalg.solve(whole, slope))


def test_cameras_that_bent_the_depth_are_mended_with_it():
    """A camera that turned by more than was found moves points as a slanted scene does: neither can be right without the other."""
    size, count = (72, 96), 8
    clip = clips.draw("arc", count, size)
    near, x = 1 / clip.depth, (torch.arange(size[1]) + 0.5) / size[1] - 0.5
    bent = near * (1 + 0.25 * x)
    turn = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.004, 0.0])
    poses = cameras.exponential(torch.arange(count)[:, None] * turn) @ clip.path.poses @ cameras.inverse(clip.path.poses[:1])
    state = replace(bundle.start(count, float(clip.path.focal[0]) / size[1], bent, bent > 0, inverse=True), poses=poses)
    state = replace(state, frames=torch.zeros_like(state.frames))
    pairs, held, free, left = between(range(count), (1, 2, 4)), state, state, bent
    for level in (-2, -1):
        held, _ = bundle.adjust(residuals.pyramid(clip.frames, bent, bent > 0)[level], held, pairs, range(count), 15, may=patches.MAY)
        free, factors, _ = patches.adjust_with_depth(residuals.pyramid(clip.frames, left, left > 0)[level], free, pairs, 15)
        left = left * F.interpolate(factors[:, None], size, mode="bilinear")[:, 0]

    def wrong(found: residuals.State) -> float:
        return trajectory.ate(cameras.inverse(found.poses)[:, :3, 3], clip.path.positions)

    def uneven(found: torch.Tensor) -> float:
        off = (found * clip.depth).log()
        return float((off - off.median()).abs().mean())

    assert wrong(free) < 0.5 * wrong(held) and uneven(left) < 0.6 * uneven(bent)
    assert torch.equal(free.poses[0], poses[0]) and not free.frames[:, :2].any()
