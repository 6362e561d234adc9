"""The body part of every vertex of a scan, told by the body that was fitted to it.

A vertex asks the nearest points of the body whose skin looks the same way, so that a hand that touches a hip stays a
hand. What is left of mistakes are islands and ragged borders: the surface itself takes them off, by votes among
neighbours and by giving islands to what surrounds them.
"""

from dataclasses import replace
from typing import no_type_check  # the tests' shape checker must not wrap what numba compiles

import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import njit
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from humansplat.body.parts import NUM_PARTS
from humansplat.render.mesh_kernels import vertex_normals
from humansplat.render.shaded_mesh import ShadedMesh, merged
from humansplat.structures import PosedBody

_NEIGHBORS = 12
_TURNED_AWAY = 0.06
"""Metres that a point of the body counts as farther off for looking the other way: about half a forearm."""
_VOTES = 6
_ISLAND, _SPECK = 0.15, 0.002
"""Connected areas of a label smaller than the first share of its largest in the same piece of surface, or than the
second of that piece, go to what surrounds them. Pieces count apart: a strand of hair is no island of the head."""
_GRID = 1e-4
"""Metres within which vertices are the same point of the surface: seams of textures cut it."""


def labelled(meshes: tuple[ShadedMesh, ...], body: PosedBody) -> tuple[ShadedMesh, ...]:
    """Give every vertex of a scan a part label.

    Args:
        meshes: World frame, metres.
        body: Fitted to them, unbatched.
    """
    vertices, faces = merged(meshes)
    skin = body.vertices.detach().cpu().numpy().astype(np.float32)
    labels = part_labels(vertices, faces, skin, body.faces.cpu().numpy(), body.parts.cpu().numpy().astype(np.uint8))
    ends = np.cumsum([len(mesh.vertices) for mesh in meshes])[:-1]
    return tuple(replace(mesh, parts=part) for mesh, part in zip(meshes, np.split(labels, ends), strict=True))


def part_labels(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    skin: Float[np.ndarray, "b 3"],
    skin_faces: Int[np.ndarray, "g 3"],
    skin_parts: UInt8[np.ndarray, " b"],
) -> UInt8[np.ndarray, " v"]:
    """The part label of each vertex of a surface.

    Args:
        vertices: Of the scan, metres.
        faces: Of the scan.
        skin: Vertices of the body, in the same frame.
        skin_faces: Of the body.
        skin_parts: Labels of the body's vertices, below ``NUM_PARTS``.
    """
    # One vertex for each place: the halves of a seam must not be labelled apart.
    _, first, place = np.unique(
        np.round(vertices / _GRID).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    place = place.reshape(-1)
    points, corners = np.ascontiguousarray(vertices[first], np.float32), place[faces].astype(np.int32)
    normals = vertex_normals(points, corners)
    skin_normals = vertex_normals(skin, skin_faces.astype(np.int32))
    count = min(_NEIGHBORS, len(skin))
    distances, nearest = cKDTree(skin).query(points, k=count)
    distances, nearest = distances.reshape(-1, count), nearest.reshape(-1, count)
    agreement = np.einsum("vc,vkc->vk", normals, skin_normals[nearest])
    cost = distances + _TURNED_AWAY * np.clip(0.5 - agreement, 0.0, None)
    chosen = nearest[np.arange(len(points)), cost.argmin(axis=1)]
    labels = skin_parts[chosen]
    for _ in range(_VOTES):
        labels = _vote(labels, corners, NUM_PARTS)
    return _without_islands(labels, corners)[place]


@njit(cache=True, nogil=True)
@no_type_check
def _vote(labels, faces, num_parts):
    """The most frequent label of each vertex's faces' corners; its own wins ties."""
    votes = np.zeros((len(labels), num_parts), np.uint16)
    for f in range(len(faces)):
        for i in range(3):
            for j in range(3):
                votes[faces[f, i], labels[faces[f, j]]] += 1
    out = labels.copy()
    for v in range(len(labels)):
        best = labels[v]
        for k in range(num_parts):
            if votes[v, k] > votes[v, best]:
                best = k
        out[v] = best
    return out


def _without_islands(labels: UInt8[np.ndarray, " v"], faces: Int[np.ndarray, "f 3"]) -> UInt8[np.ndarray, " v"]:
    """Give small connected areas of a label to the label that most of their border touches."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    whole = coo_matrix((np.ones(len(edges), np.int8), edges.T), (len(labels), len(labels)))
    _, piece = connected_components(whole, directed=False)
    piece_sizes = np.bincount(piece)
    for _ in range(3):  # an island may lie in another
        same = labels[edges[:, 0]] == labels[edges[:, 1]]
        inner, border = edges[same], edges[~same]
        graph = coo_matrix((np.ones(len(inner), np.int8), inner.T), (len(labels), len(labels)))
        num, area = connected_components(graph, directed=False)
        sizes = np.bincount(area, minlength=num)
        of_area, piece_of_area = np.zeros(num, np.uint8), np.zeros(num, np.int32)
        of_area[area], piece_of_area[area] = labels, piece
        largest = np.zeros((len(piece_sizes), NUM_PARTS), np.int64)
        np.maximum.at(largest, (piece_of_area, of_area), sizes)
        is_island = (sizes < _ISLAND * largest[piece_of_area, of_area]) | (sizes < _SPECK * piece_sizes[piece_of_area])
        both = np.concatenate([border, border[:, ::-1]])
        touching = both[is_island[area[both[:, 0]]]]
        if not len(touching):
            break
        votes = np.zeros((num, NUM_PARTS), np.int32)
        np.add.at(votes, (area[touching[:, 0]], labels[touching[:, 1]]), 1)
        given = np.where(votes.any(axis=1) & is_island, votes.argmax(axis=1), of_area).astype(np.uint8)
        labels = given[area]
    return labels
