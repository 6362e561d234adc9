"""The default body drawn onto a mesh of the same person: what names the points of a surface that nobody named.

The fitted body starts near the mesh, as both show the same photo, but estimators disagree by a hand's breadth and
more in depth. So the body's own joints and shape follow the mesh first (nearest points both ways, as in iterated
closest points), and only then does a vertex take the name of the nearest point of the body.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.fit import one_thread
from humansplat.body.protocol import BodyModel
from humansplat.geometry.sampling import farthest_points
from humansplat.structures import PosedBody

_FREE = (
    "root", "spine04", "spine03", "spine02", "neck01", "head", "clavicle", "upperarm01", "lowerarm01", "wrist",
    "upperleg01", "lowerleg01", "foot",
)  # fmt: skip
_NUM_BODY_POINTS, _NUM_MESH_POINTS = 900, 1500
_REACH = 0.15
"""Pairs further apart than this, metres, pull less and less."""
_SHAPE_PRIOR, _POSE_PRIOR = 0.02, 0.002


def follow_surface(
    model: BodyModel, start: Mapping[str, Tensor], vertices: Float[Tensor, "v 3"], steps: int = 120
) -> PosedBody:
    """Pose and shape the default body so that its skin lies on a mesh.

    Args:
        model: The default body.
        start: Its parameters near the mesh, unbatched.
        vertices: Of the mesh, in the same frame, metres.
        steps: Of Adam; the default suits bodies some decimetres apart.

    Returns:
        The whole body; how near it comes is for the caller to see.
    """
    few = model.subset(farthest_points(model.canonical, _NUM_BODY_POINTS, first=0))
    mesh = vertices[farthest_points(vertices, _NUM_MESH_POINTS, first=0)]
    tree = cKDTree(mesh.numpy())
    joints = [index for index, name in enumerate(model.joint_names) if name.split(".")[0] in _FREE]
    base = {name: value.detach().clone() for name, value in start.items()}
    turns = torch.zeros(len(joints), 3, requires_grad=True)
    shape = torch.zeros_like(base["phenotypes"], requires_grad=True)
    shift = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([turns, shape, shift], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def parameters() -> dict[str, Tensor]:
        rotations = base["rotations"].index_add(0, torch.tensor(joints), turns)
        phenotypes = (base["phenotypes"] + shape).clamp(0, 1)
        return {**base, "rotations": rotations, "phenotypes": phenotypes, "translation": base["translation"] + shift}

    with one_thread():
        for _ in range(steps):
            skin = few.pose(parameters()).vertices
            seen = skin.detach().numpy()
            _, to_mesh = tree.query(seen)
            _, to_skin = cKDTree(seen).query(mesh.numpy())
            forth = (skin - mesh[torch.from_numpy(to_mesh)]).square().sum(dim=-1)
            back = (mesh - skin[torch.from_numpy(to_skin)]).square().sum(dim=-1)
            # Geman-McClure: a wrong pair far away pulls no more than it must.
            pull = sum((pair / (pair + _REACH**2)).mean() for pair in (forth, back))
            loss = pull + _POSE_PRIOR * turns.square().sum() + _SHAPE_PRIOR * shape.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return model.pose(parameters())


def joints_with_skin(model: BodyModel, body: PosedBody, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "j 3"]:
    """Where the joints of a body go when its skin goes elsewhere.

    Each joint moves with the rigid motion that carries the skin it pulls best (Kabsch, 1976); one that pulls none goes
    with its parent, and the root with its children.

    Args:
        model: The default body.
        body: Unbatched, of that model.
        vertices: The same vertices elsewhere.
    """
    weights = model.weights.double().clone()
    parents = torch.tensor(model.joint_parents)
    for joint in (weights.sum(dim=0) < 1e-6).nonzero()[:, 0].tolist():  # the root, and points of the face
        near = parents == joint if joint == 0 else torch.arange(len(parents)) == parents[joint]
        weights[:, joint] = weights[:, near].sum(dim=1)
    share = weights / weights.sum(dim=0).clamp(min=1e-9)
    here, there = body.vertices.double(), vertices.double()  # moments of fingertips metres away lose all of float32
    before, after = share.T @ here, share.T @ there  # [j, 3]
    products = (here[:, :, None] * there[:, None, :]).flatten(1)
    moments = (share.T @ products).unflatten(1, (3, 3)) - before[:, :, None] * after[:, None, :]
    left, _, right = torch.linalg.svd(moments)
    sign = torch.linalg.det(left @ right).sign()
    turn = right.mT @ torch.diag_embed(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)) @ left.mT
    moved = after + (turn @ (body.joints.double() - before)[..., None])[..., 0]
    return moved.float()
