"""The naked body as the dresser sees it: shaped at rest, then posed, with every base mesh vertex in numpy."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation

from humansplat.body.anny import AnnyBody
from humansplat.body.parts import NUM_PARTS, makehuman_joint_part

DUMMY_HEIGHT = 0.5
"""Phenotype of the dummy on which garments are cut: 1.84 m. All lengths in this package that speak of the mean adult
are measured on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """What all people share: skeleton, weights, topology and the mean adult at rest."""

    body: AnnyBody
    """The body model itself."""
    joint_names: tuple[str, ...]
    """MakeHuman's bone names."""
    joint_parents: tuple[int, ...]
    """Parent of each joint, -1 for the root; parents come first."""
    weights: Float[np.ndarray, "b j"]
    """Skinning weights of every base mesh vertex."""
    skin_ids: Int[np.ndarray, " v"]
    """Base mesh vertex of each body vertex."""
    skin_faces: Int[np.ndarray, "f 3"]
    """Body faces, into body vertices, without the body's own eyes and tongue."""
    uvs: Float[np.ndarray, "t 2"]
    """Texture coordinates of the skin."""
    uv_faces: Int[np.ndarray, "f 3"]
    """Indices into ``uvs``, for ``skin_faces``."""
    joint_parts: UInt8[np.ndarray, " j"]
    """Part label of each joint."""
    canonical: Float[np.ndarray, "b 3"]
    """Base mesh of the mean adult at rest, metres; the lowest skin vertex has y = 0 and the root x = z = 0."""
    joints: Float[np.ndarray, "j 3"]
    """Joints of the mean adult at rest, in the frame of ``canonical``."""

    def joint(self, name: str) -> int:
        """Index of a joint by its name."""
        return self.joint_names.index(name)

    def parts_of(self, weights: Float[np.ndarray, "n j"]) -> UInt8[np.ndarray, " n"]:
        """Part labels from skinning weights."""
        shares = weights @ np.eye(NUM_PARTS, dtype=np.float32)[self.joint_parts]
        return shares.argmax(1).astype(np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """One shaped and posed body."""

    rest: Float[np.ndarray, "b 3"]
    """Base mesh at rest, metres."""
    transforms: Float[np.ndarray, "j 3 4"]
    """Rest -> world, for each joint."""
    stages: Float[np.ndarray, "s j 3 4"] | None = None
    """Transforms on the way from rest into the pose, the last ones those of the pose: what falls, falls meanwhile."""
    bones: Float[np.ndarray, "l 2 3"] | None = None
    """Ends of thighs and shanks in the world, through which nothing falls."""

    def pose(self, points: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, "n j"]) -> Float[np.ndarray, "n 3"]:
        """Carry points from the rest pose into the world by linear blend skinning."""
        blended = (weights @ self.transforms.reshape(len(self.transforms), 12)).reshape(-1, 3, 4)
        return np.einsum("nij,nj->ni", blended[..., :3], points) + blended[..., 3]


def _largest_component(faces: Int[np.ndarray, "f 3"], num_vertices: int) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(num_vertices, num_vertices))
    labels = connected_components(graph, directed=False)[1]
    return labels[faces[:, 0]] == np.bincount(labels[faces[:, 0]]).argmax()


def load_template(body: AnnyBody) -> Template:
    """Collect the fixed arrays of a body model."""
    names = tuple(body.joint_names)
    phenotypes = body.neutral()["phenotypes"].clone()
    phenotypes[body.phenotype_names.index("height")] = DUMMY_HEIGHT
    rest, joints = rest_shape(body, phenotypes)
    skin_ids = body.skin_vertices.numpy().astype(np.int64)
    faces = body.faces.numpy().astype(np.int64)
    keep = _largest_component(faces, len(skin_ids))
    weights = body.base_weights.numpy().astype(np.float32)
    origin = np.array([joints[0, 0], rest[skin_ids, 1].min(), joints[0, 2]], np.float32)
    return Template(
        body=body,
        joint_names=names,
        joint_parents=tuple(int(parent) for parent in body.joint_parents),
        weights=weights,
        skin_ids=skin_ids,
        skin_faces=faces[keep],
        uvs=body.uvs.numpy().astype(np.float32),
        uv_faces=body.uv_faces.numpy().astype(np.int64)[keep],
        joint_parts=np.array([makehuman_joint_part(name) for name in names], np.uint8),
        canonical=rest - origin,
        joints=joints - origin,
    )


def rest_shape(
    body: AnnyBody, phenotypes: Float[torch.Tensor, " p"]
) -> tuple[Float[np.ndarray, "b 3"], Float[np.ndarray, "j 3"]]:
    """Base mesh and joints of a shape in the rest pose, root at the model's own origin."""
    with torch.no_grad():
        return body.base_mesh(phenotypes).numpy(), body.rest_joints(phenotypes).numpy()


def stage_transforms(
    joints: Float[np.ndarray, "j 3"],
    parents: tuple[int, ...],
    rotations: Float[np.ndarray, "j 3 3"],
    largest: float = 0.16,
) -> Float[np.ndarray, "s j 3 4"]:
    """Forward kinematics of a way from rest into a pose, every joint turning evenly.

    Args:
        joints: Rest positions.
        parents: Parent indices.
        rotations: Rotation of each joint against its parent.
        largest: Radians that the fastest joint may turn in a stage; there are at most 14 stages.
    """
    vectors = Rotation.from_matrix(rotations).as_rotvec()
    count = int(np.clip(np.ceil(np.linalg.norm(vectors, axis=1).max() / largest), 2, 14))
    shares = np.linspace(1 / count, 1, count)
    moving = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 1e-3)
    turned = np.broadcast_to(np.eye(3, dtype=np.float32), (count, *rotations.shape)).copy()
    part = Rotation.from_rotvec((shares[:, None, None] * vectors[moving]).reshape(-1, 3)).as_matrix()
    turned[:, moving] = part.reshape(count, len(moving), 3, 3)
    turned[-1] = rotations
    places = np.broadcast_to(joints, (count, *joints.shape)).copy()
    frames = turned.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            frames[:, joint] = frames[:, parent] @ turned[:, joint]
            places[:, joint] = places[:, parent] + frames[:, parent] @ (joints[joint] - joints[parent])
    shift = places - np.einsum("sjab,jb->sja", frames, joints)
    return np.concatenate([frames, shift[..., None]], -1)


def joint_transforms(
    joints: Float[np.ndarray, "j 3"], parents: tuple[int, ...], rotations: Float[np.ndarray, "j 3 3"]
) -> Float[np.ndarray, "j 3 4"]:
    """Forward kinematics with world-aligned axes at rest: rest -> world, root rotating about itself.

    Args:
        joints: Rest positions.
        parents: Parent indices, -1 for the root; parents come first.
        rotations: Rotation of each joint against its parent.
    """
    turned, places = np.empty_like(rotations), np.empty_like(joints)
    for joint, parent in enumerate(parents):
        if parent < 0:
            turned[joint], places[joint] = rotations[joint], joints[joint]
        else:
            turned[joint] = turned[parent] @ rotations[joint]
            places[joint] = places[parent] + turned[parent] @ (joints[joint] - joints[parent])
    shift = places - np.einsum("jab,jb->ja", turned, joints)
    return np.concatenate([turned, shift[..., None]], -1)
