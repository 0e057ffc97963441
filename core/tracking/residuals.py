"""The two residuals of direct alignment, in units of their noise, with all of their derivatives.

Of a pixel x of the reference frame i, with depth z_i, that is seen at u in the target frame j, where it is Z away and z_j(u) is given:

    picture  (1 + g_j) I_j(u) + h_j - (1 + g_i) I_i(x) - h_i        depth  log(Z / z_j(u))

(Engel et al. 2016, Direct Sparse Odometry, arXiv 1607.02565; of depth, as Kerl et al. 2013, Dense Visual SLAM for RGB-D Cameras.)
Both sides of a residual are noisy, and what makes a frame flatter or greyer makes its noise smaller too: so residuals are counted in
units of their noise, which depends on the parameters (orthogonal regression, Deming 1943). Without, every frame comes out a little too
flat, and the scene shrinks along the way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .state import FOCAL, GAIN, LOG_SCALE, OFFSET, PER_FRAME, POSE, SHIFT, State
from .warp import Warp

PICTURE_NOISE = 0.035  # of white: a difference of pictures where Cauchy's weight is a half
DEPTH_NOISE = 0.07  # log: the same for a difference of depths
NOISE_RANGE = 2.0  # the noise of a depth, relative to it, is at most so many times what was given, and at least the inverse of that
PER_PAIR = 2 * PER_FRAME + 1  # columns: the reference frame's parameters, the target's, the focal length
TARGET = PER_FRAME  # the first of the target's columns


class Residual(NamedTuple):
    """Of P pairs at N pixels, in units of its noise. value: (P, N); its partial derivatives: by the place in the target frame, pixels,
    (P, N, 2); by the depth of the transformed point, (P, N); and by parameters themselves, at columns of the Jacobian, (P, N) each."""

    value: Tensor
    by_place: Tensor
    by_depth: Tensor
    by_parameter: dict[int, Tensor]


def picture_difference(state: State, pairs: Tensor, warped: Warp) -> Tensor:
    """(P, N), in grey."""
    (gain, target_gain), (offset, target_offset) = (values[pairs].T[..., None] for values in (state.gain, state.offset))
    return (1 + target_gain) * warped.target_grey + target_offset - (1 + gain) * warped.grey - offset


def depth_difference(warped: Warp) -> Tensor:
    """(P, N), log; 0 where not seen."""
    return torch.where(warped.seen, (warped.depth / warped.target_depth).log(), 0)


def picture_residual(state: State, pairs: Tensor, warped: Warp) -> Residual:
    """Its noise is PICTURE_NOISE times the root of the mean square of both frames' 1 + gain: variances add."""
    gain, target_gain = (1 + state.gain[pairs]).T[..., None]
    square = (gain.square() + target_gain.square()) / 2
    unit = PICTURE_NOISE * square.sqrt()
    value = picture_difference(state, pairs, warped) / unit
    by_place = (target_gain / unit)[..., None] * warped.grey_by_place
    one = torch.ones_like(value)
    return Residual(value, by_place, torch.zeros_like(value), {
        GAIN: -warped.grey / unit - value * gain / (2 * square), OFFSET: -one / unit,
        TARGET + GAIN: warped.target_grey / unit - value * target_gain / (2 * square), TARGET + OFFSET: one / unit,
    })  # fmt: skip


def depth_residual(state: State, pairs: Tensor, warped: Warp) -> Residual:
    """Its noise is DEPTH_NOISE times the root of the mean square of both depths' relative noises."""
    reference, target = pairs.unbind(1)
    noise, noise_by_log, noise_by_shift = relative_noise(state, reference, warped.given, warped.points[..., 2])
    given, depth = warped.target_given.value, warped.target_depth
    target_noise, target_noise_by_log, target_noise_by_shift = relative_noise(state, target, given, depth)
    square = (noise.square() + target_noise.square()) / 2
    unit = DEPTH_NOISE * square.sqrt()
    value = depth_difference(warped) / unit
    by_noise, by_target_noise = (-value * each / (2 * square) for each in (noise, target_noise))
    by_log, by_shift = (each / depth for each in depth_derivatives(state, target, given, depth))
    target_log = by_target_noise * target_noise_by_log - by_log / unit
    log_by_place = warped.given_by_place / given.clamp(min=1e-6 * state.unit)[..., None]
    return Residual(value, target_log[..., None] * log_by_place, 1 / (warped.depth * unit), {
        LOG_SCALE: by_noise * noise_by_log, SHIFT: by_noise * noise_by_shift,
        TARGET + LOG_SCALE: target_log, TARGET + SHIFT: by_target_noise * target_noise_by_shift - by_shift / unit,
    })  # fmt: skip


def relative_noise(state: State, frames: Tensor, given: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The noise of depths (P, N), relative to them, over that of what was given, within NOISE_RANGE: a shift adds to a depth but not to
    its noise. And its derivatives by the log scale (or the logarithm of what was given, which is the same) and by the shift."""
    value = (1 / depth if state.inverse else depth).clamp(min=1e-6 * state.unit)
    whole = state.log_scale[frames].exp()[:, None] * given / value
    noise = whole.clamp(1 / NOISE_RANGE, NOISE_RANGE)
    within = whole == noise
    return noise, within * noise * (1 - noise), within * noise * -state.unit / value


def depth_derivatives(state: State, frames: Tensor, given: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Of depths (P, N) of frames (P,), by the log scale and by the shift."""
    outer = -depth.square() if state.inverse else torch.ones_like(depth)
    return outer * state.log_scale[frames].exp()[:, None] * given, outer * state.unit


def jacobian(state: State, pairs: Tensor, warped: Warp, residual: Residual) -> Tensor:
    """Derivatives of a residual by all parameters of both frames, as `retract` adds them, and the focal length's: (P, PER_PAIR, N)."""
    transformed, depth, focal = warped.transformed, warped.depth, warped.focal
    ray = transformed[..., :2] / depth[..., None]
    by_focal = focal * (residual.by_place * ray).sum(-1)  # by its logarithm, of the target camera alone
    by_transformed = torch.cat([focal * residual.by_place, (residual.by_depth * depth - by_focal)[..., None]], -1) / depth[..., None]
    by_point = by_transformed @ warped.rotation
    by_z = (by_point * warped.rays).sum(-1)
    by_log_scale, by_shift = depth_derivatives(state, pairs[:, 0], warped.given, warped.points[..., 2])
    whole = transformed.new_zeros(len(pairs), PER_PAIR, depth.shape[1])
    whole[:, POSE] = torch.cat([-by_point, -torch.linalg.cross(warped.points, by_point)], -1).mT
    whole[:, LOG_SCALE], whole[:, SHIFT] = by_z * by_log_scale, by_z * by_shift
    whole[:, TARGET : TARGET + POSE.stop] = torch.cat([by_transformed, torch.linalg.cross(transformed, by_transformed)], -1).mT
    whole[:, FOCAL] = by_focal - (by_point[..., :2] * warped.points[..., :2]).sum(-1)
    for column, value in residual.by_parameter.items():
        whole[:, column] += value
    return whole
