"""A piece of clothing (or hair, or an eye) at rest, and the operations that vary it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloth:
    """Triangles whose vertices know where they are, where the mean adult has them, and which joints carry them."""

    vertices: Float[np.ndarray, "n 3"]
    """On the shaped body at rest, metres."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    uvs: Float[np.ndarray, "n 2"]
    """Texture coordinates; vertices are split along the seams."""
    canonical: Float[np.ndarray, "n 3"]
    """On the mean adult at rest, metres, floor at y = 0."""
    weights: Float[np.ndarray, "n j"]
    """Skinning weights, rows sum to 1."""
    weld: Int[np.ndarray, " n"]
    """Vertices of the same number were one before the seams were cut."""

    def moved(self, vertices: Float[np.ndarray, "n 3"]) -> "Cloth":
        """The same piece with its vertices elsewhere."""
        return replace(self, vertices=vertices.astype(np.float32))

    def select(self, keep: np.ndarray) -> "Cloth":
        """Keep the faces marked in ``keep`` and drop vertices that no face uses."""
        faces = self.faces[keep]
        used, compact = np.unique(faces, return_inverse=True)
        return Cloth(
            vertices=self.vertices[used],
            faces=compact.reshape(-1, 3),
            uvs=self.uvs[used],
            canonical=self.canonical[used],
            weights=self.weights[used],
            weld=self.weld[used],
        )

    def clip(self, inside: Float[np.ndarray, " n"]) -> "Cloth":
        """Cut along the line where a per-vertex value crosses zero; keep the positive side.

        Triangles that the line crosses are split, so that the new hem is smooth.
        """
        inside = np.where(np.abs(inside) < 1e-6, -1e-6, inside)
        positive = inside > 0
        count = positive[self.faces].sum(1)
        if (count == 3).all():
            return self
        if (count == 0).any():
            return self.select(count > 0).clip(inside[np.unique(self.faces[count > 0])])
        faces = [self.faces[count == 3]]
        # Rotate crossed triangles so that the odd vertex out comes first.
        crossed = self.faces[(count == 1) | (count == 2)]
        odd = positive[crossed] == (positive[crossed].sum(1) == 1)[:, None]
        first = odd.argmax(1)
        corners = np.take_along_axis(crossed, (first[:, None] + np.arange(3)) % 3, axis=1)
        edges = np.sort(np.stack([corners[:, [0, 1]], corners[:, [0, 2]]], 1).reshape(-1, 2), axis=1)
        codes, index = np.unique(edges[:, 0] * len(self.vertices) + edges[:, 1], return_inverse=True)
        a, b = np.divmod(codes, len(self.vertices))
        cut = index.reshape(-1, 2) + len(self.vertices)
        alone = positive[corners[:, 0]]
        faces.append(np.stack([corners[:, 0], cut[:, 0], cut[:, 1]], 1)[alone])
        faces.append(np.stack([cut[:, 0], corners[:, 1], corners[:, 2]], 1)[~alone])
        faces.append(np.stack([cut[:, 0], corners[:, 2], cut[:, 1]], 1)[~alone])

        share = (inside[a] / (inside[a] - inside[b]))[:, None].astype(np.float32)

        def extend(values: np.ndarray) -> np.ndarray:
            return np.concatenate([values, values[a] * (1 - share) + values[b] * share])

        ends = np.sort(np.stack([self.weld[a], self.weld[b]], 1), axis=1)
        _, new_weld = np.unique(ends[:, 0] * (self.weld.max() + 1) + ends[:, 1], return_inverse=True)
        extended = Cloth(
            vertices=extend(self.vertices),
            faces=np.concatenate(faces),
            uvs=extend(self.uvs),
            canonical=extend(self.canonical),
            weights=extend(self.weights),
            weld=np.concatenate([self.weld, new_weld + self.weld.max() + 1]),
        )
        return extended.select(np.ones(len(extended.faces), bool))

    def _edges(self) -> tuple[Int[np.ndarray, "e 2"], np.ndarray, int]:
        """Welded edges, each once, whether each is on the rim, and the number of welded vertices."""
        ids, weld = np.unique(self.weld, return_inverse=True)
        corners = weld[self.faces]
        edges = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]), axis=1)
        codes, count = np.unique(edges[:, 0] * len(ids) + edges[:, 1], return_counts=True)
        return np.stack(np.divmod(codes, len(ids)), 1), count == 1, len(ids)

    def neighbours(self) -> csr_matrix:
        """Row-stochastic averaging over the neighbours of each welded vertex, ``[m, m]`` with m welded vertices.

        Vertices on the rim average along the rim only, so that diffusion keeps hems smooth.
        """
        edges, open_edge, count = self._edges()
        rim = np.zeros(count, bool)
        rim[edges[open_edge]] = True
        both = np.concatenate([edges, edges[:, ::-1]])
        along = np.tile(open_edge, 2)
        both = both[along | ~rim[both[:, 0]]]
        graph = csr_matrix((np.ones(len(both), np.float32), (both[:, 0], both[:, 1])), shape=(count, count))
        degree = np.asarray(graph.sum(1)).ravel()
        graph.data /= np.repeat(np.maximum(degree, 1), np.diff(graph.indptr)).astype(np.float32)
        return graph

    def smooth(self, values: Float[np.ndarray, "n c"], steps: int, amount: float = 0.7) -> Float[np.ndarray, "n c"]:
        """Diffuse per-vertex values over the surface, seams included."""
        _, first, weld = np.unique(self.weld, return_index=True, return_inverse=True)
        average = self.neighbours()
        welded = values[first].astype(np.float32)
        for _ in range(steps):
            welded = welded + np.float32(amount) * (average @ welded - welded)
        return welded[weld]

    def boundary(self) -> np.ndarray:
        """Mark the vertices on open edges, seams left out, ``[n]``."""
        edges, open_edge, count = self._edges()
        rim = np.zeros(count, bool)
        rim[edges[open_edge]] = True
        return rim[np.unique(self.weld, return_inverse=True)[1]]


