"""How the materials of a character are shown by the library's renderer."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from humansplat.data.rigged.gltf import Primitive
from humansplat.render.shaded_mesh import AlphaMode, ShadedMesh

INVISIBLE = 0.03
"""Opacity below which a piece is left out."""
SOLID = 0.97
"""Opacity above which a blended piece is opaque; many exporters mark everything as blended."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """Everything about a mesh that does not move."""

    name: str
    uvs: Float[np.ndarray, "v 2"] | None
    """Origin at the bottom left."""
    texture: UInt8[np.ndarray, "h w c"] | None
    vertex_colors: UInt8[np.ndarray, "v 3"] | None
    color: Float[np.ndarray, " 3"]
    alpha: AlphaMode

    def mesh(
        self,
        vertices: Float[np.ndarray, "v 3"],
        faces: Int[np.ndarray, "f 3"],
        normals: Float[np.ndarray, "v 3"] | None,
        parts: UInt8[np.ndarray, " v"] | None,
        gain: Float[np.ndarray, " 3"],
    ) -> ShadedMesh:
        """The surface on posed vertices, its colours multiplied by ``gain`` (linear)."""
        red, green, blue = (float(value) for value in self.color * gain)
        return ShadedMesh(
            vertices=vertices,
            faces=faces,
            normals=normals,
            uvs=self.uvs,
            texture=self.texture,
            vertex_colors=self.vertex_colors,
            color=(red, green, blue),
            alpha=self.alpha,
            parts=parts,
            name=self.name,
        )


def surface_of(part: Primitive) -> Surface | None:
    """Take over a material; ``None`` if nothing of it can be seen.

    The metallic and rough parts are not taken over: people are cloth, skin and hair.
    """
    material = part.material
    opacity = float(material.color[3]) if material.alpha != "OPAQUE" else 1.0
    if opacity < INVISIBLE:
        return None
    texture = material.texture if part.uvs is not None else None
    alpha: AlphaMode = "opaque"
    uvs = None if part.uvs is None else np.stack([part.uvs[:, 0], 1.0 - part.uvs[:, 1]], 1).astype(np.float32)
    if texture is not None and texture.shape[-1] == 4 and material.alpha != "OPAQUE":
        shares = texture[..., 3] * np.float32(opacity / 255)
        if material.alpha == "MASK":
            alpha = "cutout"
            shares = (shares >= material.cutoff).astype(np.float32)
        elif shares.min() < SOLID:
            alpha = "blend"
        texture = np.concatenate([texture[..., :3], (shares[..., None] * 255).round().astype(np.uint8)], -1)
    elif material.alpha == "BLEND" and opacity < SOLID:
        plain = np.full((1, 1, 3), 255, np.uint8) if texture is None else texture[..., :3]
        texture = np.concatenate([plain, np.full((*plain.shape[:2], 1), round(255 * opacity), np.uint8)], -1)
        uvs, alpha = uvs if uvs is not None else np.zeros((len(part.vertices), 2), np.float32), "blend"
    colors = None
    if texture is None and part.colors is not None:
        colors = (255 * _to_srgb(part.colors.clip(0, 1))).round().astype(np.uint8)
    return Surface(
        name=material.name,
        uvs=uvs if texture is not None else None,
        texture=texture[..., :3] if texture is not None and alpha == "opaque" else texture,
        vertex_colors=colors,
        color=material.color[:3],
        alpha=alpha,
    )


def _to_srgb(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
