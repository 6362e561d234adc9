"""Procedural garments that follow the body: shells around parts of the skin, and skirts hung from the waist."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.cloth import Cloth, inflate, normals, smooth_noise
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.regions import Regions


def skin_cloth(template: Template) -> Cloth:
    """The skin of the mean adult as a piece, vertices split along its texture's seams."""
    pairs = template.skin_faces.ravel() * len(template.uvs) + template.uv_faces.ravel()
    unique, compact = np.unique(pairs, return_inverse=True)
    vertex, uv = np.divmod(unique, len(template.uvs))
    ids = template.skin_ids[vertex]
    return Cloth(
        vertices=template.canonical[ids],
        faces=compact.reshape(-1, 3),
        uvs=template.uvs[uv],
        canonical=template.canonical[ids],
        weights=template.weights[ids],
        weld=vertex,
    )


class Surface:
    """The skin of one person at rest as a piece that shells are cut from."""

    def __init__(self, library: AssetLibrary, rest: Float[np.ndarray, "b 3"]) -> None:
        """Cut nothing yet.

        Args:
            library: Keeps what all people share.
            rest: The shaped base mesh.
        """
        self.template = library.template
        self.regions = Regions(self.template)
        cloth = library.cached(("skin cloth",), lambda: skin_cloth(self.template))
        self.cloth = cloth.moved(rest[self.template.skin_ids[cloth.weld]])

    @cached_property
    def floor(self) -> float:
        """Height of the lowest vertex."""
        return float(self.cloth.vertices[:, 1].min())

    def height(self, canonical: float) -> float:
        """Height on this body at rest of a height on the mean adult."""
        order = np.array(["foot.L", "lowerleg01.L", "upperleg01.L", "spine03", "spine01", "neck01", "head"])
        means = [0.0] + [float(self.regions.place(name)[1]) for name in order]
        near = [self.floor]
        trunk = self.cloth
        for mean in means[1:]:
            band = np.abs(trunk.canonical[:, 1] - mean) < 0.02
            band &= np.abs(trunk.canonical[:, 0]) < 0.25
            near.append(float(trunk.vertices[band, 1].mean()))
        return float(np.interp(canonical, means, near))

    def shell(self, inside: Float[np.ndarray, " n"], thickness: Float[np.ndarray, " n"], smoothing: int) -> Cloth:
        """Cut a region out of the skin, iron out the anatomy and lift it off.

        Args:
            inside: Positive where cloth is, for each vertex of ``self.cloth``.
            thickness: Distance from the skin, metres.
            smoothing: Steps of diffusion of the shape; more is looser.
        """
        cloth = self.cloth.clip(inside)
        outward = normals(self.cloth.vertices, self.cloth.faces, self.cloth.weld)
        lifted = self.cloth.moved(self.cloth.vertices + outward * thickness[:, None]).clip(inside)
        lift = np.linalg.norm(lifted.vertices - cloth.vertices, axis=1)
        smoothed = cloth.smooth(cloth.vertices, smoothing, 0.6) if smoothing else cloth.vertices
        # Diffusion shrinks; what it takes away from the body's girth is given back by lifting.
        sunk = np.linalg.norm(smoothed - cloth.vertices, axis=1)
        return inflate(cloth.moved(smoothed), lift + 0.7 * np.minimum(sunk, 0.02))


def skin_canvas(library: AssetLibrary) -> patterns.Canvas:
    """The pixels of the skin's texture, kept in the library's cache."""

    def make() -> patterns.Canvas:
        cloth = skin_cloth(library.template)
        return patterns.canvas(library.template, cloth.uvs, cloth.faces, cloth.canonical, library.texture_size)

    return library.cached(("canvas", "skin"), make)


