"""Cloth and hair that fall: a few relaxation steps of a position-based solver on the way into the pose.

Position based dynamics (Mueller et al., 2007): vertices carry on as they moved, edges pull them back to their lengths,
what has sunk into the body is pushed out along the normal of the nearest point of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import no_type_check  # the tests' shape checker must not wrap what numba compiles

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit
from scipy.spatial import cKDTree

from humansplat.data.synthetic.cloth import Cloth, normals
from humansplat.data.synthetic.figure import Figure

THIN = 0.02
"""Obstacles are thinned to one point a cube of this side, metres."""
GRAVITY = 9.81
STEP = 1 / 40
"""Seconds between two relaxations."""
KEPT_SPEED = 0.93
"""What air and friction leave of a point's speed in a relaxation."""
FASTEST = 0.02
"""Way of a point in a relaxation, metres: cloth any faster would jump over limbs."""
SWEEPS = 6
"""Passes over the edges in a relaxation."""
REACH = 0.12
"""Farther from obstacles than this cloth is not looked after, metres; less than the thickness of a thigh."""
SOLES = 0.004
"""Height that cloth keeps above the ground, metres."""
ON_THE_WAY, AT_REST = 3, 26
"""Relaxations in each stage of the way into the pose, and in the pose."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fabric:
    """How a piece hangs together, on its welded vertices."""

    edges: Int[np.ndarray, "e 2"]
    """Pairs of welded vertices that keep their distance."""
    stiffness: Float[np.ndarray, " e"]
    """Share of a wrong length that one pass mends: 1 along the threads, less across a fold."""
    hold: Float[np.ndarray, " w"]
    """1 where the piece follows the body, 0 where it falls."""
    lengths: Float[np.ndarray, " e"]
    """Distances that the edges keep, metres."""
    clearance: float
    """Least distance from obstacles, metres."""

    def pressed(self, under: Float[np.ndarray, " n"], weld: Int[np.ndarray, " n"]) -> "Fabric":
        """Held as well where something is worn over it, given 0 or 1 for each vertex."""
        first = np.unique(weld, return_index=True)[1]
        return replace(self, hold=np.maximum(self.hold, under[first]).astype(np.float32))


Still = tuple[Float[np.ndarray, "_ 3"], Float[np.ndarray, "_ 3"]]
"""Points and normals of a piece that has fallen already."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Obstacle:
    """Points of a surface that cloth may not pass."""

    points: Float[np.ndarray, "m 3"]
    """At rest, metres."""
    outward: Float[np.ndarray, "m 3"]
    """Unit normals at rest."""
    weights: Float[np.ndarray, "m j"]
    """Skinning weights."""

    def posed(
        self, transforms: Float[np.ndarray, "j 3 4"]
    ) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
        """Points and unit normals in a pose."""
        blended = (self.weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)
        points = np.einsum("nij,nj->ni", blended[..., :3], self.points) + blended[..., 3]
        outward = np.einsum("nij,nj->ni", blended[..., :3], self.outward)
        return points, outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)


def thinned(points: Float[np.ndarray, "n 3"], side: float = THIN) -> Int[np.ndarray, " m"]:
    """Indices of one point in each cube."""
    cells = np.floor(points / side).astype(np.int64)
    cells -= cells.min(0)
    size = cells.max(0) + 1
    return np.unique((cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2], return_index=True)[1]


def obstacle(cloth: Cloth, keep: Bool[np.ndarray, " n"]) -> Obstacle:
    """The marked vertices of a piece, thinned."""
    chosen = np.flatnonzero(keep)
    chosen = chosen[thinned(cloth.vertices[chosen])] if len(chosen) else chosen
    return Obstacle(
        points=cloth.vertices[chosen],
        outward=normals(cloth.vertices, cloth.faces, cloth.weld)[chosen],
        weights=cloth.weights[chosen],
    )


def fabric(cloth: Cloth, hold: Float[np.ndarray, " n"], *, bending: float, clearance: float) -> Fabric:
    """Threads along the edges of a piece, weak ones across each edge against sharp folds.

    Args:
        cloth: The piece.
        hold: 1 where a vertex follows the body, 0 where it falls.
        bending: Stiffness across folds, in ``[0, 1]``.
        clearance: Least distance from obstacles, metres.
    """
    ids, first, weld = np.unique(cloth.weld, return_index=True, return_inverse=True)
    corners = weld[cloth.faces]
    halves = np.concatenate([corners[:, [0, 1, 2]], corners[:, [1, 2, 0]], corners[:, [2, 0, 1]]])
    low, high = halves[:, :2].min(1), halves[:, :2].max(1)
    codes = low * len(ids) + high
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    same = np.flatnonzero(sorted_codes[1:] == sorted_codes[:-1])
    across = np.stack([halves[order[same], 2], halves[order[same + 1], 2]], 1)
    across = across[across[:, 0] != across[:, 1]]
    threads = np.stack(np.divmod(np.unique(codes), len(ids)), 1)
    # Sweeping down from where the piece hangs carries its weight up in few passes.
    height = cloth.canonical[first, 1]
    threads = threads[np.argsort(-height[threads].max(1), kind="stable")]
    edges = np.concatenate([threads, across])
    stiffness = np.concatenate([np.ones(len(threads)), np.full(len(across), bending)])
    places = cloth.vertices[first]
    return Fabric(
        edges=edges.astype(np.int64),
        stiffness=stiffness.astype(np.float32),
        hold=hold[first].astype(np.float32),
        lengths=np.linalg.norm(places[edges[:, 0]] - places[edges[:, 1]], axis=1).astype(np.float32),
        clearance=clearance,
    )


