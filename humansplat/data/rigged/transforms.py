"""Poses of a tree of nodes: translation, rotation and scale of each, and the frames they give."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """How each node stands against its parent."""

    translations: Float[np.ndarray, "n 3"]
    rotations: Float[np.ndarray, "n 4"]
    """Quaternions (x, y, z, w)."""
    scales: Float[np.ndarray, "n 3"]
    matrices: dict[int, Float[np.ndarray, "4 4"]]
    """Of the nodes that are given by a matrix instead."""

    def local(self) -> Float[np.ndarray, "n 4 4"]:
        """Frame of each node in its parent's."""
        frames = np.broadcast_to(np.eye(4), (len(self.translations), 4, 4)).copy()
        if len(frames):
            frames[:, :3, :3] = Rotation.from_quat(self.rotations).as_matrix() * self.scales[:, None, :]
            frames[:, :3, 3] = self.translations
        for node, matrix in self.matrices.items():
            frames[node] = matrix
        return frames


def node_pose(nodes: list[dict[str, Any]]) -> Pose:
    """The pose that the records of nodes give.

    Raises:
        ValueError: If a value is not finite or has the wrong length.
    """

    def gathered(key: str, default: list[float]) -> np.ndarray:
        values = np.array([node.get(key, default) for node in nodes], np.float64).reshape(-1, len(default))
        if len(values) != len(nodes) or not np.isfinite(values).all():
            raise ValueError(f"a node has a {key} that is not {len(default)} finite numbers")
        return values

    matrices = gathered("matrix", np.eye(4).T.ravel().tolist()).reshape(-1, 4, 4).swapaxes(1, 2)
    rotations = gathered("rotation", [0.0, 0.0, 0.0, 1.0])
    rotations[np.linalg.norm(rotations, axis=1) < 1e-6] = [0.0, 0.0, 0.0, 1.0]
    return Pose(
        translations=gathered("translation", [0.0, 0.0, 0.0]),
        rotations=rotations,
        scales=gathered("scale", [1.0, 1.0, 1.0]),
        matrices={index: matrices[index] for index, node in enumerate(nodes) if "matrix" in node},
    )


def global_frames(
    local: Float[np.ndarray, "n 4 4"], parents: tuple[int, ...], order: tuple[int, ...]
) -> Float[np.ndarray, "n 4 4"]:
    """Frame of each node in the file's world; ``order`` has parents first."""
    frames = local.copy()
    for node in order:
        if parents[node] >= 0:
            frames[node] = frames[parents[node]] @ local[node]
    return frames


def rotation_part(frames: Float[np.ndarray, "*b 4 4"]) -> Float[np.ndarray, "*b 3 3"]:
    """The nearest rotations to the linear parts of frames: without scale and shear (polar decomposition)."""
    u, _, vt = np.linalg.svd(frames[..., :3, :3])
    flip = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    u[..., :, 2] *= flip[..., None]
    return u @ vt


def framed(linear: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 4"]:
    """A frame at the origin."""
    frame = np.eye(4)
    frame[:3, :3] = linear
    return frame


def about_up(angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation about +Y by radians: a quarter takes +Z to +X."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