def grid_faces(rows: int, columns: int) -> Int[np.ndarray, "f 3"]:
    """Two triangles for each cell of a grid of vertices, numbered row by row."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def normals(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], weld: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """Unit vertex normals, area weighted and averaged across seams."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    _, weld = np.unique(weld, return_inverse=True)
    total = np.zeros((weld.max() + 1, 3))
    for axis in range(3):
        for k in range(3):
            total[:, axis] += np.bincount(weld[faces[:, k]], area[:, axis], minlength=len(total))
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return total[weld].astype(np.float32)


def inflate(cloth: Cloth, distance: Float[np.ndarray, " n"]) -> Cloth:
    """Move vertices outwards along smoothed normals.

    Args:
        cloth: The piece.
        distance: Metres for each vertex; negative moves inwards.
    """
    outward = cloth.smooth(normals(cloth.vertices, cloth.faces, cloth.weld), steps=4)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    return cloth.moved(cloth.vertices + outward * distance[:, None])


def smooth_noise(
    points: Float[np.ndarray, "n 3"], rng: np.random.Generator, wavelength: float, octaves: int = 2
) -> Float[np.ndarray, " n"]:
    """Band-limited random field in about ``[-1, 1]``: random plane waves, which need no grid.

    Args:
        points: Positions, metres.
        rng: Source of the waves.
        wavelength: Metres of the coarsest octave.
        octaves: Number of octaves, each half as long and half as strong.
    """
    total = np.zeros(len(points), np.float32)
    for octave in range(octaves):
        directions = rng.normal(size=(6, 3))
        directions *= (2 * np.pi * 2**octave / wavelength) / np.linalg.norm(directions, axis=1, keepdims=True)
        waves = np.sin(points @ directions.T.astype(np.float32) + rng.uniform(0, 2 * np.pi, 6).astype(np.float32))
        total += waves.mean(1) * 0.5**octave * 1.4
    return total
