"""The record of a textured mesh that the renderer draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

AlphaMode = Literal["opaque", "cutout", "blend"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadedMesh:
    """One textured piece of a person: skin, a garment, hair cards, an eye."""

    vertices: Float[np.ndarray, "v 3"]
    """World frame, metres."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    normals: Float[np.ndarray, "v 3"] | None = None
    """Unit vertex normals; ``None`` lets the renderer average those of the faces."""
    uvs: Float[np.ndarray, "t 2"] | None = None
    """Texture coordinates, origin at the bottom left as in OBJ files; they repeat outside ``[0, 1]``."""
    uv_faces: Int[np.ndarray, "f 3"] | None = None
    """Indices into ``uvs``, one a corner; ``None`` with ``uvs`` given means the same as ``faces``."""
    texture: UInt8[np.ndarray, "h w c"] | None = None
    """sRGB (3 channels) or sRGB and straight alpha (4); row 0 is the top."""
    vertex_colors: UInt8[np.ndarray, "v 3"] | None = None
    """sRGB of each vertex, for scans without a texture; a texture, where there is one, is shown instead. Between the
    vertices the stored sRGB values are interpolated, not the light they stand for: so do the programs in which such
    scans are made and looked at (MeshLab, OpenGL viewers)."""
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Linear factor on the texture or the vertices' colours, or the whole linear reflectance when there are none."""
    alpha: AlphaMode = "opaque"
    """What the texture's alpha means: nothing, a hole where it is below one half, or a share of the light."""
    parts: UInt8[np.ndarray, " v"] | None = None
    """Part label of each vertex (``humansplat.body.parts``, counted from 0); ``None`` shows as background."""
    specular: float = 0.04
    """Reflectance of the surface's gloss seen head-on; 0.04 suits skin, cloth and leather, 0 is chalk."""
    roughness: float = 0.7
    """In ``(0, 1]``; small is shiny."""
    two_sided: bool = True
    """Whether back faces show, lit as if they faced the camera (cloth, hair); otherwise rays pass through them."""
    casts_shadow: bool = True
    """Switch off for what lies on the skin or in front of it without darkening it: brows, lashes, a cornea."""
    name: str = ""
    """For messages and for the pieces of an exported scan."""


def merged(meshes: Sequence[ShadedMesh]) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices and faces of all pieces, one after the other."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts[:-1], strict=True)]
    return np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces)
