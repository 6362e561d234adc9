"""Faces: MakeHuman's expressions, mixed, as rotations of the bones of the face."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.clips import HOUSE_FROM_BVH


@dataclass(frozen=True, kw_only=True, eq=False)
class Expression:
    """Rotations of the face's joints, house axes."""

    rotations: dict[str, Float[np.ndarray, "3 3"]]
    """By joint name."""
    name: str
    """For the record of the person."""


def draw_expression(library: AssetLibrary, rng: np.random.Generator) -> Expression:
    """Draw an expression of random strength and random glances; neutral when the folder has none."""
    if library.face_units is None or not library.expressions or rng.random() < 0.2:
        return Expression(rotations={}, name="neutral")
    names, motion = library.face_units
    index = int(rng.integers(len(library.expressions)))
    strength = float(rng.uniform(0.3, 1.0))
    vectors = library.cached(("face units",), lambda: _unit_vectors(motion.rotations))
    total = np.zeros(vectors.shape[1:])
    for unit, share in library.expressions[index].items():
        if unit in names:
            total += strength * share * vectors[names.index(unit)]
    moving = np.linalg.norm(total, axis=1) > 1e-4
    turned = Rotation.from_rotvec(total @ HOUSE_FROM_BVH.T).as_matrix()
    rotations = {
        joint: turned[k]
        for k, joint in enumerate(motion.joint_names)
        if moving[k] and not joint.startswith(("neck", "head"))
    }
    return Expression(rotations=rotations, name=f"{library.expression_names[index]} {strength:.2f}")


def _unit_vectors(rotations: Float[np.ndarray, "f j 3 3"]) -> Float[np.ndarray, "f j 3"]:
    """Axis times angle of each bone in each face unit, against the rest in frame 0."""
    relative = rotations[:1].swapaxes(-1, -2) @ rotations
    return Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec().reshape(*rotations.shape[:2], 3)
