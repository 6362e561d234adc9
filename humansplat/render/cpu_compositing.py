"""Kernels that composite the splats of each tile, forward and backward.

A row of a tile is 16 pixels, so that the innermost loops have a constant trip count, no branches and
one flat array of state, which LLVM turns into vector instructions. numba has no vectorised ``exp``
without Intel's SVML, therefore :func:`_exp2` is a polynomial. The kernels are serial and release the
interpreter's lock: ``cpu_rasterizer`` runs them on disjoint ranges of tiles from several threads, and
nothing is accumulated across tiles, so the result does not depend on the number of threads.
"""

from typing import no_type_check

import numpy as np

from humansplat.render.cpu_tiles import (
    BLUE,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    DEPTH,
    EXTENT_Y,
    GREEN,
    MIN_ALPHA,
    OPACITY,
    RED,
    TILE,
    X,
    Y,
    compiled,
    inlined,
)

MAX_ALPHA = np.float32(0.999)
MIN_TRANSMITTANCE = np.float32(1e-4)  # the splat that would bring a pixel to this or below ends it, unseen

NUM_GRADIENTS = 10  # of x y conic_xx conic_xy conic_yy opacity red green blue depth, in this order

_PIXELS = TILE * TILE
_LOG2_E = np.float32(1.4426950408889634)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)


@inlined
@no_type_check
def _exp2(power):
    """``2 ** power`` for ``power`` in ``[-126, 0]``, to 1e-7 relative.

    Taylor's polynomial of the remainder, and the integer part put into the exponent's bits.
    """
    whole = np.int32(power - _HALF)  # truncation towards zero: the remainder lies in [-0.5, 0.5]
    rest = power - np.float32(whole)
    value = np.float32(1.5403530e-4)
    value = value * rest + np.float32(1.3333558e-3)
    value = value * rest + np.float32(9.6181291e-3)
    value = value * rest + np.float32(5.5504109e-2)
    value = value * rest + np.float32(2.4022651e-1)
    value = value * rest + np.float32(6.9314718e-1)
    value = value * rest + _ONE
    return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
@no_type_check
def _rows(splat, top):
    """The rows of a tile that a splat can reach, as a half-open range."""
    first = np.int64(np.ceil(splat[Y] - splat[EXTENT_Y] - _HALF)) - top
    last = np.int64(np.floor(splat[Y] + splat[EXTENT_Y] - _HALF)) - top
    return max(first, 0), min(last + 1, TILE)


