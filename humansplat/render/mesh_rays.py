"""Which pixels of a picture can show the meshes, and the rays through them."""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

from humansplat.structures import Cameras

TILE = 8
CLUSTER = 8
FACES_A_VERTEX = 64
_NEAR = np.float32(1e-3)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_compiled = njit(cache=True, nogil=True, error_model="numpy")
_inlined = njit(nogil=True, error_model="numpy", forceinline=True)


def visible_pixels(
    vertices: Float32[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    spheres: Float32[np.ndarray, "4 n"],
    camera: Cameras,
) -> Int32[np.ndarray, " p"]:
    """Numbers (``row * width + column``) of the pixels near the faces, tile by tile.

    The rest of the picture is empty without asking Embree.

    Args:
        vertices: World frame, metres.
        faces: Vertex indices.
        spheres: See :func:`bounding_spheres`.
        camera: Without batch axes.
    """
    viewmat, K = camera.viewmats.detach().cpu().double().numpy(), camera.Ks.detach().cpu().double().numpy()
    tile_from_pixel = np.diag([1.0 / TILE, 1.0 / TILE, 1.0])
    marked = np.zeros((-(-camera.height // TILE), -(-camera.width // TILE)), np.bool_)
    _mark_tiles(vertices, faces, spheres, (tile_from_pixel @ K @ viewmat[:3]).astype(np.float32), marked)
    return _pixels_of_tiles(marked, camera.width, camera.height)


class PrimaryRays:
    """The rays of one camera: ``samples ** 2`` through each pixel."""

    def __init__(self, camera: Cameras, samples: int) -> None:
        """``camera`` is without batch axes, ``samples`` the number of rays along each side of a pixel."""
        viewmat, K = camera.viewmats.detach().cpu().double().numpy(), camera.Ks.detach().cpu().double().numpy()
        self.center = camera.centers.detach().cpu().numpy().astype(np.float32)
        self.num_per_pixel = samples**2
        self.footprint = 2.0 / (float(camera.Ks[0, 0] + camera.Ks[1, 1]) * samples)
        """Width of a sample at unit depth."""
        self._samples, self._width = samples, camera.width
        self._world_from_pixel = np.ascontiguousarray(viewmat[:3, :3].T @ np.linalg.inv(K))
        self._origins = np.empty((0, 3), np.float32)

    def through(
        self, pixel_ids: Int32[np.ndarray, " p"]
    ) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3"]]:
        """Origins and directions, one pixel after the other; world frame, directions of unit camera-frame depth.

        The origins are all the same and belong to the camera: do not write to them.
        """
        count = len(pixel_ids) * self.num_per_pixel
        origins = self._origins
        if len(origins) < count:
            origins = self._origins = np.tile(self.center, (count, 1))
        directions = np.empty((count, 3), np.float32)
        _pixel_rays(pixel_ids, self._width, self._samples, self._world_from_pixel, directions)
        return origins[:count], directions


@_compiled
@no_type_check
def _pixel_rays(pixel_ids, width, samples, world_from_pixel, directions):
    """Fill in rays.

    The samples of a pixel are stratified in both axes at once (a rotated grid), which halves the
    steps that an edge along a row or a column shows.
    """
    m = world_from_pixel
    offsets = np.empty((samples * samples, 2))
    for i in range(samples):
        for j in range(samples):
            offsets[i * samples + j, 0] = (j + (i + 0.5) / samples) / samples
            offsets[i * samples + j, 1] = (i + (samples - 1 - j + 0.5) / samples) / samples
    ray = np.uint64(0)
    for place in range(len(pixel_ids)):
        y, x = divmod(np.uint32(pixel_ids[place]), np.uint32(width))
        for s in range(samples * samples):
            u, v = x + offsets[s, 0], y + offsets[s, 1]
            directions[ray, 0] = m[0, 0] * u + m[0, 1] * v + m[0, 2]
            directions[ray, 1] = m[1, 0] * u + m[1, 1] * v + m[1, 2]
            directions[ray, 2] = m[2, 0] * u + m[2, 1] * v + m[2, 2]
            ray += np.uint64(1)


@_compiled
@no_type_check
def _pixels_of_tiles(marked, width, height):
    pixel_ids = np.empty(marked.sum() * TILE * TILE, np.int32)
    count = 0
    for ti in range(marked.shape[0]):
        for tj in range(marked.shape[1]):
            if not marked[ti, tj]:
                continue
            for y in range(ti * TILE, min((ti + 1) * TILE, height)):
                for x in range(tj * TILE, min((tj + 1) * TILE, width)):
                    pixel_ids[count] = y * width + x
                    count += 1
    return pixel_ids[:count]


@_compiled
@no_type_check
def bounding_spheres(vertices, faces):
    """Centres and radii ``[4, n]`` of spheres around each ``CLUSTER`` faces in a row; neighbours as a rule."""
    count = -(-len(faces) // CLUSTER)
    spheres = np.empty((4, count), np.float32)
    low, high = np.empty(3, np.float32), np.empty(3, np.float32)
    for i in range(count):
        low[:], high[:] = np.inf, -np.inf
        members = range(i * CLUSTER, min((i + 1) * CLUSTER, len(faces)))
        for f in members:
            for j in range(3):
                for k in range(3):
                    low[k] = min(low[k], vertices[faces[f, j], k])
                    high[k] = max(high[k], vertices[faces[f, j], k])
        x, y, z = 0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), 0.5 * (low[2] + high[2])
        squared = 0.0
        for f in members:
            for j in range(3):
                v = faces[f, j]
                dx, dy, dz = vertices[v, 0] - x, vertices[v, 1] - y, vertices[v, 2] - z
                squared = max(squared, dx * dx + dy * dy + dz * dz)
        spheres[0, i], spheres[1, i], spheres[2, i] = x, y, z
        spheres[3, i] = 1.001 * math.sqrt(squared) + 1e-6
    return spheres


@_compiled
@no_type_check
def _mark_tiles(vertices, faces, spheres, m, marked):
    """Set ``marked[row, column]`` of every tile that a face's bounding box in the image touches.

    Some vertices first: afterwards most spheres lie over tiles that are marked already, so that their faces need
    not be looked at. ``m [3, 4]`` takes homogeneous world coordinates to tiles.
    """
    rows, columns = marked.shape
    for f in range(0, len(faces), FACES_A_VERTEX):
        u, v, depth = _project(m, vertices[faces[f, 0], 0], vertices[faces[f, 0], 1], vertices[faces[f, 0], 2])
        if depth > _NEAR and u >= _ZERO and v >= _ZERO and u < columns and v < rows:
            marked[np.uint32(v), np.uint32(u)] = True
    boxes = _tile_boxes(spheres[0], spheres[1], spheres[2], spheres[3], m, rows, columns)
    for i in range(boxes.shape[1]):
        left, right, top, bottom = boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i]
        if right < left and left >= 0 or bottom < top:
            continue
        if left >= 0 and right - left <= 1 and bottom - top <= 1:  # as a rule
            upper, lower, first, last = np.uint32(top), np.uint32(bottom), np.uint32(left), np.uint32(right)
            known = marked[upper, first] & marked[upper, last] & marked[lower, first] & marked[lower, last]
        else:
            known = left >= 0 and marked[top : bottom + 1, left : right + 1].all()
        if not known:
            for f in range(i * CLUSTER, min((i + 1) * CLUSTER, len(faces))):
                _mark_face(vertices, faces[f, 0], faces[f, 1], faces[f, 2], m, marked)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz"})
@no_type_check
def _tile_boxes(xs, ys, zs, radii, m, rows, columns):
    """First and last column and row ``[4, n]`` that spheres may touch; -1 and -2 where one is near the camera's plane.

    A point at ``d`` from the centre is seen ``(m[0] - u * m[2]) . d`` over its depth beside it. Straight arithmetic on
    plain rows, which the compiler turns into vector instructions.
    """
    boxes = np.empty((4, len(xs)), np.int32)
    slope_x = np.sqrt(m[0, 0] * m[0, 0] + m[0, 1] * m[0, 1] + m[0, 2] * m[0, 2])
    slope_y = np.sqrt(m[1, 0] * m[1, 0] + m[1, 1] * m[1, 1] + m[1, 2] * m[1, 2])
    slope_z = np.sqrt(m[2, 0] * m[2, 0] + m[2, 1] * m[2, 1] + m[2, 2] * m[2, 2])
    last_column, last_row = np.float32(columns) - _ONE, np.float32(rows) - _ONE
    m00, m01, m02, m03 = m[0, 0], m[0, 1], m[0, 2], m[0, 3]
    m10, m11, m12, m13 = m[1, 0], m[1, 1], m[1, 2], m[1, 3]
    m20, m21, m22, m23 = m[2, 0], m[2, 1], m[2, 2], m[2, 3]
    lefts, rights, tops, bottoms = boxes[0], boxes[1], boxes[2], boxes[3]
    for i in range(len(xs)):
        x, y, z, radius = xs[i], ys[i], zs[i], radii[i]
        depth = m20 * x + m21 * y + m22 * z + m23
        nearest = depth - radius * slope_z
        ahead = nearest > _NEAR
        depth, nearest = max(depth, _NEAR), max(nearest, _NEAR)
        u, v = (m00 * x + m01 * y + m02 * z + m03) / depth, (m10 * x + m11 * y + m12 * z + m13) / depth
        reach = radius / nearest
        du, dv = (slope_x + abs(u) * slope_z) * reach, (slope_y + abs(v) * slope_z) * reach
        # Rounded down, though conversion cuts towards zero; a box outside the image has its end before its start.
        left, right = np.int32(max(u - du, _ZERO)), np.int32(min(max(u + du, -_ONE), last_column) + _ONE) - np.int32(1)
        top, bottom = np.int32(max(v - dv, _ZERO)), np.int32(min(max(v + dv, -_ONE), last_row) + _ONE) - np.int32(1)
        lefts[i] = left if ahead else np.int32(-1)
        rights[i] = right if ahead else np.int32(-2)
        tops[i], bottoms[i] = top, bottom
    return boxes


@_inlined
@no_type_check
def _project(m, x, y, z):
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    scale = _ONE / depth
    u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) * scale
    v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) * scale
    return u, v, depth


@_compiled
@no_type_check
def _mark_face(vertices, a, b, c, m, marked):
    rows, columns = marked.shape
    u0, v0, depth0 = _project(m, vertices[a, 0], vertices[a, 1], vertices[a, 2])
    u1, v1, depth1 = _project(m, vertices[b, 0], vertices[b, 1], vertices[b, 2])
    u2, v2, depth2 = _project(m, vertices[c, 0], vertices[c, 1], vertices[c, 2])
    if min(depth0, depth1, depth2) <= _NEAR:
        if max(depth0, depth1, depth2) > _NEAR:
            marked[:] = True  # it crosses the camera's plane: its picture is unbounded
        return
    left, right, top, bottom = min(u0, u1, u2), max(u0, u1, u2), min(v0, v1, v2), max(v0, v1, v2)
    if right < _ZERO or bottom < _ZERO or left >= columns or top >= rows:
        return
    for row in range(int(max(top, _ZERO)), int(min(bottom, np.float32(rows - 1))) + 1):
        for column in range(int(max(left, _ZERO)), int(min(right, np.float32(columns - 1))) + 1):
            marked[row, column] = True
