"""Where the connected parts of a MakeHuman asset are worn, told by where they lie on the mean adult.

Lengths are metres there.
"""

from typing import Literal

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.makehuman import ObjMesh

Role = Literal["upper", "lower", "full", "shoes", "hair", "eyes", "brows", "lashes", "hat", "extra"]
"""``extra`` is what nobody wears: ties, belts, capes, gloves, bags, glasses."""

KIND_ROLES: dict[str, Role] = {"hair": "hair", "eyes": "eyes", "eyebrows": "brows", "eyelashes": "lashes"}
"""Folders whose assets have one role; those in ``clothes`` are judged."""
SECTORS = 12
AROUND = 9
"""A garment surrounds the body if it lies in so many of the sectors around its axis; capes and aprons do not."""
LEAST_HEIGHT = 0.12
"""A garment of the trunk or the legs is taller than this, metres; belts are not."""


def vertex_roles(kind: str, mesh: ObjMesh, canonical: np.ndarray, template: Template) -> np.ndarray:
    """Where each connected part of an asset is worn.

    Args:
        kind: Folder of the asset.
        mesh: Its mesh.
        canonical: Its vertices on the mean adult, ``[n, 3]``.
        template: The mean adult.

    Returns:
        A role for each vertex, ``[n]``.
    """
    if kind in KIND_ROLES:
        return np.full(len(mesh.vertices), KIND_ROLES[kind])
    roles = _by_height(_components(mesh), canonical, template)
    for role in ("upper", "lower", "full"):
        members = roles == role
        if members.any() and not _surrounds(canonical[members], role, template):
            roles[members] = "extra"
    return roles


def _components(mesh: ObjMesh) -> np.ndarray:
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]]])
    shape = (len(mesh.vertices), len(mesh.vertices))
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=shape)
    return connected_components(graph, directed=False)[1]


def _by_height(labels: np.ndarray, canonical: np.ndarray, template: Template) -> np.ndarray:
    knee, hip, chest, neck, head = (
        template.joints[template.joint(name), 1]
        for name in ("lowerleg01.L", "upperleg01.L", "spine02", "neck03", "head")
    )
    top = template.canonical[template.skin_ids, 1].max()
    roles = np.empty(len(labels), dtype="<U6")
    sizes = np.bincount(labels)
    for label in np.argsort(-sizes):
        members = labels == label
        low, high = canonical[members, 1].min(), canonical[members, 1].max()
        if sizes[label] < 0.02 * len(labels) and (roles != "").any():  # a button belongs to what it is sewn to
            done = np.flatnonzero(roles != "")
            nearest = np.linalg.norm(canonical[done] - canonical[members].mean(0), axis=1).argmin()
            roles[members] = roles[done[nearest]]
        elif high < knee:
            roles[members] = "shoes"
        elif low > neck:
            roles[members] = "hat" if high > top - 0.02 and low > head - 0.1 else "extra"
        elif low < hip - 0.15 and high > chest:
            roles[members] = "full"
        else:
            roles[members] = "lower" if 0.5 * (low + high) < hip + 0.05 else "upper"
    return roles


def _surrounds(points: np.ndarray, role: str, template: Template) -> bool:
    """Whether a garment goes round the body where its role says that it must."""
    if np.ptp(points[:, 1]) < LEAST_HEIGHT:
        return False
    hip, chest = (float(template.joints[template.joint(name), 1]) for name in ("upperleg01.L", "spine02"))
    hips, waist, ribs = (hip - 0.12, hip + 0.08), (hip + 0.08, chest), (chest - 0.1, chest + 0.1)
    trunk = template.canonical[template.skin_ids]
    for low, high in {"upper": (ribs,), "lower": (hips,)}.get(role, (hips, waist)):
        level = np.abs(trunk[:, 1] - 0.5 * (low + high)) < 0.03
        middle = trunk[level & (np.abs(trunk[:, 0]) < 0.22)][:, [0, 2]].mean(0)
        ring = points[(points[:, 1] > low) & (points[:, 1] < high)][:, [0, 2]] - middle
        sectors = np.floor((np.arctan2(ring[:, 0], ring[:, 1]) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
        if len(np.unique(sectors)) < AROUND:
            return False
    return True