@compiled
@no_type_check
def composite(first_tile, last_tile, splats, offsets, members, tiles_x, colors, alphas, depths):
    """Composite a range of tiles, front to back.

    Args:
        first_tile: First tile of the range.
        last_tile: One past the last.
        splats: Projected splats, float32 ``[n, NUM_COLUMNS]``.
        offsets: From ``cpu_tiles.sort_into_tiles``.
        members: From ``cpu_tiles.sort_into_tiles``.
        tiles_x: Tiles in a row of the image.
        colors: Out, float32 ``[h, w, 3]``, premultiplied.
        alphas: Out, float32 ``[h, w]``.
        depths: Out, float32 ``[h, w]``, sum of depth times weight.
    """
    height, width = alphas.shape
    lanes = np.uint64(TILE)
    pixels = np.uint64(_PIXELS)
    # Transmittance (negated once the pixel is finished), red, green, blue, depth.
    state = np.empty(5 * _PIXELS, np.float32)
    for tile in range(first_tile, last_tile):
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        state[:_PIXELS] = -_ONE  # beyond the image
        state[_PIXELS:] = _ZERO
        for row in range(min(TILE, height - top)):
            state[row * TILE : row * TILE + min(TILE, width - left)] = _ONE
        for k in range(offsets[tile], offsets[tile + 1]):
            splat = splats[members[k]]
            half_xx = _HALF * splat[CONIC_XX]
            xy = splat[CONIC_XY]
            half_yy = _HALF * splat[CONIC_YY]
            opacity = splat[OPACITY]
            red, green, blue, depth = splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH]
            offset_x = splat[X] - np.float32(left) - _HALF
            offset_y = splat[Y] - np.float32(top) - _HALF
            row0, row1 = _rows(splat, top)
            for row in range(row0, row1):
                base = np.uint64(row * TILE)
                dy = offset_y - np.float32(row)
                constant = half_yy * dy * dy
                linear = xy * dy
                for lane in range(lanes):
                    i = base + lane
                    dx = offset_x - np.float32(np.int32(lane))
                    sigma = (half_xx * dx + linear) * dx + constant
                    # Past 8 the alpha is below the threshold for any opacity; the clamp keeps exp2 in range.
                    bounded = sigma if sigma < np.float32(8.0) else np.float32(8.0)
                    alpha = opacity * _exp2(-_LOG2_E * bounded)
                    alpha = alpha if alpha < MAX_ALPHA else MAX_ALPHA
                    seen = (sigma >= _ZERO) & (alpha >= MIN_ALPHA)
                    alpha = alpha if seen else _ZERO
                    before = state[i]
                    after = before * (_ONE - alpha)
                    open_ = after > MIN_TRANSMITTANCE
                    weight = alpha * before if open_ else _ZERO
                    state[i] = after if open_ else -abs(before)
                    state[i + pixels] += weight * red
                    state[i + np.uint64(2) * pixels] += weight * green
                    state[i + np.uint64(3) * pixels] += weight * blue
                    state[i + np.uint64(4) * pixels] += weight * depth
            if k & 15 == 15 and state[:_PIXELS].max() < _ZERO:
                break
        for row in range(min(TILE, height - top)):
            for lane in range(min(TILE, width - left)):
                i = row * TILE + lane
                y, x = top + row, left + lane
                alphas[y, x] = _ONE - abs(state[i])
                colors[y, x, 0] = state[_PIXELS + i]
                colors[y, x, 1] = state[2 * _PIXELS + i]
                colors[y, x, 2] = state[3 * _PIXELS + i]
                depths[y, x] = state[4 * _PIXELS + i]


@inlined
@no_type_check
def _write_share(splat, sums, offset_x, share):
    """Turn the sums over a tile's columns of pixels into the gradients of a splat.

    ``sums`` holds, per column, ``v_sigma``, its first and second moments in ``dy``, and the gradients
    of colour and depth; ``dx`` is constant within a column.
    """
    total, with_x, with_y, with_xx, with_xy, with_yy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    for lane in range(TILE):
        dx = offset_x - np.float32(lane)
        total += sums[lane]
        with_x += sums[lane] * dx
        with_y += sums[TILE + lane]
        with_xx += sums[lane] * dx * dx
        with_xy += sums[TILE + lane] * dx
        with_yy += sums[2 * TILE + lane]
        for channel in range(4):
            share[6 + channel] += sums[(3 + channel) * TILE + lane]
    share[0] = splat[CONIC_XX] * with_x + splat[CONIC_XY] * with_y
    share[1] = splat[CONIC_XY] * with_x + splat[CONIC_YY] * with_y
    share[2] = _HALF * with_xx
    share[3] = with_xy
    share[4] = _HALF * with_yy
    share[5] = -total / splat[OPACITY]


