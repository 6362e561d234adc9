"""Which inner surface an outer one hides: found by Embree rays in the rest pose, where limbs are apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

REACH = 0.10
"""How far above the inner surface clothing may hang and still hide it, metres."""
POKE = 0.03
"""How deep under the skin clothing may have sunk and still count as covering it, metres; twice that under cloth, which
may be looser than what is worn over it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """What an outer surface does to points of an inner one."""

    hidden: Bool[np.ndarray, " n"]
    """Whether a face of the outer surface lies just above, or just below, the point."""
    sunk: Float[np.ndarray, " n"]
    """How far below the point the outer surface lies where the inner one has broken through it, else 0; metres."""


def cover(
    points: Float[np.ndarray, "n 3"],
    outward: Float[np.ndarray, "n 3"],
    outer: Sequence[tuple[Float[np.ndarray, "_ 3"], Int[np.ndarray, "_ 3"]]],
    poke: float = POKE,
) -> Coverage:
    """Look up and down from points of the inner surface for faces that look the same way.

    Args:
        points: Points of the inner surface at rest, metres.
        outward: Unit normals there.
        outer: Vertices and faces of each outer piece at rest.
        poke: How deep an outer surface may have sunk, metres.
    """
    if not outer:
        return Coverage(hidden=np.zeros(len(points), bool), sunk=np.zeros(len(points), np.float32))
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    corners = np.concatenate([vertices[faces] for vertices, faces in outer]).astype(np.float32)
    TriangleMesh(scene, corners)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def facing_hit(direction: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
        origins = np.ascontiguousarray(points - 1e-4 * direction, dtype=np.float32)
        hits = scene.run(origins, np.ascontiguousarray(direction, dtype=np.float32), query="INTERSECT", output=True)
        found = (hits["primID"] >= 0) & (hits["tfar"] < limit)
        facing = np.einsum("nc,nc->n", face_normals[np.maximum(hits["primID"], 0)], outward) > 0
        return found & facing, hits["tfar"]

    above, _ = facing_hit(outward, REACH)
    below, depth = facing_hit(-outward, poke)
    return Coverage(hidden=above | below, sunk=np.where(below & ~above, depth, 0).astype(np.float32))


def away_from_rim(
    mask: Bool[np.ndarray, " n"], faces: Int[np.ndarray, "f 3"], weld: Int[np.ndarray, " n"], rings: int
) -> Bool[np.ndarray, " n"]:
    """Shrink a vertex mask by a number of rings, so that the surface reaches a little under the hem."""
    _, weld = np.unique(weld, return_inverse=True)
    marked = np.ones(weld.max() + 1, bool)
    marked[weld[~mask]] = False
    corners = weld[faces]
    for _ in range(rings):
        rim = corners[~marked[corners].all(1)]
        marked[rim] = False
    return marked[weld]
