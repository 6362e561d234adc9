"""A scan as its file has it: textured pieces in the file's own units and axes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh

MAX_FACES = 5_000_000
"""Scans with more are refused: a picture of 1024 px shows no more than a million, and each takes 200 bytes while it
is drawn. 2K2K's largest have two million."""
MIN_FACES = 100
FLAT = 0.02
"""What is thinner than this share of its largest side is no person."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What ``read_scan`` gives."""

    path: Path
    meshes: tuple[ShadedMesh, ...]
    """In the units and the axes of the file; the transforms of a scene are applied."""
    notes: tuple[str, ...] = ()
    """What was changed while reading, one sentence each."""

    @property
    def num_faces(self) -> int:
        return sum(len(mesh.faces) for mesh in self.meshes)

    @property
    def points(self) -> Float[np.ndarray, "n 3"]:
        """The vertices that faces use, of all pieces."""
        return np.concatenate([mesh.vertices[np.unique(mesh.faces)] for mesh in self.meshes])


def check_face_count(path: Path, count: int) -> None:
    """Refuse scans that are too large to draw.

    Raises:
        UserError: If there are more than ``MAX_FACES``.
    """
    if count > MAX_FACES:
        raise UserError(
            f"{path} has {count:,} faces, at most {MAX_FACES:,} are drawn; reduce it (MeshLab: quadric edge collapse)"
        )


def check_scan(scan: Scan) -> Scan:
    """Refuse what is no surface of a person.

    Raises:
        UserError: If it is empty, not finite, or without extent.
    """
    check_face_count(scan.path, scan.num_faces)
    if scan.num_faces == 0:
        count = sum(len(mesh.vertices) for mesh in scan.meshes)
        told = f"{count:,} points and no faces; make a surface of them" if count else "nothing in it"
        raise UserError(f"{scan.path} is no mesh: it has {told}")
    for mesh in scan.meshes:
        if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
            raise UserError(f"{scan.path} names vertices that it does not have; export it anew")
    points = scan.points
    broken = int((~np.isfinite(points)).any(axis=1).sum())
    if broken:
        raise UserError(f"{scan.path} has {broken:,} vertices that are not numbers (NaN or infinite); export it anew")
    size = np.sort(np.ptp(points, axis=0))
    if scan.num_faces < MIN_FACES or size[0] < FLAT * size[2] or size[2] == 0:
        told = " x ".join(f"{value:.3g}" for value in size[::-1])
        raise UserError(f"{scan.path} is no scan of a person: {scan.num_faces} faces that span {told}")
    return scan
