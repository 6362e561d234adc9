"""Pixels whose first hits decide, without lamps: from Embree's hits to the picture in one pass.

So it is with scans: they are opaque, and shown unlit or by even light. What a hit needs of its face lies in one
cache line, and no array stands between a hit and its pixel. The pixels that need more (hair, glasses, the back of a
one-sided face) are left to ``mesh_kernels``. This is float32, which is faster; over there float64 stays, so that
synthetic people stay the same to the byte. The two agree within 1/255.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit

from humansplat.render.cpu_compositing import _exp2
from humansplat.render.mesh_kernels import OPAQUE, SceneArrays

LINE = 16  # 32-bit words of a face's record: a cache line
_AHEAD = 256  # rays
_DISPLAY_STEPS = np.float32(2048.0)  # for each unit of the square root of light; off by less than 0.1/255
# Places in a face's record, each counted in its own type (``FaceRecords``).
_DENSITY, _PIECE, _NORMALS, _SKY, _LABELS = 6, 8, 18, 27, 28

_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
_inlined = njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}, forceinline=True)

_ZERO, _HALF, _ONE, _TWO, _THREE = (np.float32(value) for value in (0.0, 0.5, 1.0, 2.0, 3.0))


class FaceRecords(NamedTuple):
    """A cache line for each face, ``[f, ...]`` seen as four types."""

    floats: np.ndarray
    """[f, 16] float32: texture coordinates of the corners 0-5, texels per metre 6."""
    ints: np.ndarray
    """[f, 16] int32: sRGB of the corners 0-2 as 0xBBGGRR where the piece has vertex colours; piece 8."""
    shorts: np.ndarray
    """[f, 32] int16: normals of the corners 18-26 and how much of the sky they see 27-29, times 32767."""
    bytes: np.ndarray
    """[f, 64] uint8: labels of the corners 28-30."""
    display: np.ndarray
    """float32, ``SceneArrays.display`` with an entry for each step, so that none need be interpolated."""
    solid: bool
    """Whether all texels are opaque."""


def pack_faces(scene: SceneArrays) -> FaceRecords:
    """Gather what the corners of each face need."""
    count = len(scene.faces)
    buffer = np.zeros((count + 1) * LINE, np.float32)
    skip = -buffer.ctypes.data % 64 // 4
    floats = buffer[skip : skip + count * LINE].reshape(count, LINE)
    coarse = np.linspace(0.0, 2.0, len(scene.display))
    display = np.interp(np.arange(2 * int(_DISPLAY_STEPS) + 1) / _DISPLAY_STEPS, coarse, scene.display)
    records = FaceRecords(
        floats=floats,
        ints=floats.view(np.int32),
        shorts=floats.view(np.int16),
        bytes=floats.view(np.uint8),
        display=display.astype(np.float32),
        solid=bool((scene.texels[:, 3] == 255).all()),
    )
    _fill_records(scene, records)
    return records


@_compiled
@no_type_check
def _fill_records(scene, records):
    for f in range(len(scene.faces)):
        piece = scene.face_piece[f]
        for i in range(3):
            v = scene.faces[f, i]
            if scene.colored[piece]:
                color = scene.vertex_colors[v]
                records.ints[f, i] = np.int32(color[0]) | np.int32(color[1]) << 8 | np.int32(color[2]) << 16
            else:
                records.floats[f, 2 * i] = scene.uvs[scene.uv_faces[f, i], 0]
                records.floats[f, 2 * i + 1] = scene.uvs[scene.uv_faces[f, i], 1]
            for k in range(3):
                records.shorts[f, _NORMALS + 3 * i + k] = np.int16(round(scene.normals[v, k] * 32767.0))
            records.shorts[f, _SKY + i] = np.int16(round(scene.occlusion[v] * 32767.0))
            records.bytes[f, _LABELS + i] = scene.labels[v]
        records.floats[f, _DENSITY] = scene.density[f]
        records.ints[f, _PIECE] = piece


@_inlined
@no_type_check
def _texel(texels, place, weight, srgb_to_linear, solid):
    """A texel's linear RGB, and its weight, by its alpha too unless all are opaque: see ``mesh_kernels``."""
    if not solid:
        weight *= np.float32(texels[place, 3]) + np.float32(1e-3)
    return (
        weight * srgb_to_linear[texels[place, 0]],
        weight * srgb_to_linear[texels[place, 1]],
        weight * srgb_to_linear[texels[place, 2]],
        weight,
    )


