"""Kernels that project 3D Gaussians into an image, forward and backward.

The local affine approximation of Zwicker et al., "EWA splatting" (2002), as Kerbl et al. (2023) use it,
with the constants of gsplat 1.5: the ray's slope is clamped to 0.3 half fields of view outside the image
when the Jacobian is formed, and 0.3 square pixels are added to the variances.

With ``A`` the splat's axes in the camera frame, scaled by its standard deviations, the covariance in the
image is ``(J A) (J A)^T``: no 3 x 3 covariance is ever formed.
"""

import math
from typing import no_type_check

import numpy as np

from humansplat.render.cpu_tiles import (
    BLUE,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    DEPTH,
    EXTENT_X,
    EXTENT_Y,
    GREEN,
    MIN_ALPHA,
    OPACITY,
    RED,
    X,
    Y,
    compiled,
    inlined,
)

BLUR = np.float32(0.3)
_MARGIN = np.float32(0.3)  # of half the field of view
_HALF = np.float32(0.5)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)


@inlined
@no_type_check
def _rotate(quat, matrix):
    """Write the rotation matrix of a quaternion ``(w, x, y, z)``; return the inverse of its norm."""
    inverse = _ONE / math.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    matrix[0, 0] = _ONE - _TWO * (y * y + z * z)
    matrix[0, 1] = _TWO * (x * y - w * z)
    matrix[0, 2] = _TWO * (x * z + w * y)
    matrix[1, 0] = _TWO * (x * y + w * z)
    matrix[1, 1] = _ONE - _TWO * (x * x + z * z)
    matrix[1, 2] = _TWO * (y * z - w * x)
    matrix[2, 0] = _TWO * (x * z - w * y)
    matrix[2, 1] = _TWO * (y * z + w * x)
    matrix[2, 2] = _ONE - _TWO * (x * x + y * y)
    return inverse


@inlined
@no_type_check
def _unrotate(quat, inverse, v_matrix, v_quat):
    """Add the gradient of :func:`_rotate` to ``v_quat``."""
    w, x, y, z = quat[0] * inverse, quat[1] * inverse, quat[2] * inverse, quat[3] * inverse
    s01, d10 = v_matrix[0, 1] + v_matrix[1, 0], v_matrix[1, 0] - v_matrix[0, 1]
    s02, d02 = v_matrix[0, 2] + v_matrix[2, 0], v_matrix[0, 2] - v_matrix[2, 0]
    s12, d21 = v_matrix[1, 2] + v_matrix[2, 1], v_matrix[2, 1] - v_matrix[1, 2]
    t0, t1, t2 = v_matrix[0, 0], v_matrix[1, 1], v_matrix[2, 2]
    v_w = _TWO * (x * d21 + y * d02 + z * d10)
    v_x = _TWO * (y * s01 + z * s02 + w * d21) - _TWO * _TWO * x * (t1 + t2)
    v_y = _TWO * (x * s01 + z * s12 + w * d02) - _TWO * _TWO * y * (t0 + t2)
    v_z = _TWO * (x * s02 + y * s12 + w * d10) - _TWO * _TWO * z * (t0 + t1)
    along = w * v_w + x * v_x + y * v_y + z * v_z  # the length of the quaternion has no influence
    v_quat[0] += (v_w - along * w) * inverse
    v_quat[1] += (v_x - along * x) * inverse
    v_quat[2] += (v_y - along * y) * inverse
    v_quat[3] += (v_z - along * z) * inverse


@inlined
@no_type_check
def _clamped_slope(slope, focal, center, size):
    """Slope of a ray, clamped to the neighbourhood of the image, along one image axis."""
    margin = _MARGIN * _HALF * size / focal
    return min(max(slope, -(center / focal + margin)), (size - center) / focal + margin)


@inlined
@no_type_check
def _axes(view, rotation, scale, axes):
    """Write the splat's axes in the camera frame as columns, scaled by its standard deviations."""
    for i in range(3):
        for j in range(3):
            axes[i, j] = scale[j] * (
                view[i, 0] * rotation[0, j] + view[i, 1] * rotation[1, j] + view[i, 2] * rotation[2, j]
            )


@inlined
@no_type_check
def _flatten(lens, x, y, z, size, axes, flat):
    """Write ``J A``, the splat's axes in the image, ``[2, 3]`` pixels; return the clamped slopes."""
    slope_x = _clamped_slope(x / z, lens[0], lens[2], size[0])
    slope_y = _clamped_slope(y / z, lens[1], lens[3], size[1])
    for j in range(3):
        flat[0, j] = lens[0] / z * (axes[0, j] - slope_x * axes[2, j])
        flat[1, j] = lens[1] / z * (axes[1, j] - slope_y * axes[2, j])
    return slope_x, slope_y


