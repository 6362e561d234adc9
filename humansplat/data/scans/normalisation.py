"""From a scan's own frame to the house world and back.

``world = matrix @ (x, y, z, 1)``: metres, +Y up, the subject facing +Z, the lowest vertex of the fitted body at y = 0
and its pelvis over the origin, as in synthetic people. The matrix is a rotation times one scale, and a shift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from humansplat.body.recorded import moved
from humansplat.data.scans.layouts import Up
from humansplat.data.scans.orientation import to_y_up
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalization:
    """How a scan was brought into the world; ``meta.json`` keeps it."""

    matrix: Float[np.ndarray, "4 4"]
    """Scan -> world, for column vectors."""
    unit: float
    """Metres that one unit of the scan stands for: the matrix's scale."""
    up: Up
    """The axis of the scan that points up."""
    facing: float
    """Azimuth to which the subject faced before it was turned, radians, with +Y up."""

    @property
    def inverse(self) -> Float[np.ndarray, "4 4"]:
        """World -> scan."""
        return np.linalg.inv(self.matrix)

    def meta(self) -> dict[str, object]:
        """As ``meta.json`` keeps it."""
        matrix = [[float(f"{value:.12g}") for value in row] for row in self.matrix.tolist()]
        return {"matrix": matrix, "unit": self.unit, "up": self.up, "facing": float(f"{self.facing:.9g}")}


def metric_matrix(unit: float, up: Up) -> Float[np.ndarray, "4 4"]:
    """Scan -> metres with +Y up, in the scan's place and turn."""
    matrix = np.eye(4)
    matrix[:3, :3] = unit * to_y_up(up)
    return matrix


def transformed(points: Float[np.ndarray, "n 3"], matrix: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "n 3"]:
    """Points carried by a matrix, in float64."""
    return points.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def carried(meshes: Sequence[ShadedMesh], matrix: Float[np.ndarray, "4 4"]) -> tuple[ShadedMesh, ...]:
    """Meshes carried by a matrix (a rotation, a scale and a shift); normals are left to the renderer."""
    return tuple(
        replace(mesh, vertices=transformed(mesh.vertices, matrix).astype(np.float32), normals=None) for mesh in meshes
    )


def normalised(
    body: PosedBody, facing: float, unit: float, up: Up, middle: Float[np.ndarray, "3"]
) -> tuple[Normalization, PosedBody]:
    """Turn a body to face +Z and stand it over the origin.

    Args:
        body: In the metric frame (``metric_matrix``) shifted by ``-middle``, unbatched.
        facing: Azimuth to which it faces there.
        unit: Metres of one unit of the scan.
        up: Of the scan.
        middle: Of the metric scan, metres: what the scan was shifted by, as float32 is short of digits far away.

    Returns:
        What takes the scan to the world, and the body there.
    """
    turn = axis_angle_to_matrix(torch.tensor([0.0, -facing, 0.0], dtype=torch.float64))
    vertices, root = body.vertices.double() @ turn.T, turn @ body.joints[0].double()
    shift = -torch.stack([root[0], vertices[:, 1].min(), root[2]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn.numpy(), shift.numpy()
    centred = np.eye(4)
    centred[:3, 3] = -middle
    whole = matrix @ centred @ metric_matrix(unit, up)
    wrapped = math.remainder(facing, 2 * math.pi)
    return Normalization(matrix=whole, unit=unit, up=up, facing=wrapped), moved(body, turn.float(), shift.float())
