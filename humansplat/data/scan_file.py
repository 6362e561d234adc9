"""A textured person as one binary glTF file, as scanners and modelling programs write it."""

from collections.abc import Sequence

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from humansplat.render.shaded_mesh import ShadedMesh

_ALPHA_MODES = {"opaque": "OPAQUE", "cutout": "MASK", "blend": "BLEND"}


def scan_glb(meshes: Sequence[ShadedMesh]) -> bytes:
    """Pack meshes with their textures; glTF's frame is the house frame (metres, +Y up, facing +Z)."""
    scene = trimesh.Scene()
    for index, mesh in enumerate(meshes):
        name = f"{index:02d}-{mesh.name}" if mesh.name else f"{index:02d}"
        scene.add_geometry(_textured(mesh, name), geom_name=name, node_name=name)
    return scene.export(file_type="glb")


def _textured(mesh: ShadedMesh, name: str) -> trimesh.Trimesh:
    uv_faces = mesh.faces if mesh.uv_faces is None or mesh.uvs is None else mesh.uv_faces
    # glTF has one index a corner: vertices are repeated along the seams of the texture.
    pairs, corners = np.unique(
        np.stack([mesh.faces.reshape(-1), uv_faces.reshape(-1)], axis=1), axis=0, return_inverse=True
    )
    material = PBRMaterial(
        name=name,
        baseColorFactor=[*(int(round(255 * value)) for value in mesh.color), 255],
        baseColorTexture=None if mesh.texture is None else Image.fromarray(mesh.texture),
        metallicFactor=0.0,
        roughnessFactor=mesh.roughness,
        alphaMode=_ALPHA_MODES[mesh.alpha],
        alphaCutoff=0.5 if mesh.alpha == "cutout" else None,
        doubleSided=mesh.two_sided,
    )
    return trimesh.Trimesh(
        vertices=mesh.vertices[pairs[:, 0]],
        faces=corners.reshape(-1, 3),
        vertex_normals=None if mesh.normals is None else mesh.normals[pairs[:, 0]],
        visual=trimesh.visual.TextureVisuals(
            uv=None if mesh.uvs is None else mesh.uvs[pairs[:, 1]], material=material
        ),
        process=False,
    )