@compiled
@no_type_check
def project(first, last, means, quats, scales, opacities, colors, view, lens, size, near, far, splats):
    """Project a range of splats.

    Args:
        first: First splat of the range.
        last: One past the last.
        means: Float32 ``[n, 3]``, world frame.
        quats: Float32 ``[n, 4]``.
        scales: Float32 ``[n, 3]``.
        opacities: Float32 ``[n]``.
        colors: Float32 ``[n, 3]``.
        view: World -> camera, float32 ``[4, 4]``.
        lens: ``fx, fy, cx, cy``, float32 ``[4]``, pixels.
        size: Width and height, float32 ``[2]``, pixels.
        near: Splats whose centre is nearer are dropped.
        far: Splats whose centre is farther are dropped.
        splats: Out, float32 ``[n, NUM_COLUMNS]``; a dropped splat has ``EXTENT_X == 0``.
    """
    rotation, axes = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    flat = np.empty((2, 3), np.float32)
    for n in range(first, last):
        out = splats[n]
        out[EXTENT_X] = _ZERO
        mean, opacity = means[n], opacities[n]
        z = view[2, 0] * mean[0] + view[2, 1] * mean[1] + view[2, 2] * mean[2] + view[2, 3]
        if not (near <= z <= far) or opacity < MIN_ALPHA:
            continue
        x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
        y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
        _rotate(quats[n], rotation)
        _axes(view, rotation, scales[n], axes)
        _flatten(lens, x, y, z, size, axes, flat)
        xx, xy, yy = BLUR, _ZERO, BLUR
        for j in range(3):
            xx += flat[0, j] * flat[0, j]
            xy += flat[0, j] * flat[1, j]
            yy += flat[1, j] * flat[1, j]
        determinant = xx * yy - xy * xy
        if not (_ZERO < determinant < np.float32(np.inf)):
            continue
        image_x, image_y = lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]
        # Beyond this many standard deviations the splat is below MIN_ALPHA; a little more, for rounding.
        reach = np.float32(1.001) * math.sqrt(_TWO * math.log(max(opacity / MIN_ALPHA, _ONE)))
        extent_x = reach * math.sqrt(xx) + np.float32(0.01)
        extent_y = reach * math.sqrt(yy) + np.float32(0.01)
        if not (-extent_x < image_x < size[0] + extent_x and -extent_y < image_y < size[1] + extent_y):
            continue
        out[X], out[Y], out[DEPTH] = image_x, image_y, z
        out[CONIC_XX], out[CONIC_XY], out[CONIC_YY] = yy / determinant, -xy / determinant, xx / determinant
        out[OPACITY], out[RED], out[GREEN], out[BLUE] = opacity, colors[n, 0], colors[n, 1], colors[n, 2]
        out[EXTENT_X], out[EXTENT_Y] = extent_x, extent_y


@compiled
@no_type_check
def project_backward(
    first, last, means, quats, scales, view, lens, size, splats, gradients,
    v_means, v_quats, v_scales, v_opacities, v_colors,
):  # fmt: skip
    """Add the gradients of :func:`project` for a range of splats; dropped splats get none.

    ``gradients`` is float32 ``[n, NUM_GRADIENTS]``, of ``cpu_compositing``; the other arguments are those
    of :func:`project`, and the accumulators have the shapes of the inputs.
    """
    rotation, v_rotation = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    axes, v_axes = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    flat, v_flat = np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
    for n in range(first, last):
        splat, given = splats[n], gradients[n]
        if splat[EXTENT_X] == _ZERO:
            continue
        mean, scale = means[n], scales[n]
        x = view[0, 0] * mean[0] + view[0, 1] * mean[1] + view[0, 2] * mean[2] + view[0, 3]
        y = view[1, 0] * mean[0] + view[1, 1] * mean[1] + view[1, 2] * mean[2] + view[1, 3]
        z = splat[DEPTH]
        inverse = _rotate(quats[n], rotation)
        _axes(view, rotation, scale, axes)
        slope_x, slope_y = _flatten(lens, x, y, z, size, axes, flat)

        # The conic is the inverse of the covariance: dL/dcov = -conic dL/dconic conic, both symmetric.
        a, b, c = splat[CONIC_XX], splat[CONIC_XY], splat[CONIC_YY]
        va, vb, vc = given[2], _HALF * given[3], given[4]
        v_xx = -(a * a * va + _TWO * a * b * vb + b * b * vc)
        v_xy = -(a * b * va + (a * c + b * b) * vb + b * c * vc)
        v_yy = -(b * b * va + _TWO * b * c * vb + c * c * vc)

        focal_x, focal_y = lens[0] / z, lens[1] / z
        v_slope_x, v_slope_y, v_log_focal = _ZERO, _ZERO, _ZERO
        for j in range(3):
            v_flat[0, j] = _TWO * (v_xx * flat[0, j] + v_xy * flat[1, j])
            v_flat[1, j] = _TWO * (v_xy * flat[0, j] + v_yy * flat[1, j])
            v_axes[0, j] = focal_x * v_flat[0, j]
            v_axes[1, j] = focal_y * v_flat[1, j]
            v_axes[2, j] = -slope_x * v_axes[0, j] - slope_y * v_axes[1, j]
            v_slope_x -= v_axes[0, j] * axes[2, j]
            v_slope_y -= v_axes[1, j] * axes[2, j]
            v_log_focal += v_flat[0, j] * flat[0, j] + v_flat[1, j] * flat[1, j]
        # A clamped slope does not follow the splat; its place in the image always does.
        v_slope_x = lens[0] * given[0] + (v_slope_x if slope_x == x / z else _ZERO)
        v_slope_y = lens[1] * given[1] + (v_slope_y if slope_y == y / z else _ZERO)
        v_x, v_y = v_slope_x / z, v_slope_y / z
        v_z = given[9] - (v_slope_x * x / z + v_slope_y * y / z + v_log_focal) / z

        for i in range(3):
            v_means[n, i] += view[0, i] * v_x + view[1, i] * v_y + view[2, i] * v_z
            for j in range(3):
                turned = view[0, i] * v_axes[0, j] + view[1, i] * v_axes[1, j] + view[2, i] * v_axes[2, j]
                v_scales[n, j] += turned * rotation[i, j]
                v_rotation[i, j] = turned * scale[j]
            v_colors[n, i] += given[6 + i]
        _unrotate(quats[n], inverse, v_rotation, v_quats[n])
        v_opacities[n] += given[5]
