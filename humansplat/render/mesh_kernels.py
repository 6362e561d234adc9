"""The inner loops of the mesh renderer, compiled by numba.

The functions see plain arrays: ``humansplat.render.mesh_scene`` builds them and
``humansplat.render.meshes`` drives the rays.
"""

import math
from typing import NamedTuple, no_type_check  # the tests' shape checker must not wrap what numba compiles

import numpy as np
from numba import njit

OPAQUE, CUTOUT, BLEND = 0, 1, 2
MAX_LEVELS = 12


class SceneArrays(NamedTuple):
    """All pieces of a scene one after the other; ``m`` pieces."""

    faces: np.ndarray
    """[f, 3] int32."""
    face_piece: np.ndarray
    """[f] int32, the piece of each face."""
    uv_faces: np.ndarray
    """[f, 3] int32."""
    density: np.ndarray
    """[f] float32, texels per metre."""
    vertices: np.ndarray
    """[v, 3] float32, world frame, metres."""
    normals: np.ndarray
    """[v, 3] float32."""
    labels: np.ndarray
    """[v] uint8 as in part maps: 0 is background, label k is k + 1."""
    occlusion: np.ndarray
    """[v] float32, the share of the surroundings that a vertex sees."""
    shadows: np.ndarray
    """[l, v] float32, the share of each lamp that a vertex sees."""
    uvs: np.ndarray
    """[t, 2] float32."""
    vertex_colors: np.ndarray
    """[v, 3] uint8 sRGB; of length 1 when no piece has any."""
    texels: np.ndarray
    """[n, 4] uint8, every level of every texture."""
    levels: np.ndarray
    """[m, MAX_LEVELS, 3] int64: first texel, width and height of each level."""
    num_levels: np.ndarray
    """[m] int32; 0 without a texture."""
    colored: np.ndarray
    """[m] bool, whether the piece shows ``vertex_colors``."""
    alpha_mode: np.ndarray
    """[m] int32, one of OPAQUE, CUTOUT, BLEND."""
    two_sided: np.ndarray
    """[m] bool."""
    color: np.ndarray
    """[m, 3] float32."""
    specular: np.ndarray
    """[m] float32."""
    roughness: np.ndarray
    """[m] float32."""
    srgb_to_linear: np.ndarray
    """[256] float32."""
    display: np.ndarray
    """[n] float32, the display's curve by the square root of the light, which runs from 0 to 2."""


class LightArrays(NamedTuple):
    """A ``Lighting`` as numba sees it."""

    environment: np.ndarray
    directions: np.ndarray
    colors: np.ndarray
    shaded: bool


class RayState(NamedTuple):
    """What each ray has gathered so far."""

    reach: np.ndarray
    """[n] float32, distance travelled, in units of the direction: camera-frame depth."""
    through: np.ndarray
    """[n] float32, the share of the light behind that still passes."""
    face: np.ndarray
    """[n] int32, the face met last; -1 before the first."""
    color: np.ndarray
    """[n, 3] float32, premultiplied sRGB."""
    depth: np.ndarray
    """[n] float32, depth at which half the light is gone; 0 where it never is."""
    label: np.ndarray
    """[n] uint8, part number there."""
    normal: np.ndarray
    """[n, 3] float32, normal there, world frame."""


