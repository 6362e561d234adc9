"""What a person wears, from the skin outwards, and how it becomes shaded meshes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from humansplat.data.synthetic.cloth import Cloth, normals
from humansplat.data.synthetic.coverage import POKE, away_from_rim, cover
from humansplat.data.synthetic.figure import Figure, Template
from humansplat.render.shaded_mesh import AlphaMode, ShadedMesh

SHRINK = 0.008
"""How far a surface sinks where another one covers it, metres."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One worn piece with its colours."""

    cloth: Cloth
    """On the shaped body at rest."""
    texture: UInt8[np.ndarray, "h w c"]
    """sRGB, or sRGB and alpha."""
    rank: int
    """Larger is further out; a layer hides what it covers of smaller ranks."""
    name: str
    """For the record of the person."""
    asset: str = ""
    """``clothes/<name>`` or ``hair/<name>`` when the piece comes from an asset that a split holds out."""
    alpha: AlphaMode = "opaque"
    """As in ``ShadedMesh``."""
    hides: bool = True
    """Whether skin and inner layers under it are taken away (hair and brows hide nothing)."""
    casts_shadow: bool = True
    """As in ``ShadedMesh``."""
    specular: float = 0.03
    """As in ``ShadedMesh``."""
    roughness: float = 0.8
    """As in ``ShadedMesh``."""


def _outer(layers: Sequence[Layer], rank: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(layer.cloth.vertices, layer.cloth.faces) for layer in layers if layer.hides and layer.rank > rank]


def dressed_mesh(layer: Layer, layers: Sequence[Layer], template: Template, figure: Figure) -> ShadedMesh | None:
    """Pose a layer, without what further layers hide; ``None`` when nothing is left."""
    cloth = layer.cloth
    visible = np.ones(len(cloth.faces), bool)
    vertices = cloth.vertices
    outer = _outer(layers, layer.rank)
    if outer and layer.rank > 0:
        outward = normals(cloth.vertices, cloth.faces, cloth.weld)
        coverage = cover(cloth.vertices, outward, outer, 2 * POKE)
        sink = cloth.smooth(np.where(coverage.hidden, SHRINK + coverage.sunk, 0)[:, None], 2)
        vertices = (vertices - sink * outward).astype(np.float32)
        visible = ~away_from_rim(coverage.hidden, cloth.faces, cloth.weld, rings=2)[cloth.faces].all(1)
    if not visible.any():
        return None
    posed = figure.pose(vertices, cloth.weights)
    return ShadedMesh(
        vertices=posed,
        faces=cloth.faces[visible],
        normals=normals(posed, cloth.faces, cloth.weld),
        uvs=cloth.uvs,
        texture=layer.texture,
        alpha=layer.alpha,
        parts=template.parts_of(cloth.weights),
        specular=layer.specular,
        roughness=layer.roughness,
        casts_shadow=layer.casts_shadow,
        name=layer.name,
    )


def skin_mesh(
    layers: Sequence[Layer], template: Template, figure: Figure, texture: UInt8[np.ndarray, "h w 3"]
) -> ShadedMesh:
    """Pose the skin, without what clothing hides; near hems it sinks a little."""
    rest = figure.rest[template.skin_ids]
    weights = template.weights[template.skin_ids]
    whole = np.arange(len(rest))
    outward = normals(rest, template.skin_faces, whole)
    coverage = cover(rest, outward, _outer(layers, -1))
    sink = np.where(coverage.hidden, SHRINK + coverage.sunk, 0)[:, None]
    posed = figure.pose((rest - sink * outward).astype(np.float32), weights)
    visible = ~away_from_rim(coverage.hidden, template.skin_faces, whole, rings=2)[template.skin_faces].all(1)
    return ShadedMesh(
        vertices=posed,
        faces=template.skin_faces[visible],
        normals=normals(posed, template.skin_faces, whole),
        uvs=template.uvs,
        uv_faces=template.uv_faces[visible],
        texture=texture,
        parts=template.parts_of(weights),
        specular=0.035,
        roughness=0.55,
        name="skin",
    )