@compiled
@no_type_check
def composite_backward(first_tile, last_tile, splats, offsets, members, tiles_x, v_image, shares):
    """Gradients of :func:`composite` for a range of tiles.

    Goes front to back like the forward pass, so that the transmittances are the very same numbers:
    with ``g`` a splat's outputs times the pixel's gradients, ``dL / dalpha = T g - behind / (1 - alpha)``,
    where ``behind`` is the pixel's total minus what has been composited so far.

    Args:
        first_tile: First tile of the range.
        last_tile: One past the last.
        splats: Projected splats, float32 ``[n, NUM_COLUMNS]``.
        offsets: From ``cpu_tiles.sort_into_tiles``.
        members: From ``cpu_tiles.sort_into_tiles``.
        tiles_x: Tiles in a row of the image.
        v_image: Float32 ``[5, h, w]``: gradients of red, green, blue and depth, and the total: the
            outputs times these gradients, plus final transmittance times its gradient.
        shares: Out, float32 ``[len(members), NUM_GRADIENTS]``, each splat's gradient in each tile.
    """
    height, width = v_image.shape[1:]
    lanes = np.uint64(TILE)
    pixels = np.uint64(_PIXELS)
    # Open transmittance, what is still behind, gradients of red, green, blue and depth.
    state = np.empty(6 * _PIXELS, np.float32)
    sums = np.empty(7 * TILE, np.float32)
    for tile in range(first_tile, last_tile):
        left, top = tile % tiles_x * TILE, tile // tiles_x * TILE
        state[:] = _ZERO
        for row in range(min(TILE, height - top)):
            for lane in range(min(TILE, width - left)):
                i = row * TILE + lane
                state[i] = _ONE
                state[_PIXELS + i] = v_image[4, top + row, left + lane]
                for channel in range(4):
                    state[(2 + channel) * _PIXELS + i] = v_image[channel, top + row, left + lane]
        finished = False
        for k in range(offsets[tile], offsets[tile + 1]):
            shares[k] = _ZERO
            if finished:
                continue
            splat = splats[members[k]]
            half_xx = _HALF * splat[CONIC_XX]
            xy = splat[CONIC_XY]
            half_yy = _HALF * splat[CONIC_YY]
            opacity = splat[OPACITY]
            red, green, blue, depth = splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH]
            offset_x = splat[X] - np.float32(left) - _HALF
            offset_y = splat[Y] - np.float32(top) - _HALF
            row0, row1 = _rows(splat, top)
            sums[:] = _ZERO
            for row in range(row0, row1):
                base = np.uint64(row * TILE)
                dy = offset_y - np.float32(row)
                constant = half_yy * dy * dy
                linear = xy * dy
                for lane in range(lanes):
                    i = base + lane
                    dx = offset_x - np.float32(np.int32(lane))
                    sigma = (half_xx * dx + linear) * dx + constant
                    bounded = sigma if sigma < np.float32(8.0) else np.float32(8.0)
                    raw = opacity * _exp2(-_LOG2_E * bounded)
                    alpha = raw if raw < MAX_ALPHA else MAX_ALPHA
                    seen = (sigma >= _ZERO) & (alpha >= MIN_ALPHA)
                    alpha = alpha if seen else _ZERO
                    before = state[i]
                    after = before * (_ONE - alpha)
                    open_ = after > MIN_TRANSMITTANCE
                    weight = alpha * before if open_ else _ZERO
                    state[i] = after if open_ else _ZERO
                    v_red = state[i + np.uint64(2) * pixels]
                    v_green = state[i + np.uint64(3) * pixels]
                    v_blue = state[i + np.uint64(4) * pixels]
                    v_depth = state[i + np.uint64(5) * pixels]
                    gain = red * v_red + green * v_green + blue * v_blue + depth * v_depth
                    behind = state[i + pixels] - weight * gain
                    state[i + pixels] = behind
                    v_alpha = before * gain - behind / (_ONE - alpha)
                    # Past the ceiling the opacity and the shape have no influence.
                    v_sigma = -alpha * v_alpha if open_ & (raw <= MAX_ALPHA) else _ZERO
                    sums[lane] += v_sigma
                    sums[lane + lanes] += v_sigma * dy
                    sums[lane + np.uint64(2) * lanes] += v_sigma * dy * dy
                    sums[lane + np.uint64(3) * lanes] += weight * v_red
                    sums[lane + np.uint64(4) * lanes] += weight * v_green
                    sums[lane + np.uint64(5) * lanes] += weight * v_blue
                    sums[lane + np.uint64(6) * lanes] += weight * v_depth
            _write_share(splat, sums, offset_x, shares[k])
            finished = k & 15 == 15 and state[:_PIXELS].max() == _ZERO


@compiled
@no_type_check
def add_shares(shares, members, gradients):
    """Add every splat's shares of all tiles into ``gradients [n, NUM_GRADIENTS]``, in the order of tiles."""
    for k in range(members.shape[0]):
        splat = members[k]
        for column in range(NUM_GRADIENTS):
            gradients[splat, column] += shares[k, column]
