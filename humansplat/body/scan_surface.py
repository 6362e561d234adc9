"""A scanned surface that is asked how far points are from it and whether they lie outside it.

Scans have holes, open edges, inner layers and loose pieces, so neither the winding of faces nor the parity of
crossings tells inside from outside. What does: from a point outside, a good share of all directions meets nothing.
"""

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from humansplat.errors import UserError

NUM_RAYS = 40
"""Directions that are tried from a point."""
FREE_SHARE = 0.18
"""A point from which so many directions are free lies outside; it is half of them near a flat wall, and some few
inside a skirt that is open below."""
_FAR = 100.0
"""Metres that a ray goes: farther than any scan is wide."""


class ScanSurface:
    """Meshes of a person as one surface; built once, asked often.

    Args:
        vertices: Metres, any frame.
        faces: Vertex indices; the winding does not matter.
        num_samples: Points that stand for the surface in distances, spread evenly by area.
        seed: Of the spreading.

    Raises:
        UserError: If there is no face, a vertex is not a number, or a face names a vertex that is not there.
    """

    def __init__(
        self,
        vertices: Float[np.ndarray, "v 3"],
        faces: Int[np.ndarray, "f 3"],
        *,
        num_samples: int = 20_000,
        seed: int = 0,
    ) -> None:
        check_mesh(vertices, faces)
        self.vertices, self.faces = vertices.astype(np.float32), faces.astype(np.int32)
        self.samples, self.sample_faces = spread_samples(self.vertices, self.faces, num_samples, seed)
        self.tree = cKDTree(self.samples)
        self._scene = EmbreeScene(robust=True)
        TriangleMesh(self._scene, self.vertices, self.faces)

    @property
    def size(self) -> Float[np.ndarray, "3"]:
        """Extent along x, y, z, metres."""
        return np.ptp(self.samples, axis=0)

    def distances(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Distance of each point to the nearest sample, metres."""
        return self.tree.query(points)[0]

    def free_share(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Share of all directions in which nothing is seen from each point."""
        directions = sphere_directions(NUM_RAYS)
        origins = np.repeat(points.astype(np.float32), len(directions), axis=0)
        ahead = np.tile(directions, (len(points), 1))
        reach = np.full(len(origins), _FAR, np.float32)
        blocked = self._scene.run(origins, ahead, reach, query="OCCLUDED") == 0
        return 1.0 - blocked.reshape(len(points), -1).mean(axis=1)

    def outside(self, points: Float[np.ndarray, "n 3"], margin: float) -> np.ndarray:
        """Which points lie outside by more than ``margin`` metres."""
        found = self.distances(points) > margin
        if found.any():
            found[found] = self.free_share(points[found]) > FREE_SHARE
        return found


def check_mesh(vertices: np.ndarray, faces: np.ndarray) -> None:
    """Refuse what is no surface.

    Raises:
        UserError: See ``ScanSurface``.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise UserError(f"a scan needs vertices [v, 3] and faces [f, 3], got {vertices.shape} and {faces.shape}")
    if not len(faces):
        raise UserError("the scan has no faces; give a mesh, not a cloud of points")
    if faces.min() < 0 or faces.max() >= len(vertices):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise UserError(f"a face of the scan names vertex {wrong}, but there are {len(vertices)}; export it again")
    if not np.isfinite(vertices).all():
        raise UserError("the scan has vertices that are not numbers; remove them")


def sphere_directions(count: int) -> Float[np.ndarray, "n 3"]:
    """Unit vectors spread evenly over the sphere: a Fibonacci lattice."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    angle = index * np.pi * (1 + 5**0.5)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1).astype(np.float32)


def spread_samples(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], count: int, seed: int
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
    """Points on a surface, evenly by area, and the face of each."""
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = areas.sum(dtype=np.float64)
    if not total > 0:
        raise UserError("all faces of the scan are empty; its vertices lie on one point or line")
    random = np.random.default_rng(seed)
    places = (np.arange(count) + random.random(count)) / count * total  # one in each equal share of the area
    chosen = np.searchsorted(np.cumsum(areas, dtype=np.float64), places).clip(max=len(faces) - 1)
    u, v = random.random((2, count, 1)).astype(np.float32)
    beyond = u + v > 1
    u, v = np.where(beyond, 1 - u, u), np.where(beyond, 1 - v, v)
    a, b, c = corners[chosen].transpose(1, 0, 2)
    return a + u * (b - a) + v * (c - a), chosen
