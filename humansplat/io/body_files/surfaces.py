"""Bodies that are known by their vertices: SAM 3D Body, meshes, and this library's own file."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.body import read_body
from humansplat.io.body_files.cameras import focal_camera, image_size
from humansplat.io.body_files.estimators import camera_of_points, points_of, unit_of
from humansplat.io.body_files.fields import Fields, choose
from humansplat.io.body_files.record import BodyRecord, Family, FileCamera, PinholeCamera
from humansplat.io.body_files.values import DAMAGED
from humansplat.structures import PosedBody

MESH_SUFFIXES = (".obj", ".ply")
_FAMILIES: dict[int, Family] = {6890: "smpl", 10475: "smplx", 18439: "mhr"}
"""Vertex counts that tell a topology; SMPL-H shares SMPL's."""
_TORSO_KEYPOINTS = [9, 10, 5, 6]
"""Left hip, right hip, left shoulder, right shoulder among SAM 3D Body's 70 keypoints."""


def read_sam3d(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """SAM 3D Body: 18439 vertices before the camera; the focal length, or keypoints that give it.

    The faces are the model's and not in the file: they are taken from ``faces`` if the user added them, else from a
    mesh of as many vertices beside the file.
    """
    record = read_vertices(fields, person, family)
    index = record.person
    shift = fields.row(index, 3, "pred_cam_t")
    if shift is None or record.vertices is None:
        raise UserError(f"{fields.path}: pred_vertices without pred_cam_t; SAM 3D Body writes both")
    joints, seen = fields.array("pred_keypoints_3d"), fields.array("pred_keypoints_2d")
    points = None if joints is None else points_of(joints, index) + shift
    camera: FileCamera | None = focal_camera(fields, index)
    if camera is None and points is not None and seen is not None:
        camera = camera_of_points(points, points_of(seen, index), fields)
    torso = None if points is None or len(points) != 70 else points[_TORSO_KEYPOINTS]
    return dataclasses.replace(
        record,
        format="SAM 3D Body",
        source=record.source.replace("vertices", "SAM 3D Body"),
        vertices=record.vertices + shift,
        camera=camera,
        frame="camera",
        torso=torso,
        root=None if torso is None else torso[:2].mean(dim=0),
    )


def read_vertices(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """Vertices by name, and faces by name or from a mesh beside the file."""
    array = fields.array("pred_vertices", "vertices", "verts", "verts_smplx", "vertices3d")
    if array is None or array.ndim < 2 or array.shape[-1] != 3:
        raise UserError(f"{fields.path}: vertices are needed as (v, 3)")
    stack = array.reshape(-1, *array.shape[-2:])
    index = choose(len(stack), person, fields.path)
    vertices = torch.from_numpy(stack[index]).float()
    vertices = vertices / unit_of(vertices, f"{fields.path}: vertices")
    camera = focal_camera(fields, index)
    return BodyRecord(
        source=f"{fields.path.name} (vertices)" + (f", person {index} of {len(stack)}" if len(stack) > 1 else ""),
        format="vertices",
        family=family or _FAMILIES.get(len(vertices), "mesh"),
        person=index,
        num_people=len(stack),
        missing=("pose", "betas", "gender"),
        vertices=vertices,
        faces=_faces_of(fields, len(vertices)),
        camera=camera,
        frame="camera" if camera is not None else "unknown",
        image_size=image_size(fields, index),
    )


def _faces_of(fields: Fields, num_vertices: int) -> Int[Tensor, "f 3"] | None:
    array = fields.array("faces", "f")
    if array is not None:
        faces = torch.from_numpy(array.reshape(-1, array.shape[-1]).astype(np.int64))
        if faces.shape[1] != 3 or int(faces.min()) < 0 or int(faces.max()) >= num_vertices:
            raise UserError(f"{fields.path}: faces {tuple(array.shape)} do not fit {num_vertices} vertices")
        return faces
    for path in sorted(fields.path.parent.iterdir()):
        if path.suffix.lower() in MESH_SUFFIXES and path.is_file():
            try:
                vertices, faces = load_mesh(path)
            except UserError:
                continue  # some other file of that suffix
            if len(vertices) == num_vertices:
                return faces
    return None


def read_mesh(path: Path, person: int | None) -> BodyRecord:
    """A posed body as OBJ or PLY: no camera, and only the user knows its axes.

    Raises:
        UserError: If it is no mesh of a person.
    """
    choose(1, person, path)
    vertices, faces = load_mesh(path)
    unit = unit_of(vertices, str(path))
    units = {1.0: "metres", 100.0: "centimetres", 1000.0: "millimetres"}
    return BodyRecord(
        source=f"{path.name} (mesh)",
        format="mesh",
        family=_FAMILIES.get(len(vertices), "mesh"),
        missing=("pose", "betas", "gender"),
        vertices=vertices / unit,
        faces=faces,
        frame="unknown",
        warnings=() if unit == 1.0 else (f"{path.name} is taken to be in {units[unit]}, by its size",),
    )


def load_mesh(path: Path) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """Vertices and triangles as the file orders them.

    Raises:
        UserError: If it cannot be read, or holds no triangles.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such body file")
    try:
        mesh = trimesh.load(path, process=False, maintain_order=True, force="mesh", skip_materials=True)
    except DAMAGED as error:
        raise UserError(f"{path}: not a mesh that can be read") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise UserError(f"{path} holds no triangles; give the posed body as a mesh")
    vertices = np.asarray(mesh.vertices, dtype=np.float32)
    if not np.isfinite(vertices).all():
        raise UserError(f"{path} holds vertices that are not finite; give a whole mesh")
    return torch.from_numpy(vertices), torch.from_numpy(np.asarray(mesh.faces, dtype=np.int64))


def lacks_faces(path: Path) -> bool:
    """Whether this is a ``body.npz`` of a data set, which leaves out what all bodies of a model share."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        names = set(file.namelist())
    return {"vertices.npy", "viewmat.npy", "model.npy"} <= names and "faces.npy" not in names


def read_own(path: Path, person: int | None, template: PosedBody | None) -> BodyRecord:
    """This library's ``body.npz``: the posed body and its camera."""
    choose(1, person, path)
    body, camera = read_body(path, template)
    family: Family = body.model if body.model in {"smpl", "smplh", "smplx", "anny"} else "mesh"  # type: ignore[assignment]
    return BodyRecord(
        source=f"{path.name} (humansplat)",
        format="humansplat",
        family=family,
        vertices=body.vertices,
        faces=body.faces,
        root=body.joints[0],
        frame="world",
        camera=PinholeCamera(K=camera.Ks),
        viewmat=camera.viewmats,
        image_size=(camera.width, camera.height),
        posed=body,
    )