def pierced(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], bones: Float[np.ndarray, "b 2 3"]
) -> bool:
    """Whether a bone runs through the surface: a leg that broke through a skirt."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, vertices[faces].astype(np.float32))
    starts = np.ascontiguousarray(bones[:, 0], np.float32)
    ways = np.ascontiguousarray(bones[:, 1] - bones[:, 0], np.float32)
    hits = scene.run(starts, ways, query="INTERSECT", output=True)
    short_of_joint = 0.97  # share of the bone: a hem may lie on a knee
    return bool(((hits["primID"] >= 0) & (hits["tfar"] < short_of_joint)).any())


def drape(
    cloth: Cloth,
    woven: Fabric,
    figure: Figure,
    obstacles: Sequence[Obstacle],
    still: Sequence[Still] = (),
) -> Float[np.ndarray, "n 3"]:
    """Let a piece fall while the body moves from rest into its pose.

    Args:
        cloth: The piece at rest.
        woven: How it hangs together.
        figure: The body, with the stages of its way.
        obstacles: What carries the piece.
        still: Points and normals of pieces that have fallen already; they count in the pose only.

    Returns:
        Vertices in the world frame.
    """
    _, first, weld = np.unique(cloth.weld, return_index=True, return_inverse=True)
    start, weights = cloth.vertices[first], cloth.weights[first]
    free = np.flatnonzero(woven.hold < 1)
    stages = figure.stages if figure.stages is not None else figure.transforms[None]
    points = carried = Figure(rest=figure.rest, transforms=stages[0]).pose(start, weights).astype(np.float32)
    before = points
    for number, transforms in enumerate(stages):
        last = number == len(stages) - 1
        held = Figure(rest=figure.rest, transforms=transforms).pose(start, weights).astype(np.float32)
        points, before = points + held - carried, before + held - carried
        carried = held
        surfaces = [item.posed(transforms) for item in obstacles] + (list(still) if last else [])
        places, outward = (np.concatenate([item[k] for item in surfaces]).astype(np.float32) for k in range(2))
        tree = cKDTree(places)
        # What is near nothing has this for its nearest point, which pushes nobody.
        places, outward = (np.concatenate([values, np.full((1, 3), 1e6, np.float32)]) for values in (places, outward))
        near = np.full(len(points), len(places) - 1)
        floor = np.float32(SOLES if last else -1e9)  # on the way the body may be anywhere
        for step in range(AT_REST if last else ON_THE_WAY):
            if step % 2 == 0:  # points move little in between
                near[free] = tree.query(points[free], distance_upper_bound=REACH)[1]
            moved = points + np.float32(KEPT_SPEED) * (points - before)
            moved[:, 1] -= np.float32(GRAVITY * STEP**2)
            moved = held + (moved - held) * (1 - woven.hold[:, None])
            before = points
            points = np.ascontiguousarray(moved, np.float32)
            relax(
                points,
                held,
                woven.hold,
                woven.edges,
                woven.lengths,
                woven.stiffness,
                places[near],
                outward[near],
                np.float32(woven.clearance),
                floor,
                SWEEPS,
            )
            before = points - np.clip(points - before, -FASTEST, FASTEST)
    return points[weld]


@njit(cache=True, nogil=True)
@no_type_check
def relax(points, held, hold, edges, lengths, stiffness, places, outward, clearance, floor, sweeps):
    """Mend the lengths of edges one after the other, then push points out of planes and off the floor; in place.

    Args:
        points: [w, 3] float32, moved in place.
        held: [w, 3], where the body takes each point.
        hold: [w], 1 for points that do not move, 0 for free ones; between, the share by which edges move them less.
        edges: [e, 2], pairs of points.
        lengths: [e], their distances at rest.
        stiffness: [e], share of the error that a sweep mends.
        places: [w, 3], for each point, the nearest point of the obstacles.
        outward: [w, 3], the normal there.
        clearance: Least distance from the plane.
        floor: Least height.
        sweeps: Passes.
    """
    for _ in range(sweeps):
        for e in range(len(edges)):
            a, b = edges[e, 0], edges[e, 1]
            share_a, share_b = 1 - hold[a], 1 - hold[b]
            total = share_a + share_b
            if total < 1e-6:
                continue
            x = points[b, 0] - points[a, 0]
            y = points[b, 1] - points[a, 1]
            z = points[b, 2] - points[a, 2]
            length = np.sqrt(x * x + y * y + z * z)
            factor = stiffness[e] * (length - lengths[e]) / (max(length, 1e-6) * total)
            points[a, 0] += share_a * factor * x
            points[a, 1] += share_a * factor * y
            points[a, 2] += share_a * factor * z
            points[b, 0] -= share_b * factor * x
            points[b, 1] -= share_b * factor * y
            points[b, 2] -= share_b * factor * z
        for k in range(len(points)):
            if hold[k] >= 1:
                continue
            x = points[k, 0] - places[k, 0]
            y = points[k, 1] - places[k, 1]
            z = points[k, 2] - places[k, 2]
            height = x * outward[k, 0] + y * outward[k, 1] + z * outward[k, 2]
            # 0.2 m: what is near nothing is told a point far away, on whose wrong side it may be.
            if height < clearance and x * x + y * y + z * z < 0.04:
                push = clearance - height
                points[k, 0] += push * outward[k, 0]
                points[k, 1] += push * outward[k, 1]
                points[k, 2] += push * outward[k, 2]
            if points[k, 1] < floor:
                points[k, 1] = floor