@_inlined
@no_type_check
def _texture(texels, offset, width, height, u, v, srgb_to_linear, solid):
    """Bilinear lookup with repetition, linear RGB."""
    x = (u - np.floor(u)) * np.float32(width) - _HALF
    y = (_ONE - (v - np.floor(v))) * np.float32(height) - _HALF
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    x0, y0 = np.int64(left), np.int64(top)
    x1, y1 = x0 + 1, y0 + 1
    if x0 < 0:
        x0 = width - 1
    if x1 >= width:
        x1 = 0
    if y0 < 0:
        y0 = height - 1
    if y1 >= height:
        y1 = 0
    upper, lower = offset + y0 * width, offset + y1 * width
    gx, gy = _ONE - fx, _ONE - fy
    r0, g0, b0, w0 = _texel(texels, np.uint64(upper + x0), gx * gy, srgb_to_linear, solid)
    r1, g1, b1, w1 = _texel(texels, np.uint64(upper + x1), fx * gy, srgb_to_linear, solid)
    r2, g2, b2, w2 = _texel(texels, np.uint64(lower + x0), gx * fy, srgb_to_linear, solid)
    r3, g3, b3, w3 = _texel(texels, np.uint64(lower + x1), fx * fy, srgb_to_linear, solid)
    if solid:
        return r0 + r1 + r2 + r3, g0 + g1 + g2 + g3, b0 + b1 + b2 + b3
    scale = _ONE / (w0 + w1 + w2 + w3)
    return (r0 + r1 + r2 + r3) * scale, (g0 + g1 + g2 + g3) * scale, (b0 + b1 + b2 + b3) * scale


@_inlined
@no_type_check
def _channel(a, b, c, shift, wa, wb, wc, srgb_to_linear):
    """One channel of three packed colours, interpolated and made linear."""
    value = (
        wa * np.float32((a >> shift) & 255) + wb * np.float32((b >> shift) & 255) + wc * np.float32((c >> shift) & 255)
    )
    low = min(max(np.int32(value), 0), 254)
    dark = srgb_to_linear[low]
    return dark + (value - np.float32(low)) * (srgb_to_linear[low + 1] - dark)


@_inlined
@no_type_check
def _display(value, curve):
    """Linear -> sRGB by the nearest entry of a fine table over the square root."""
    return curve[np.uint32(min(np.sqrt(max(value, _ZERO)), _TWO) * _DISPLAY_STEPS + _HALF)]


@_inlined
@no_type_check
def _sky(sh, k, x, y, z):
    """One channel of the surroundings' light by direction; see ``Lighting.environment``."""
    value = sh[0, k] + sh[1, k] * x + sh[2, k] * y + sh[3, k] * z + sh[4, k] * (x * y) + sh[5, k] * (y * z)
    return max(value + sh[6, k] * (_THREE * z * z - _ONE) + sh[7, k] * (x * z) + sh[8, k] * (x * x - y * y), _ZERO)


@_inlined
@no_type_check
def _gloss(sh, nx, ny, nz, vx, vy, vz, specular, roughness):
    """Light of the surroundings that a surface mirrors; see ``mesh_kernels._reflect_light``."""
    facing = max(-(nx * vx + ny * vy + nz * vz), _ZERO)
    smooth = _ONE - roughness
    falloff = _exp2(np.float32(-9.28) * facing)
    falloff = min(smooth * smooth, falloff) * smooth + np.float32(0.0425) - np.float32(0.0275) * roughness
    scale = np.float32(1.04) - np.float32(0.572) * roughness - np.float32(1.04) * falloff
    scale = specular * scale + np.float32(1.04) * falloff - np.float32(0.04) + np.float32(0.022) * roughness
    scale = max(scale, _ZERO)
    mirror = np.float32(2.0) * facing
    mx, my, mz = vx + mirror * nx, vy + mirror * ny, vz + mirror * nz
    return scale * _sky(sh, 0, mx, my, mz), scale * _sky(sh, 1, mx, my, mz), scale * _sky(sh, 2, mx, my, mz)