def skin_pattern(library: AssetLibrary, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """A cloth pattern in the texture space of the skin."""
    surface = skin_canvas(library)
    colors, name = patterns.draw_pattern(surface, rng)
    return surface.finish(patterns.weave(colors, surface, rng)), name


def draw_top(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> Layer:
    """A T-shirt, blouse, jumper, vest or crop top."""
    texture, colors = skin_pattern(library, rng)
    hem = float(rng.uniform(0.9, 0.99) if rng.random() < 0.88 else rng.uniform(1.0, 1.2))
    cloth, name = _top_cloth(surface, rng, hem=hem, sleeve=_sleeve_length(rng), loose=float(rng.beta(1.2, 2.5)))
    return Layer(cloth=cloth, texture=texture, rank=rank, name=f"top {name} {colors}")


def draw_dress(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> list[Layer]:
    """A dress: a top and a skirt of one cloth."""
    colors_seed = int(rng.integers(2**31))
    texture, colors = skin_pattern(library, np.random.default_rng(colors_seed))
    waist = float(rng.uniform(1.02, 1.12))
    cloth, name = _top_cloth(
        surface, rng, hem=waist - 0.03, sleeve=_sleeve_length(rng), loose=float(rng.uniform(0.0, 0.35))
    )
    skirt, canvas = skirt_cloth(surface, rng, waist=waist, hem=_skirt_hem(rng), extra=0.006)
    same = np.random.default_rng(colors_seed)
    painted, _ = patterns.draw_pattern(canvas, same)
    return [
        Layer(cloth=cloth, texture=texture, rank=rank, name=f"dress {name} {colors}"),
        Layer(
            cloth=skirt, texture=canvas.finish(patterns.weave(painted, canvas, same)), rank=rank, name="dress skirt"
        ),
    ]


def _skirt_hem(rng: np.random.Generator) -> float:
    low, high = ((0.6, 0.75), (0.4, 0.6), (0.1, 0.4))[int(rng.integers(3))]
    return float(rng.uniform(low, high))


def _sleeve_length(rng: np.random.Generator) -> float:
    kind = rng.choice(["none", "short", "half", "long"], p=[0.17, 0.33, 0.15, 0.35])
    low, high = {"none": (0.0, 0.06), "short": (0.15, 0.35), "half": (0.35, 0.75), "long": (0.9, 1.02)}[str(kind)]
    return float(rng.uniform(low, high))


def _top_cloth(
    surface: Surface, rng: np.random.Generator, *, hem: float, sleeve: float, loose: float, opening: bool = False
) -> tuple[Cloth, str]:
    cloth, regions = surface.cloth, surface.regions
    height = cloth.canonical[:, 1]
    neck = rng.choice(["round", "vee", "scoop", "high"], p=[0.5, 0.2, 0.15, 0.15])
    if neck == "high":
        neckline = rng.uniform(1.53, 1.58) - height
    else:
        depth = {"round": (0.02, 0.05), "vee": (0.08, 0.2), "scoop": (0.06, 0.14)}[str(neck)]
        neckline = regions.neckline(
            cloth, float(rng.uniform(0.07, 0.11)), float(rng.uniform(*depth)), 0.9 if neck == "vee" else 0.0
        )
    inside = np.minimum.reduce(
        [height - hem + (regions.arm(cloth) > 0.3) * 9.0, regions.sleeve(cloth, sleeve), neckline, 1.62 - height]
    )
    if opening:
        gap = 0.03 + 0.03 * rng.random() + 0.12 * rng.random() * (1.35 - height)
        front = cloth.canonical[:, 2] > 0.09
        inside = np.where(front, np.minimum(inside, np.abs(cloth.canonical[:, 0]) - gap), inside)
    inside = cloth.smooth(inside[:, None], 2)[:, 0]
    down = np.clip((1.35 - height) / 0.45, 0, 1) * (1 - regions.arm(cloth)) + np.clip(
        regions.along_arm(cloth), 0, 1
    ) * regions.arm(cloth)
    noise = smooth_noise(cloth.canonical, rng, float(rng.uniform(0.1, 0.3)))
    thickness = 0.006 + 0.012 * loose + (0.03 * loose) * down + (0.002 + 0.006 * loose) * noise
    return surface.shell(inside, np.maximum(thickness, 0.004), int(3 + 14 * loose)), f"{neck}/{sleeve:.2f}/{loose:.2f}"


def draw_trousers(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> Layer:
    """Leggings, trousers, flares or shorts."""
    texture, colors = skin_pattern(library, rng)
    cloth, regions = surface.cloth, surface.regions
    height = cloth.canonical[:, 1]
    cuff = float(rng.uniform(0.06, 0.13) if rng.random() < 0.65 else rng.uniform(0.25, 0.78))
    waist = float(rng.uniform(0.98, 1.1))
    loose = float(rng.beta(1.2, 2.0))
    inside = np.minimum.reduce(
        [waist - height, height - cuff, 0.5 - regions.arm(cloth), 0.4 - regions.foot(cloth) + (height > 0.1)]
    )
    flare = rng.uniform(-0.02, 0.05) * loose
    drop = np.clip((0.85 - height) / 0.75, 0, 1)
    noise = smooth_noise(cloth.canonical, rng, float(rng.uniform(0.1, 0.25)))
    thickness = 0.005 + 0.02 * loose + flare * drop + (0.001 + 0.006 * loose) * noise
    shell = surface.shell(inside, np.maximum(thickness, 0.004), int(3 + 8 * loose))
    return Layer(cloth=shell, texture=texture, rank=rank, name=f"trousers {cuff:.2f}/{loose:.2f} {colors}")


RINGS, COLUMNS = 28, 72


def draw_skirt(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> Layer:
    """A skirt from mini to floor length."""
    hem = _skirt_hem(rng)
    cloth, surface_canvas = skirt_cloth(surface, rng, waist=float(rng.uniform(0.99, 1.09)), hem=hem)
    colors, name = patterns.draw_pattern(surface_canvas, rng)
    texture = surface_canvas.finish(patterns.weave(colors, surface_canvas, rng))
    return Layer(cloth=cloth, texture=texture, rank=rank, name=f"skirt {hem:.2f} {name}")


def skirt_cloth(
    surface: Surface, rng: np.random.Generator, *, waist: float, hem: float, gap: float = 0.0, extra: float = 0.0
) -> tuple[Cloth, patterns.Canvas]:
    """A surface of revolution about the body: as wide as the body above each height, flared, with folds.

    Args:
        surface: The person.
        rng: Source of flare and folds.
        waist: Upper end, height on the mean adult, metres.
        hem: Lower end.
        gap: Angle left open in front, radians (coats).
        extra: Distance from the body beyond the usual, metres.

    Returns:
        The skirt, and the pixels of its texture.
    """
    cloth, regions = surface.cloth, surface.regions
    body = regions.arm(cloth) < 0.3
    turn = np.linspace(gap / 2, 2 * np.pi - gap / 2, COLUMNS + 1)
    directions = np.stack([np.sin(turn), np.cos(turn)], 1)  # x, z; the opening looks to +Z
    levels = np.linspace(waist, hem, RINGS)
    flare, depth = rng.uniform(0.0, 0.45), rng.uniform(0.0, 0.05)
    folds, phase = int(rng.integers(5, 16)), rng.uniform(0, 2 * np.pi)
    profile = rng.choice([0.7, 1.0, 1.6])
    lift = 0.008 + extra

    def rings(points: np.ndarray, to_height: np.ndarray) -> np.ndarray:
        trunk = points[body & (cloth.canonical[:, 1] > 0.7) & (cloth.canonical[:, 1] < 1.1)]
        center = np.array([0.0, 0.5 * (trunk[:, 2].min() + trunk[:, 2].max())])
        radius = np.zeros(len(turn))
        result = []
        for level, height in zip(levels, to_height, strict=True):
            band = body & (np.abs(cloth.canonical[:, 1] - level) < 0.02)
            if band.any() and level > 0.55:
                flat = points[band][:, [0, 2]] - center
                support = (flat @ directions.T).max(0)
                radius = np.maximum(radius * 0.995, support)
            share = ((waist - level) / max(waist - 0.1, 0.1)) ** profile
            fold = depth * share * np.sin(folds * turn + phase) * (1 if gap == 0 else 0.6)
            r = radius + lift + flare * share * 0.6 + fold
            result.append(
                np.column_stack([r * directions[:, 0], np.full(len(turn), height), r * directions[:, 1] + center[1]])
            )
        return np.stack(result)

    canonical = rings(cloth.canonical, levels)
    vertices = rings(cloth.vertices, np.array([surface.height(float(level)) for level in levels]))
    index = np.arange(RINGS * (COLUMNS + 1)).reshape(RINGS, COLUMNS + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    across, down = np.meshgrid(np.linspace(0, 1, COLUMNS + 1), np.linspace(1, 0, RINGS))
    weld = index.copy()
    if gap == 0.0:
        weld[:, -1] = weld[:, 0]
    skirt = Cloth(
        vertices=vertices.reshape(-1, 3).astype(np.float32),
        faces=faces,
        uvs=np.stack([across, down], -1).reshape(-1, 2).astype(np.float32),
        canonical=canonical.reshape(-1, 3).astype(np.float32),
        weights=_skirt_weights(surface.template, canonical.reshape(-1, 3), waist),
        weld=weld.ravel(),
    )
    return skirt, _skirt_canvas(canonical, levels, turn)


def _skirt_canvas(
    canonical: Float[np.ndarray, "r c 3"], levels: Float[np.ndarray, " r"], turn: Float[np.ndarray, " c"]
) -> patterns.Canvas:
    size = 256
    rows, columns = np.linspace(0, len(levels) - 1, size), np.linspace(0, len(turn) - 1, size)
    grid = np.meshgrid(rows, columns, indexing="ij")
    points = np.stack([map_coordinates(canonical[..., k], grid, order=1, mode="nearest") for k in range(3)], -1)
    around = 0.22 * (np.interp(columns, np.arange(len(turn)), turn) - np.pi)  # so that stripes keep their width
    coordinates = np.stack([points[..., 1], np.broadcast_to(around, (size, size)), points[..., 2]], -1)
    every = np.arange(size * size)
    return patterns.Canvas(
        pixels=every,
        nearest=every,
        points=points.reshape(-1, 3).astype(np.float32),
        coordinates=coordinates.reshape(-1, 3).astype(np.float32),
    )


def _skirt_weights(template: Template, points: Float[np.ndarray, "n 3"], waist: float) -> Float[np.ndarray, "n j"]:
    """Hang from the hips; lower down follow the thighs, and a little the shanks."""
    weights = np.zeros((len(points), len(template.joint_names)), np.float32)
    left = np.clip(points[:, 0] / 0.3 + 0.5, 0, 1)
    left = left * left * (3 - 2 * left)
    thigh = np.clip((waist - 0.06 - points[:, 1]) / 0.28, 0, 1) * 0.95
    shank = np.clip((0.5 - points[:, 1]) / 0.35, 0, 1) * 0.55
    weights[:, template.joint("root")] = 1 - thigh
    for side, share in (("L", left), ("R", 1 - left)):
        weights[:, template.joint(f"upperleg02.{side}")] = thigh * (1 - shank) * share
        weights[:, template.joint(f"lowerleg01.{side}")] = thigh * shank * share
    return weights


def draw_coat(
    library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int, *, long: bool
) -> list[Layer]:
    """A jacket, waistcoat or coat, open or closed; long ones have skirts."""
    colors_seed = int(rng.integers(2**31))
    texture, colors = skin_pattern(library, np.random.default_rng(colors_seed))
    sleeve = float(rng.uniform(0.92, 1.02) if rng.random() < 0.8 else rng.uniform(0.0, 0.06))
    opening = bool(rng.random() < 0.65)
    hem = 1.04 if long else float(rng.uniform(0.9, 1.02))
    loose = float(rng.uniform(0.3, 0.7) if long else rng.uniform(0.6, 1.0))
    cloth, name = _top_cloth(surface, rng, hem=hem, sleeve=sleeve, loose=loose, opening=opening)
    cloth = inflate(cloth, np.full(len(cloth.vertices), 0.012, np.float32))
    layers = [Layer(cloth=cloth, texture=texture, rank=rank, name=f"coat {name} {colors}")]
    if long:
        skirt, canvas = skirt_cloth(
            surface,
            rng,
            waist=1.08,
            hem=float(rng.uniform(0.35, 0.8)),
            gap=0.5 if opening else 0.0,
            extra=0.014 + 0.03 * loose,
        )
        same = np.random.default_rng(colors_seed)
        painted, _ = patterns.draw_pattern(canvas, same)
        skirts = canvas.finish(patterns.weave(painted, canvas, same))
        layers.append(Layer(cloth=skirt, texture=skirts, rank=rank, name="coat skirts"))
    return layers


def draw_shoes(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int) -> list[Layer]:
    """Boots, plain shoes or socks; or bare feet."""
    if rng.random() < 0.2:
        return []
    cloth, regions = surface.cloth, surface.regions
    height = cloth.canonical[:, 1]
    top = float(
        rng.choice([rng.uniform(0.07, 0.1), rng.uniform(0.12, 0.2), rng.uniform(0.25, 0.45)], p=[0.5, 0.3, 0.2])
    )
    inside = np.minimum(top - height, 0.5 - regions.arm(cloth))
    thickness = np.full(len(height), float(rng.uniform(0.006, 0.012)), np.float32)
    shell = surface.shell(inside, thickness, int(rng.integers(40, 70)))
    color = patterns.cloth_color(rng)
    image = np.broadcast_to(color, (64, 64, 3)) * (1 + 0.05 * rng.normal(size=(64, 64, 1)))
    return [
        Layer(
            cloth=shell,
            texture=(np.clip(image, 0, 1) * 255).astype(np.uint8),
            rank=rank,
            name=f"boots {top:.2f}",
            roughness=float(rng.uniform(0.3, 0.9)),
            specular=0.04,
        )
    ]