@njit(cache=True, nogil=True)
@no_type_check
def halve(image):
    """Average 2 x 2 texels, colours weighted by alpha so that what hides behind holes does not bleed out."""
    height, width = max(image.shape[0] // 2, 1), max(image.shape[1] // 2, 1)
    step_y, step_x = min(image.shape[0], 2), min(image.shape[1], 2)
    out = np.empty((height, width, 4), np.uint8)
    for i in range(height):
        for j in range(width):
            red = green = blue = weight = 0.0
            for y in range(i * step_y, i * step_y + step_y):
                for x in range(j * step_x, j * step_x + step_x):
                    alpha = float(image[y, x, 3]) + 1e-3
                    red += alpha * image[y, x, 0]
                    green += alpha * image[y, x, 1]
                    blue += alpha * image[y, x, 2]
                    weight += alpha
            out[i, j, 0] = int(red / weight + 0.5)
            out[i, j, 1] = int(green / weight + 0.5)
            out[i, j, 2] = int(blue / weight + 0.5)
            out[i, j, 3] = int(weight / (step_y * step_x) + 0.5)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def vertex_normals(vertices, faces):
    """Unit normals, the area-weighted mean of the faces around each vertex."""
    normals = np.zeros((len(vertices), 3), np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f]
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        normals[a] += normal
        normals[b] += normal
        normals[c] += normal
    for v in range(len(normals)):
        length = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 1e-20:
            normals[v] /= length
        else:
            normals[v, 1] = 1.0
    return normals


@njit(cache=True, nogil=True)
@no_type_check
def texel_density(vertices, faces, uvs, uv_faces, texels):
    """Texels per metre of each face; ``texels`` is the number of texels of the whole texture."""
    density = np.empty(len(faces), np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f]
        cross = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        area = math.sqrt(cross[0] ** 2 + cross[1] ** 2 + cross[2] ** 2)
        p, q, r = uv_faces[f]
        uv_area = abs(
            (uvs[q, 0] - uvs[p, 0]) * (uvs[r, 1] - uvs[p, 1]) - (uvs[r, 0] - uvs[p, 0]) * (uvs[q, 1] - uvs[p, 1])
        )
        density[f] = math.sqrt(uv_area * texels / max(area, 1e-12))
    return density


@njit(cache=True, nogil=True)
@no_type_check
def lamp_rays(normals, directions, softness, samples, out_directions, out_sides):
    """Rays from every vertex to points of every lamp's disc: ``out_directions [l, v, s, 3]``."""
    for l in range(len(directions)):  # noqa: E741
        w = directions[l]
        helper = np.array([0.0, 0.0, 1.0], np.float32) if abs(w[2]) < 0.9 else np.array([1.0, 0.0, 0.0], np.float32)
        u = np.cross(helper, w)
        u /= math.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
        v = np.cross(w, u)
        for p in range(len(normals)):
            phase = 2.399963 * ((p * 7919) % 104729)  # golden angle: neighbours sample other points of the disc
            lit = normals[p, 0] * w[0] + normals[p, 1] * w[1] + normals[p, 2] * w[2]
            out_sides[l, p] = 1.0 if lit >= 0 else -1.0
            for s in range(samples):
                radius = softness * math.sqrt((s + 0.5) / samples)
                x, y = radius * math.cos(phase + 2.399963 * s), radius * math.sin(phase + 2.399963 * s)
                for k in range(3):
                    out_directions[l, p, s, k] = w[k] + x * u[k] + y * v[k]


@njit(cache=True, nogil=True)
@no_type_check
def hemisphere_rays(normals, samples, out):
    """Cosine-distributed unit rays around every normal, ``out [v, s, 3]``; turned differently at every vertex."""
    for p in range(len(normals)):
        n = normals[p]
        sign = 1.0 if n[2] >= 0 else -1.0  # Duff et al. (JCGT 2017): a basis without a square root
        a = -1.0 / (sign + n[2])
        b = n[0] * n[1] * a
        phase = 2.399963 * ((p * 7919) % 104729)
        for s in range(samples):
            squared = (s + 0.5) / samples
            radius, height = math.sqrt(squared), math.sqrt(1.0 - squared)
            x, y = radius * math.cos(phase + 2.399963 * s), radius * math.sin(phase + 2.399963 * s)
            out[p, s, 0] = x * (1.0 + sign * n[0] * n[0] * a) + y * b + height * n[0]
            out[p, s, 1] = x * sign * b + y * (sign + n[1] * n[1] * a) + height * n[1]
            out[p, s, 2] = -x * sign * n[0] - y * n[1] + height * n[2]


@njit(cache=True, nogil=True)
@no_type_check
def fill_from_neighbors(values, faces, trusted):
    """Give vertices that are not trusted the mean of their trusted neighbours; they are trusted afterwards."""
    total = np.zeros_like(values)
    count = np.zeros(len(values), np.float32)
    for f in range(len(faces)):
        for i in range(3):
            here = faces[f, i]
            if trusted[here]:
                continue
            for j in range(1, 3):
                other = faces[f, (i + j) % 3]
                if trusted[other]:
                    total[here] += values[other]
                    count[here] += 1.0
    for v in range(len(values)):
        if count[v] > 0.0:
            values[v] = total[v] / count[v]
            trusted[v] = True


@njit(cache=True, nogil=True)
@no_type_check
def smooth_over_faces(values, faces):
    """One round of averaging over the neighbours of each vertex, ``values [v, k]``."""
    total = values.copy()
    weight = np.ones(len(values), np.float32)
    for f in range(len(faces)):
        for i in range(3):
            here = faces[f, i]
            for j in range(1, 3):
                total[here] += 0.5 * values[faces[f, (i + j) % 3]]
            weight[here] += 1.0
    return total / weight[:, None]


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _environment(sh, x, y, z, out):
    xy, yz, zz, xz, xx = x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y
    for k in range(3):
        value = sh[0, k] + sh[1, k] * x + sh[2, k] * y + sh[3, k] * z
        value += sh[4, k] * xy + sh[5, k] * yz + sh[6, k] * zz + sh[7, k] * xz + sh[8, k] * xx
        out[k] = max(value, 0.0)


@njit(cache=True, nogil=True)
@no_type_check
def _texture(texels, offset, width, height, u, v, srgb_to_linear, out):
    """Bilinear lookup with repetition; linear RGB and alpha into ``out``."""
    x = (u - math.floor(u)) * width - 0.5
    y = (1.0 - (v - math.floor(v))) * height - 0.5
    x0, y0 = int(math.floor(x)), int(math.floor(y))
    fx, fy = x - x0, y - y0
    red = green = blue = total = 0.0
    for dy in range(2):
        row = (y0 + dy) % height
        for dx in range(2):
            texel = texels[offset + row * width + (x0 + dx) % width]
            alpha = (fy if dy else 1.0 - fy) * (fx if dx else 1.0 - fx) * (texel[3] + 1e-3)
            red += alpha * srgb_to_linear[texel[0]]
            green += alpha * srgb_to_linear[texel[1]]
            blue += alpha * srgb_to_linear[texel[2]]
            total += alpha
    out[0], out[1], out[2] = red / total, green / total, blue / total
    out[3] = min(total / 255.0, 1.0)


@njit(cache=True, nogil=True)
@no_type_check
def _vertex_color(colors, a, b, c, weights, srgb_to_linear, out):
    """SRGB interpolated between three vertices, as linear RGB into ``out``."""
    for k in range(3):
        value = weights[0] * colors[a, k] + weights[1] * colors[b, k] + weights[2] * colors[c, k]
        low = min(max(int(value), 0), 254)
        out[k] = srgb_to_linear[low] + (value - low) * (srgb_to_linear[low + 1] - srgb_to_linear[low])


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _display(value, curve):
    """Linear -> sRGB by interpolation in a table over the square root, where the curve is nearly straight."""
    place = min(math.sqrt(value), 1.999) * (0.5 * (len(curve) - 1))
    index = int(place)
    return curve[index] + (place - index) * (curve[index + 1] - curve[index])


@njit(cache=True, nogil=True)
@no_type_check
def _reflect_light(light, normal, view, occlusion, shadows, a, b, c, weights, specular, roughness, diffuse, gloss):
    """Light that a white matt surface and the surface's gloss send towards the camera, linear RGB."""
    nx, ny, nz = normal
    facing = max(-(nx * view[0] + ny * view[1] + nz * view[2]), 0.0)
    open_sky = weights[0] * occlusion[a] + weights[1] * occlusion[b] + weights[2] * occlusion[c]
    _environment(light.environment, nx, ny, nz, diffuse)
    mirror = 2.0 * facing
    _environment(light.environment, view[0] + mirror * nx, view[1] + mirror * ny, view[2] + mirror * nz, gloss)
    mirrored = 0.0
    if specular > 0.0:  # Karis's fit to the share of a uniform environment that a rough surface mirrors (2014)
        smooth = 1.0 - roughness
        falloff = min(smooth * smooth, 2.0 ** (-9.28 * facing)) * smooth + 0.0425 - 0.0275 * roughness
        scale = 1.04 - 0.572 * roughness - 1.04 * falloff
        mirrored = open_sky * max(specular * scale + 1.04 * falloff - 0.04 + 0.022 * roughness, 0.0)
    for k in range(3):
        diffuse[k] *= open_sky
        gloss[k] *= mirrored
    exponent = 2.0 / max(roughness, 0.05) ** 4 - 1.999
    for lamp in range(len(light.directions)):
        lx, ly, lz = light.directions[lamp]
        lit = nx * lx + ny * ly + nz * lz
        visible = weights[0] * shadows[lamp, a] + weights[1] * shadows[lamp, b] + weights[2] * shadows[lamp, c]
        if lit <= 0.0 or visible <= 0.0:
            continue
        lit *= visible
        hx, hy, hz = lx - view[0], ly - view[1], lz - view[2]
        length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        highlight = 0.0
        if specular > 0.0:  # normalised Blinn-Phong with Schlick's Fresnel term
            aligned = max((nx * hx + ny * hy + nz * hz) / length, 0.0)
            toward = max(-(view[0] * hx + view[1] * hy + view[2] * hz) / length, 0.0)
            fresnel = specular + (1.0 - specular) * (1.0 - toward) ** 5
            highlight = fresnel * (exponent + 8.0) / 8.0 * aligned**exponent
        for k in range(3):
            diffuse[k] += lit * light.colors[lamp, k]
            gloss[k] += lit * highlight * light.colors[lamp, k]


@njit(cache=True, nogil=True)
@no_type_check
def shade_hits(scene, light, rays, primitives, hit_u, hit_v, hit_t, hit_normals, directions, footprint, last, state):
    """Shade one layer of hits and composite it behind what the rays have met already.

    ``rays [m]`` numbers the rays of this layer in ``directions`` and in the arrays of ``state``;
    ``footprint`` is the width of a sample at unit depth. On the last layer everything is opaque. Returns
    which rays go on.
    """
    goes_on = np.zeros(len(rays), np.bool_)
    texel = np.empty(4, np.float64)
    diffuse, gloss = np.ones(3, np.float64), np.zeros(3, np.float64)
    for m in range(len(rays)):
        f = primitives[m]
        if f < 0:
            continue
        ray = rays[m]
        piece = scene.face_piece[f]
        dx, dy, dz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        depth = state.reach[ray] + hit_t[m]
        # The next ray starts on this very surface: a step ahead would jump over the skin where a card of hair touches
        # it. Rounding may find the same face again, and only then is a step taken.
        if f == state.face[ray]:
            state.reach[ray] = depth * (1.0 + 3e-7) + 3e-7
            goes_on[m] = not last
            continue
        state.reach[ray] = depth
        state.face[ray] = f
        back = hit_normals[m, 0] * dx + hit_normals[m, 1] * dy + hit_normals[m, 2] * dz > 0.0
        if back and not scene.two_sided[piece]:
            goes_on[m] = not last
            continue

        weights = (1.0 - hit_u[m] - hit_v[m], hit_u[m], hit_v[m])
        alpha = 1.0
        texel[:3] = 1.0
        num_levels = scene.num_levels[piece]
        if num_levels > 0:
            level = int(math.log2(max(scene.density[f] * footprint * depth, 1e-6)) + 0.5)
            level = min(max(level, 0), num_levels - 1)
            p, q, r = scene.uv_faces[f]
            u = weights[0] * scene.uvs[p, 0] + weights[1] * scene.uvs[q, 0] + weights[2] * scene.uvs[r, 0]
            v = weights[0] * scene.uvs[p, 1] + weights[1] * scene.uvs[q, 1] + weights[2] * scene.uvs[r, 1]
            offset, width, height = scene.levels[piece, level]
            _texture(scene.texels, offset, width, height, u, v, scene.srgb_to_linear, texel)
            mode = scene.alpha_mode[piece]
            if mode == CUTOUT:
                alpha = 1.0 if texel[3] >= 0.5 else 0.0
            elif mode == BLEND:
                alpha = texel[3] if texel[3] < 0.98 else 1.0
            if alpha < 0.004:
                goes_on[m] = not last
                continue
        if last:
            alpha = 1.0

        a, b, c = scene.faces[f]
        if scene.colored[piece]:
            _vertex_color(scene.vertex_colors, a, b, c, weights, scene.srgb_to_linear, texel)
        nx = weights[0] * scene.normals[a, 0] + weights[1] * scene.normals[b, 0] + weights[2] * scene.normals[c, 0]
        ny = weights[0] * scene.normals[a, 1] + weights[1] * scene.normals[b, 1] + weights[2] * scene.normals[c, 1]
        nz = weights[0] * scene.normals[a, 2] + weights[1] * scene.normals[b, 2] + weights[2] * scene.normals[c, 2]
        scale = (-1.0 if back else 1.0) / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
        normal = (nx * scale, ny * scale, nz * scale)
        scale = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
        view = (dx * scale, dy * scale, dz * scale)
        if light.shaded:
            _reflect_light(
                light, normal, view, scene.occlusion, scene.shadows, a, b, c, weights,
                scene.specular[piece], scene.roughness[piece], diffuse, gloss,
            )  # fmt: skip
        arriving = alpha * state.through[ray]
        for k in range(3):
            value = texel[k] * scene.color[piece, k] * diffuse[k] + gloss[k]
            state.color[ray, k] += arriving * _display(value, scene.display)
        before = state.through[ray]
        state.through[ray] = before - arriving
        goes_on[m] = state.through[ray] > 0.01
        if not goes_on[m]:
            state.through[ray] = 0.0
        if before > 0.5 and state.through[ray] <= 0.5:
            state.depth[ray] = depth
            heaviest = a
            if weights[1] > weights[0] and weights[1] >= weights[2]:
                heaviest = b
            elif weights[2] > weights[0]:
                heaviest = c
            state.label[ray] = scene.labels[heaviest]
            for k in range(3):
                state.normal[ray, k] = normal[k]
    return goes_on


@njit(cache=True, nogil=True)
@no_type_check
def resolve_pixels(pixel_ids, samples, state, rgba, labels, depths, normals):
    """Average the samples of each pixel into flat images, planar: ``rgba [4, h * w]``, ``normals [3, h * w]``.

    Colour comes out as straight alpha. The label is the most frequent one (background counts, ties go to the
    lower part number other than it), depth and normal are means over the samples near the front-most surface.
    """
    votes = np.zeros(256, np.int32)
    for i in range(len(pixel_ids)):
        pixel = pixel_ids[i]
        covered, nearest = 0.0, np.inf
        red = green = blue = 0.0
        votes[:] = 0
        for ray in range(i * samples, (i + 1) * samples):
            covered += 1.0 - state.through[ray]
            red += state.color[ray, 0]
            green += state.color[ray, 1]
            blue += state.color[ray, 2]
            votes[state.label[ray]] += 1
            if state.depth[ray] > 0.0:
                nearest = min(nearest, state.depth[ray])
        if covered > 0.0:
            rgba[0, pixel] = min(red / covered, 1.0)
            rgba[1, pixel] = min(green / covered, 1.0)
            rgba[2, pixel] = min(blue / covered, 1.0)
            rgba[3, pixel] = covered / samples
        best = 0
        for label in range(1, 256):
            if votes[label] > 0 and (votes[label] > votes[best] or (best == 0 and votes[label] == votes[0])):
                best = label
        labels[pixel] = best
        total, count = 0.0, 0
        nx = ny = nz = 0.0
        for ray in range(i * samples, (i + 1) * samples):
            if state.depth[ray] > 0.0 and state.depth[ray] < nearest + 0.05:
                total += state.depth[ray]
                count += 1
                nx += state.normal[ray, 0]
                ny += state.normal[ray, 1]
                nz += state.normal[ray, 2]
        if count > 0:
            depths[pixel] = total / count
            scale = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
            normals[0, pixel], normals[1, pixel], normals[2, pixel] = nx * scale, ny * scale, nz * scale