@_inlined
@no_type_check
def _mixed(shorts, f, place, step, wa, wb, wc):
    """A value of the three corners, by their weights."""
    second, third = np.float32(shorts[f, place + step]), np.float32(shorts[f, place + 2 * step])
    return wa * np.float32(shorts[f, place]) + wb * second + wc * third


@_compiled
@no_type_check
def shade_pixels(
    pixel_ids, samples, primitives, hit_u, hit_v, hit_t, hit_normals, directions,
    scene, records, light, footprint, rgba, parts, depths, normals,
):  # fmt: skip
    """Shade first hits and average the ``samples`` rays of each pixel into flat images.

    What the images hold: see ``mesh_kernels.resolve_pixels``. Returns which pixels have a ray that may go on behind
    its first hit; they are left as they were.
    """
    unfinished = np.zeros(len(pixel_ids), np.bool_)
    # numba counts the references of a record's arrays in the loop, but not those of plain variables.
    floats, ints, shorts, octets, display, solid = records
    environment, shaded = light.environment, light.shaded
    texels, levels, num_levels, colored, color = (
        scene.texels, scene.levels, scene.num_levels, scene.colored, scene.color,
    )  # fmt: skip
    alpha_mode, two_sided, specular, roughness = scene.alpha_mode, scene.two_sided, scene.specular, scene.roughness
    srgb_to_linear = scene.srgb_to_linear
    labels = np.empty(samples, np.int32)
    seen = np.empty((samples, 4), np.float32)  # depth and normal
    block = samples * max(_AHEAD // samples, 1)
    pieces = np.empty(block, np.int32)
    ahead = block - samples
    for i in range(len(pixel_ids)):
        first = i * samples
        ahead += samples
        if ahead == block:
            ahead = 0
            # Records are far apart in memory: asking for many before any is needed lets them arrive together.
            for ray in range(first, min(first + block, len(primitives))):
                if primitives[ray] >= 0:
                    pieces[ray - first] = ints[np.uint64(primitives[ray]), _PIECE]
        red, green, blue, nearest = _ZERO, _ZERO, _ZERO, np.float32(np.inf)
        total, sum_x, sum_y, sum_z, farthest = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
        hits, mixed = 0, np.int32(0)
        for s in range(samples):
            ray = np.uint64(first + s)
            f = primitives[ray]
            if f < 0:
                continue
            f = np.uint64(f)
            wb, wc, depth = hit_u[ray], hit_v[ray], hit_t[ray]
            wa = _ONE - wb - wc
            piece = np.uint64(pieces[ahead + s])
            dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
            back = hit_normals[ray, 0] * dx + hit_normals[ray, 1] * dy + hit_normals[ray, 2] * dz > _ZERO
            if alpha_mode[piece] != OPAQUE or (back and not two_sided[piece]):
                unfinished[i] = True
                break
            r, g, b = _ONE, _ONE, _ONE
            count = num_levels[piece]
            if count > 0:
                # The rounded binary logarithm, from the exponent's bits.
                spread = floats[f, _DENSITY] * footprint * depth * np.float32(1.41421356)
                level = (np.float32(spread).view(np.int32) >> 23) - 127
                level = np.uint64(min(max(level, 0), count - 1))
                u = wa * floats[f, 0] + wb * floats[f, 2] + wc * floats[f, 4]
                v = wa * floats[f, 1] + wb * floats[f, 3] + wc * floats[f, 5]
                offset, width, height = (
                    levels[piece, level, 0], levels[piece, level, 1], levels[piece, level, 2],
                )  # fmt: skip
                r, g, b = _texture(texels, offset, width, height, u, v, srgb_to_linear, solid)
            elif colored[piece]:
                p, q, t = ints[f, 0], ints[f, 1], ints[f, 2]
                r = _channel(p, q, t, 0, wa, wb, wc, srgb_to_linear)
                g = _channel(p, q, t, 8, wa, wb, wc, srgb_to_linear)
                b = _channel(p, q, t, 16, wa, wb, wc, srgb_to_linear)
            r *= color[piece, 0]
            g *= color[piece, 1]
            b *= color[piece, 2]

            nx = _mixed(shorts, f, _NORMALS, 3, wa, wb, wc)
            ny = _mixed(shorts, f, _NORMALS + 1, 3, wa, wb, wc)
            nz = _mixed(shorts, f, _NORMALS + 2, 3, wa, wb, wc)
            scale = _ONE / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-20))
            if back:
                scale = -scale
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            if shaded:
                r *= _sky(environment, 0, nx, ny, nz)
                g *= _sky(environment, 1, nx, ny, nz)
                b *= _sky(environment, 2, nx, ny, nz)
                if specular[piece] > _ZERO:
                    scale = _ONE / np.sqrt(dx * dx + dy * dy + dz * dz)
                    sr, sg, sb = _gloss(
                        environment, nx, ny, nz, dx * scale, dy * scale, dz * scale, specular[piece], roughness[piece]
                    )
                    r, g, b = r + sr, g + sg, b + sb
                open_sky = _mixed(shorts, f, _SKY, 1, wa, wb, wc) * np.float32(1.0 / 32767.0)
                r, g, b = r * open_sky, g * open_sky, b * open_sky
            red += _display(r, display)
            green += _display(g, display)
            blue += _display(b, display)
            heaviest = 0
            if wb > wa and wb >= wc:
                heaviest = 1
            elif wc > wa:
                heaviest = 2
            label = np.int32(octets[f, np.uint64(_LABELS + heaviest)])
            labels[hits] = label
            mixed |= label ^ labels[0]
            seen[hits, 0], seen[hits, 1], seen[hits, 2], seen[hits, 3] = depth, nx, ny, nz
            total, sum_x, sum_y, sum_z = total + depth, sum_x + nx, sum_y + ny, sum_z + nz
            nearest, farthest = min(nearest, depth), max(farthest, depth)
            hits += 1
        if hits == 0 or unfinished[i]:
            continue
        pixel = np.uint64(pixel_ids[i])
        scale = _ONE / np.float32(hits)
        rgba[0, pixel] = min(red * scale, _ONE)
        rgba[1, pixel] = min(green * scale, _ONE)
        rgba[2, pixel] = min(blue * scale, _ONE)
        rgba[3, pixel] = np.float32(hits) / np.float32(samples)
        parts[pixel] = labels[0] if mixed == 0 and hits == samples else _most_frequent(labels, hits, samples)
        limit, count = nearest + np.float32(0.05), hits
        if farthest >= limit:
            total, sum_x, sum_y, sum_z = _ZERO, _ZERO, _ZERO, _ZERO
            count = 0
            for s in range(hits):
                if seen[s, 0] < limit:
                    total += seen[s, 0]
                    sum_x += seen[s, 1]
                    sum_y += seen[s, 2]
                    sum_z += seen[s, 3]
                    count += 1
        depths[pixel] = total / np.float32(count)
        scale = _ONE / np.sqrt(sum_x * sum_x + sum_y * sum_y + sum_z * sum_z + np.float32(1e-20))
        normals[0, pixel] = sum_x * scale
        normals[1, pixel] = sum_y * scale
        normals[2, pixel] = sum_z * scale
    return unfinished


@_inlined
@no_type_check
def _most_frequent(labels, hits, samples):
    """The label with most votes; the missed samples vote for 0, which loses ties; else the lower number wins."""
    best, most = 0, samples - hits
    for s in range(hits):
        if labels[s] == 0:
            most += 1
    for s in range(hits):
        label = labels[s]
        if label == best or label == 0:
            continue
        votes = 0
        for t in range(hits):
            if labels[t] == label:
                votes += 1
        if votes > most or (votes == most and (best == 0 or label < best)):
            best, most = label, votes
    return best
