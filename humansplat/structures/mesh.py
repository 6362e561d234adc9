"""Triangle meshes, plain or textured."""

from jaxtyping import Float, Int
from torch import Tensor

from humansplat.structures.base import TensorStruct


class Mesh(TensorStruct):
    """A triangle mesh; faces wind counter-clockwise seen from outside."""

    vertices: Float[Tensor, "*batch v 3"]
    """World frame, metres."""
    faces: Int[Tensor, "f 3"]
    """Vertex indices."""
    uvs: Float[Tensor, "t 2"] | None = None
    """Texture coordinates in ``[0, 1]``, origin at the bottom left as in OBJ files."""
    uv_faces: Int[Tensor, "f 3"] | None = None
    """Indices into ``uvs``, one a corner."""
    texture: Float[Tensor, "c h w"] | None = None
    """sRGB or sRGB and alpha, in ``[0, 1]``; row 0 is the top."""
