"""Procedural garments that follow the body: shells around parts of the skin, and skirts hung from the waist."""

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.cloth import Cloth, inflate, normals, smooth_noise
from humansplat.data.synthetic.drape import fabric
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.regions import Regions

CUFF = 0.15
"""How far up from the lower end one may see into a wide trouser leg, metres on the mean adult."""


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

    @cached_property
    def _heights(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Some heights on the mean adult, and on this body at rest."""
        names = ("foot.L", "lowerleg01.L", "upperleg01.L", "spine03", "spine01", "neck01", "head")
        means = [0.0] + [float(self.regions.place(name)[1]) for name in names]
        near = [self.floor]
        trunk = self.cloth
        for mean in means[1:]:
            band = np.abs(trunk.canonical[:, 1] - mean) < 0.02
            band &= np.abs(trunk.canonical[:, 0]) < 0.25
            near.append(float(trunk.vertices[band, 1].mean()))
        return np.array(means), np.array(near)

    def height(self, canonical: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Heights on this body at rest of heights on the mean adult."""
        return np.interp(canonical, *self._heights)

    def shell(
        self,
        inside: Float[np.ndarray, " n"],
        thickness: Float[np.ndarray, " n"],
        smoothing: int,
        *,
        deepest: float = math.inf,
    ) -> Cloth:
        """Cut a region out of the skin, iron out the anatomy and lift it off.

        Args:
            inside: Positive where cloth is, for each vertex of ``self.cloth``.
            thickness: Distance from the skin, metres.
            smoothing: Steps of diffusion of the shape; more is looser.
            deepest: How far under the skin diffusion may draw tips in, metres; skin under more would show.
        """
        cloth = self.cloth.clip(inside)
        outward = normals(self.cloth.vertices, self.cloth.faces, self.cloth.weld)
        lifted = self.cloth.moved(self.cloth.vertices + outward * thickness[:, None]).clip(inside)
        lift = np.linalg.norm(lifted.vertices - cloth.vertices, axis=1)
        smoothed = cloth.smooth(cloth.vertices, smoothing, 0.6) if smoothing else cloth.vertices
        # Diffusion shrinks; what it takes away from the body's girth is given back by lifting.
        sunk = np.linalg.norm(smoothed - cloth.vertices, axis=1)
        result = inflate(cloth.moved(smoothed), lift + 0.7 * np.minimum(sunk, 0.02))
        if math.isinf(deepest):
            return result
        outward = normals(cloth.vertices, cloth.faces, cloth.weld)
        depth = ((cloth.vertices - result.vertices) * outward).sum(1)
        return result.moved(result.vertices + np.maximum(depth - deepest, 0)[:, None] * outward)


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
    loose = float(rng.beta(1.2, 2.5))
    cloth, name = top_cloth(surface, rng, hem=hem, sleeve=sleeve_length(rng), loose=loose)
    layer = Layer(cloth=cloth, texture=texture, rank=rank, name=f"top {name} {colors}")
    return layer.softened(surface.template, rng, loose)


def sleeve_length(rng: np.random.Generator) -> float:
    kind = rng.choice(["none", "short", "half", "long"], p=[0.17, 0.33, 0.15, 0.35])
    low, high = {"none": (0.0, 0.06), "short": (0.15, 0.35), "half": (0.35, 0.75), "long": (0.9, 1.02)}[str(kind)]
    return float(rng.uniform(low, high))


def top_cloth(
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
    waist = float(rng.uniform(1.02, 1.1))
    loose = float(rng.beta(1.2, 2.0))
    inside = np.minimum.reduce(
        [waist - height, height - cuff, 0.5 - regions.arm(cloth), 0.4 - regions.foot(cloth) + (height > 0.1)]
    )
    wide = bool(loose > 0.35 and rng.random() < 0.4)
    flare = rng.uniform(0.04, 0.08) if wide else rng.uniform(-0.02, 0.04) * loose
    drop = np.clip((0.85 - height) / 0.75, 0, 1)
    noise = smooth_noise(cloth.canonical, rng, float(rng.uniform(0.1, 0.25)))
    thickness = 0.005 + 0.02 * loose + flare * drop + (0.001 + 0.006 * loose) * noise
    shell = surface.shell(inside, np.maximum(thickness, 0.004), int(3 + 8 * loose))
    name = f"{'wide ' * wide}trousers {cuff:.2f}/{loose:.2f} {colors}"
    layer = Layer(cloth=shell, texture=texture, rank=rank, name=name).softened(surface.template, rng, loose)
    if not wide:
        return layer
    height = layer.cloth.canonical[:, 1]
    hold = np.clip((height - 0.8) / 0.1, 0.02, 1)
    falls = fabric(layer.cloth, hold.astype(np.float32), bending=0.15, clearance=0.007)
    return replace(layer, falls=falls, closed=height > cuff + CUFF)


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
    shell = surface.shell(inside, thickness, int(rng.integers(40, 70)), deepest=0.01)  # or heels would show
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
