"""What a person wears, from the skin outwards, and how it becomes shaded meshes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from humansplat.data.synthetic.cloth import Cloth, normals
from humansplat.data.synthetic.coverage import POKE, away_from_rim, cover
from humansplat.data.synthetic.drape import Fabric, Obstacle, Still, drape, obstacle, pierced
from humansplat.data.synthetic.figure import Figure, Template
from humansplat.data.synthetic.wrinkles import Wrinkles, draw_wrinkles, refined, wrinkled
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
    falls: Fabric | None = None
    """How a piece hangs together that falls; ``None`` for one that follows the body. Where a piece falls it may slip,
    so there it hides nothing, but for where it is ``closed``."""
    closed: Bool[np.ndarray, " n"] | None = None
    """Where a falling piece cannot slip off what it covers: trouser legs above their cuffs."""
    shorter: "Layer | None" = None
    """What is worn instead if a leg breaks through."""
    world: Float[np.ndarray, "n 3"] | None = None
    """Vertices in the world of a piece that is placed on the posed body."""
    wrinkles: Wrinkles | None = None
    """Ridges that rise when the piece is posed."""

    @property
    def top(self) -> float:
        """Height of the upper end on the mean adult, metres."""
        return float(self.cloth.canonical[:, 1].max())

    def softened(self, template: Template, rng: np.random.Generator, loose: float) -> "Layer":
        """The piece refined, with wrinkles; 0 is tight and 1 is loose."""
        cloth = refined(self.cloth)
        return replace(self, cloth=cloth, wrinkles=draw_wrinkles(cloth, template, rng, loose))


def _outer(layers: Sequence[Layer], rank: int) -> list[tuple[np.ndarray, np.ndarray]]:
    outer = []
    for layer in layers:
        if layer.hides and layer.rank > rank:
            faces = layer.cloth.faces
            if layer.falls is not None:
                held = layer.falls.hold[np.unique(layer.cloth.weld, return_inverse=True)[1]] > 0.7
                held = held if layer.closed is None else held | layer.closed
                faces = faces[held[faces].all(1)]
            if len(faces):
                outer.append((layer.cloth.vertices, faces))
    return outer


def dressed_meshes(layers: Sequence[Layer], template: Template, figure: Figure, skin: Cloth) -> list[ShadedMesh]:
    """Pose all layers, without what further layers hide.

    Args:
        layers: What a person wears, in the order of the result.
        template: What all bodies share.
        figure: The body.
        skin: It at rest, as a piece.
    """
    meshes: dict[int, ShadedMesh] = {}
    still: list[Still] = []
    for index in sorted(range(len(layers)), key=lambda index: layers[index].rank):
        layer = layers[index]
        carried_by: list[Obstacle] = []
        if layer.falls is not None:
            under = [other for other in layers if 0 < other.rank < layer.rank and other.hides]
            carried_by = carriers(skin, under, low=float(layer.cloth.canonical[:, 1].min()), high=layer.top)
        mesh = dressed_mesh(layer, layers, template, figure, carried_by, still)
        if mesh is not None and mesh.normals is not None and layer.falls is not None and layer.hides:
            still.append((mesh.vertices, mesh.normals))
        if mesh is not None:
            meshes[index] = mesh
    return [meshes[index] for index in sorted(meshes)]


def carriers(skin: Cloth, under: Sequence[Layer], *, low: float, high: float) -> list[Obstacle]:
    """What a piece may fall on: the body without forearms, and the pieces worn under it that follow the body.

    Args:
        skin: The body at rest, as a piece.
        under: Layers below.
        low: Height of the piece's lower end on the mean adult, metres.
        high: Of its upper end.
    """

    def near(cloth: Cloth) -> np.ndarray:
        points = cloth.canonical
        return (points[:, 1] > low - 0.5) & (points[:, 1] < high + 0.1) & (np.abs(points[:, 0]) < 0.3)

    pieces = [skin] + [layer.cloth for layer in under if layer.falls is None]
    return [obstacle(cloth, near(cloth)) for cloth in pieces]


def dressed_mesh(
    layer: Layer,
    layers: Sequence[Layer],
    template: Template,
    figure: Figure,
    carried_by: Sequence[Obstacle] = (),
    still: Sequence[Still] = (),
) -> ShadedMesh | None:
    """Pose a layer, without what further layers hide; ``None`` when nothing is left.

    Args:
        layer: The piece.
        layers: All pieces.
        template: What all bodies share.
        figure: The body.
        carried_by: What it falls on, if it falls.
        still: What has fallen before.
    """
    cloth = layer.cloth
    visible = np.ones(len(cloth.faces), bool)
    vertices = cloth.vertices
    outer = _outer(layers, layer.rank)
    pressed = np.zeros(len(vertices), np.float32)
    if outer and layer.rank > 0:
        outward = normals(cloth.vertices, cloth.faces, cloth.weld)
        coverage = cover(cloth.vertices, outward, outer, 2 * POKE)
        sink = cloth.smooth(np.where(coverage.hidden, SHRINK + coverage.sunk, 0)[:, None], 2)
        vertices = (vertices - sink * outward).astype(np.float32)
        visible = ~away_from_rim(coverage.hidden, cloth.faces, cloth.weld, rings=2)[cloth.faces].all(1)
        pressed = coverage.hidden.astype(np.float32)
    if not visible.any():
        return None
    if layer.world is not None:
        posed = layer.world
    elif layer.falls is None:
        posed = figure.pose(vertices, cloth.weights)
        if layer.wrinkles is not None:
            posed = wrinkled(cloth, layer.wrinkles, posed)
    else:
        posed = drape(cloth.moved(vertices), layer.falls.pressed(pressed, cloth.weld), figure, carried_by, still)
        if layer.shorter is not None and figure.bones is not None and pierced(posed, cloth.faces, figure.bones):
            return dressed_mesh(layer.shorter, layers, template, figure, carried_by, still)
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
