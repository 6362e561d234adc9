"""Which pixels of a picture can show the meshes, and the rays through them."""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

from humansplat.structures import Cameras

TILE = 8
CLUSTER = 16
_NEAR = np.float32(1e-3)

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_compiled = njit(cache=True, nogil=True, error_model="numpy")
_inlined = njit(nogil=True, error_model="numpy", inline="always")


def visible_pixels(
    vertices: Float32[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    spheres: Float32[np.ndarray, "n 4"],
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

    def through(
        self, pixel_ids: Int32[np.ndarray, " p"]
    ) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3"]]:
        """Origins and directions, one pixel after the other; world frame, directions of unit camera-frame depth."""
        origins = np.empty((len(pixel_ids) * self.num_per_pixel, 3), np.float32)
        directions = np.empty_like(origins)
        _pixel_rays(pixel_ids, self._width, self._samples, self._world_from_pixel, self.center, origins, directions)
        return origins, directions


@_compiled
@no_type_check
def _pixel_rays(pixel_ids, width, samples, world_from_pixel, center, origins, directions):
    """Fill in rays.

    The samples of a pixel are stratified in both axes at once (a rotated grid), which halves the
    steps that an edge along a row or a column shows.
    """
    m, ray = world_from_pixel, 0
    for place in range(len(pixel_ids)):
        y, x = divmod(np.uint32(pixel_ids[place]), np.uint32(width))
        for i in range(samples):
            for j in range(samples):
                u = x + (j + (i + 0.5) / samples) / samples
                v = y + (i + (samples - 1 - j + 0.5) / samples) / samples
                for k in range(3):
                    directions[ray, k] = m[k, 0] * u + m[k, 1] * v + m[k, 2]
                    origins[ray, k] = center[k]
                ray += 1


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
    """Centre and radius ``[n, 4]`` of a sphere around each ``CLUSTER`` faces in a row; neighbours as a rule."""
    count = -(-len(faces) // CLUSTER)
    spheres = np.empty((count, 4), np.float32)
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
        spheres[i, 0], spheres[i, 1], spheres[i, 2] = x, y, z
        spheres[i, 3] = 1.001 * math.sqrt(squared) + 1e-6
    return spheres


@_compiled
@no_type_check
def _mark_tiles(vertices, faces, spheres, m, marked):
    """Set ``marked[row, column]`` of every tile that a face's bounding box in the image touches.

    A vertex of each cluster first: afterwards most spheres lie over tiles that are marked already, so that their
    faces need not be looked at. ``m [3, 4]`` takes homogeneous world coordinates to tiles.
    """
    rows, columns = marked.shape
    for f in range(0, len(faces), CLUSTER):
        u, v, depth = _project(m, vertices, faces[f, 0])
        if depth > _NEAR and u >= _ZERO and v >= _ZERO and u < columns and v < rows:
            marked[np.uint32(v), np.uint32(u)] = True
    slope_x = np.sqrt(m[0, 0] * m[0, 0] + m[0, 1] * m[0, 1] + m[0, 2] * m[0, 2])
    slope_y = np.sqrt(m[1, 0] * m[1, 0] + m[1, 1] * m[1, 1] + m[1, 2] * m[1, 2])
    slope_z = np.sqrt(m[2, 0] * m[2, 0] + m[2, 1] * m[2, 1] + m[2, 2] * m[2, 2])
    right, bottom = np.float32(columns - 1), np.float32(rows - 1)
    for i in range(len(spheres)):
        u, v, depth = _project(m, spheres, i)
        nearest = depth - spheres[i, 3] * slope_z
        if nearest > _NEAR:
            # A point at d from the centre is seen (m[0] - u * m[2]) . d / its depth beside it.
            reach = spheres[i, 3] / nearest
            du, dv = (slope_x + abs(u) * slope_z) * reach, (slope_y + abs(v) * slope_z) * reach
            if u + du < _ZERO or v + dv < _ZERO or u - du >= columns or v - dv >= rows:
                continue
            if _all_marked(marked, max(u - du, _ZERO), min(u + du, right), max(v - dv, _ZERO), min(v + dv, bottom)):
                continue
        for f in range(i * CLUSTER, min((i + 1) * CLUSTER, len(faces))):
            _mark_face(vertices, faces[f, 0], faces[f, 1], faces[f, 2], m, marked)


@_inlined
@no_type_check
def _project(m, points, place):
    x, y, z = points[place, 0], points[place, 1], points[place, 2]
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    scale = _ONE / depth
    u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) * scale
    v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) * scale
    return u, v, depth


@_compiled
@no_type_check
def _all_marked(marked, left, right, top, bottom):
    for row in range(int(top), int(bottom) + 1):
        for column in range(int(left), int(right) + 1):
            if not marked[row, column]:
                return False
    return True


@_compiled
@no_type_check
def _mark_face(vertices, a, b, c, m, marked):
    rows, columns = marked.shape
    u0, v0, depth0 = _project(m, vertices, a)
    u1, v1, depth1 = _project(m, vertices, b)
    u2, v2, depth2 = _project(m, vertices, c)
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
