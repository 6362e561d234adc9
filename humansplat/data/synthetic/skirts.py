"""What hangs from the waist: skirts, the skirts of dresses and coats. They fall on the posed body."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary
from humansplat.data.synthetic.cloth import Cloth, grid_faces, inflate, smooth_noise
from humansplat.data.synthetic.drape import fabric
from humansplat.data.synthetic.layers import Layer
from humansplat.data.synthetic.shells import Surface, skin_pattern, sleeve_length, top_cloth

COLUMNS = 120
"""Vertices around a skirt: five for each of two dozen pleats."""
SPACING = 0.03
"""Distance of the rings of a skirt, metres."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a skirt is cut; lengths on the mean adult, metres."""

    waist: float
    """Height of the upper end."""
    hem: float
    """Mean height of the lower end."""
    flare: float
    """By how much the radius grows down to the floor."""
    folds: float
    """Folds around."""
    depth: float
    """Amplitude of the folds at the hem."""
    sharpness: float
    """0 for waves, 1 for pleats."""
    uneven: float
    """Amplitude of the hem's unevenness."""
    gap: float = 0.0
    """Angle left open in front, radians (coats)."""
    extra: float = 0.0
    """Distance from the body beyond the usual."""
    stiff: float = 0.1
    """Resistance against folds, in ``[0, 1]``."""


def draw_cut(
    rng: np.random.Generator, room: float, *, waist: float, hem: float, gap: float = 0.0, extra: float = 0.0
) -> Cut:
    """Draw a narrow, flared, wide, gathered or pleated skirt.

    Args:
        rng: Source of all choices.
        room: How far the thighs are spread or lifted, radians: who takes long steps wears no narrow skirt.
        waist: Height of the upper end.
        hem: Height of the lower end.
        gap: Angle left open in front, radians.
        extra: Distance from the body beyond the usual, metres.
    """
    u = rng.uniform
    kind = str(rng.choice(["narrow", "flared", "wide", "gathered", "pleated"], p=[0.15, 0.3, 0.2, 0.2, 0.15]))
    flare, folds, depth, sharpness = {
        "narrow": (u(0.0, 0.08), u(4, 8), u(0.0, 0.008), 0.0),
        "flared": (u(0.1, 0.3), u(5, 10), u(0.012, 0.03), u(0.0, 0.4)),
        "wide": (u(0.3, 0.55), u(7, 12), u(0.025, 0.05), u(0.2, 0.7)),
        "gathered": (u(0.12, 0.35), u(12, 18), u(0.01, 0.022), u(0.0, 0.5)),
        "pleated": (u(0.08, 0.3), u(18, 26), u(0.008, 0.014), 1.0),
    }[kind]
    needed = 1.1 * np.sin(min(room, 2.4) / 2) * min(1.0, (waist - hem) / 0.45)
    hem = max(hem, 0.3 * min(max(room - 0.8, 0.0), 1.0) + 0.1)
    return Cut(
        waist=waist,
        hem=hem,
        flare=float(max(flare, 0.95 * needed)),
        folds=float(folds),
        depth=float(1.3 * depth + 0.02 * needed),
        sharpness=float(sharpness),
        uneven=float(u(0.002, 0.02)),
        gap=gap,
        extra=extra,
        stiff=float(u(0.03, 0.25)),
    )


def draw_skirt(library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int, room: float) -> Layer:
    """A skirt from mini to floor length."""
    hem = _skirt_hem(rng)
    cut = draw_cut(rng, room, waist=float(rng.uniform(1.02, 1.1)), hem=hem)
    cloth, canvas = skirt_cloth(surface, rng, cut)
    colors, name = patterns.draw_pattern(canvas, rng)
    texture = canvas.finish(patterns.weave(colors, canvas, rng))
    return hung(cloth, cut, texture, rank, f"skirt {hem:.2f} {name}")


def draw_dress(
    library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int, room: float
) -> list[Layer]:
    """A dress: a top and a skirt of one cloth."""
    colors_seed = int(rng.integers(2**31))
    texture, colors = skin_pattern(library, np.random.default_rng(colors_seed))
    waist = float(rng.uniform(1.02, 1.12))
    loose = float(rng.uniform(0.0, 0.35))
    cloth, name = top_cloth(surface, rng, hem=waist - 0.03, sleeve=sleeve_length(rng), loose=loose)
    cut = draw_cut(rng, room, waist=waist, hem=_skirt_hem(rng), extra=0.006)
    skirt, canvas = skirt_cloth(surface, rng, cut)
    same = np.random.default_rng(colors_seed)
    painted, _ = patterns.draw_pattern(canvas, same)
    return [
        Layer(cloth=cloth, texture=texture, rank=rank, name=f"dress {name} {colors}").softened(
            surface.template, rng, loose
        ),
        hung(skirt, cut, canvas.finish(patterns.weave(painted, canvas, same)), rank, "dress skirt"),
    ]


def draw_coat(
    library: AssetLibrary, surface: Surface, rng: np.random.Generator, rank: int, room: float, *, long: bool
) -> list[Layer]:
    """A jacket, waistcoat or coat, open or closed; long ones have skirts."""
    colors_seed = int(rng.integers(2**31))
    texture, colors = skin_pattern(library, np.random.default_rng(colors_seed))
    sleeve = float(rng.uniform(0.92, 1.02) if rng.random() < 0.8 else rng.uniform(0.0, 0.06))
    opening = bool(rng.random() < 0.65)
    hem = 1.04 if long else float(rng.uniform(0.9, 1.02))
    loose = float(rng.uniform(0.3, 0.7) if long else rng.uniform(0.6, 1.0))
    cloth, name = top_cloth(surface, rng, hem=hem, sleeve=sleeve, loose=loose, opening=opening)
    cloth = inflate(cloth, np.full(len(cloth.vertices), 0.012, np.float32))
    top = Layer(cloth=cloth, texture=texture, rank=rank, name=f"coat {name} {colors}")
    layers = [top.softened(surface.template, rng, loose)]
    if long:
        cut = draw_cut(
            rng,
            0.5 * room,
            waist=1.08,
            hem=float(rng.uniform(0.35, 0.8)),
            gap=0.5 if opening else 0.0,
            extra=0.014 + 0.03 * loose,
        )
        skirt, canvas = skirt_cloth(surface, rng, cut)
        same = np.random.default_rng(colors_seed)
        painted, _ = patterns.draw_pattern(canvas, same)
        skirts = canvas.finish(patterns.weave(painted, canvas, same))
        layers.append(hung(skirt, cut, skirts, rank, "coat skirts"))
    return layers


def _skirt_hem(rng: np.random.Generator) -> float:
    low, high = ((0.6, 0.75), (0.4, 0.6), (0.1, 0.4))[int(rng.integers(3))]
    return float(rng.uniform(low, high))


FIRM = np.float32(0.5)
"""How firmly the thighs carry that along where it does not help either."""
SHORT = 0.66
"""Height of the hem of what is worn instead where a leg breaks through, metres on the mean adult."""


def hung(cloth: Cloth, cut: Cut, texture: np.ndarray, rank: int, name: str) -> Layer:
    """A skirt as a layer that follows the body at the waist and falls below."""
    height = cloth.canonical[:, 1]
    hold = np.clip((height - (cut.waist - 0.12)) / 0.07, 0, 1)
    woven = fabric(cloth, hold, bending=cut.stiff, clearance=0.011 + 0.4 * cut.extra)
    shorter = None
    if cut.hem < SHORT - SPACING:
        upper = cloth.select((height > SHORT)[cloth.faces].all(1))
        shorter = hung(upper, replace(cut, hem=SHORT), texture, rank, f"{name} cut")
        assert shorter.falls is not None
        firm = replace(shorter.falls, hold=np.maximum(shorter.falls.hold, FIRM))
        shorter = replace(shorter, shorter=replace(shorter, falls=firm))
    return Layer(cloth=cloth, texture=texture, rank=rank, name=name, falls=woven, shorter=shorter)


def skirt_cloth(surface: Surface, rng: np.random.Generator, cut: Cut) -> tuple[Cloth, patterns.Canvas]:
    """A surface of revolution about the body: as wide as the body above each height, flared, with folds.

    Args:
        surface: The person.
        rng: Source of folds and hem.
        cut: Its measures.

    Returns:
        The skirt, and the pixels of its texture.
    """
    cloth, regions = surface.cloth, surface.regions
    body = regions.arm(cloth) < 0.3
    turn = np.linspace(cut.gap / 2, 2 * np.pi - cut.gap / 2, COLUMNS + 1)
    directions = np.stack([np.sin(turn), np.cos(turn)], 1)  # x, z; the opening looks to +Z
    slant = np.maximum(directions @ directions.T, 0.15)
    rows = max(round((cut.waist - cut.hem) / SPACING), 6)
    down = np.linspace(0, 1, rows)[:, None]
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], 1)  # noise that closes around
    hem = cut.hem + cut.uneven * smooth_noise(ring.astype(np.float32), rng, 1.5)
    levels = cut.waist + (hem - cut.waist) * down  # [rows, columns]
    folds = _folds(ring, turn, down, cut, rng)
    share = (cut.waist - levels) / max(cut.waist - 0.1, 0.1)

    def place(points: Float[np.ndarray, "n 3"], heights: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c 3"]:
        trunk = points[body & (cloth.canonical[:, 1] > 0.7) & (cloth.canonical[:, 1] < 1.1)]
        middle = 0.5 * (trunk[:, 2].min() + trunk[:, 2].max())
        radius = np.zeros(len(turn))
        radii = []
        for level in levels.mean(1):
            band = body & (np.abs(cloth.canonical[:, 1] - level) < 0.02)
            if band.any() and level > 0.55:
                flat = points[band][:, [0, 2]] - [0.0, middle]
                hull = ((flat @ directions.T).max(0) / slant).min(1)  # as far as the tangents let it go
                radius = np.maximum(radius * 0.995, hull)
            radii.append(radius)
        # Folds start where the skirt leaves the hips; inwards they may not enter the body.
        r = np.stack(radii) + 0.008 + cut.extra + 0.6 * cut.flare * share + folds
        return np.stack([r * directions[:, 0], heights, r * directions[:, 1] + middle], -1)

    canonical = place(cloth.canonical, levels)
    vertices = place(cloth.vertices, surface.height(levels))
    index = np.arange(levels.size).reshape(levels.shape)
    across, up = np.broadcast_arrays(np.linspace(0, 1, COLUMNS + 1), 1 - down)
    weld = index.copy()
    if cut.gap == 0.0:
        weld[:, -1] = weld[:, 0]
    skirt = Cloth(
        vertices=vertices.reshape(-1, 3).astype(np.float32),
        faces=grid_faces(*levels.shape),
        uvs=np.stack([across, up], -1).reshape(-1, 2).astype(np.float32),
        canonical=canonical.reshape(-1, 3).astype(np.float32),
        weights=_skirt_weights(surface, canonical.reshape(-1, 3), cut.waist),
        weld=weld.ravel(),
    )
    return skirt, _skirt_canvas(canonical, turn)


def _folds(
    ring: Float[np.ndarray, "c 3"],
    turn: Float[np.ndarray, " c"],
    down: Float[np.ndarray, "r 1"],
    cut: Cut,
    rng: np.random.Generator,
) -> Float[np.ndarray, "r c"]:
    """Radial waves that begin at the hips and deepen towards the hem, each of its own width, depth and lean."""
    ring = ring.astype(np.float32)
    even = cut.sharpness >= 1
    warp = (0.1 if even else 0.9) * smooth_noise(ring, rng, 1.8)
    count = round(cut.folds)  # a whole number, so that the last fold meets the first
    phase = count * turn + warp + rng.uniform(0, 2 * np.pi)
    lean = 0.0 if even else 0.8 * smooth_noise(ring, rng, 2.0)
    phase = phase + lean * down
    wave = np.sin(phase)
    pleat = 2 / np.pi * np.arcsin(0.97 * wave)  # straight sides
    wave = (1 - cut.sharpness) * wave + cut.sharpness * pleat
    depth = 1.0 if even else np.clip(1 + 0.6 * smooth_noise(ring, rng, 1.2), 0.2, 2.0)
    start = 0.1 if even else np.clip(0.15 + 0.15 * smooth_noise(ring, rng, 1.2), 0.0, 0.5)
    growth = np.clip((down - start) / (1 - start), 0, 1) ** (0.6 if even else 0.9)
    return cut.depth * depth * growth * wave


def _skirt_canvas(canonical: Float[np.ndarray, "r c 3"], turn: Float[np.ndarray, " c"]) -> patterns.Canvas:
    size = 256
    rows, columns = np.linspace(0, len(canonical) - 1, size), np.linspace(0, len(turn) - 1, size)
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


def _skirt_weights(surface: Surface, points: Float[np.ndarray, "n 3"], waist: float) -> Float[np.ndarray, "n j"]:
    """Hang from the skin at the waist; lower down follow the thighs, and a little the shanks."""
    template = surface.template
    weights = np.zeros((len(points), len(template.joint_names)), np.float32)
    left = np.clip(points[:, 0] / 0.3 + 0.5, 0, 1)
    left = left * left * (3 - 2 * left)
    thigh = np.clip((waist - 0.06 - points[:, 1]) / 0.28, 0, 1) * 0.95
    shank = np.clip((0.5 - points[:, 1]) / 0.35, 0, 1) * 0.55
    weights[:, template.joint("root")] = 1 - thigh
    for side, share in (("L", left), ("R", 1 - left)):
        weights[:, template.joint(f"upperleg02.{side}")] = thigh * (1 - shank) * share
        weights[:, template.joint(f"lowerleg01.{side}")] = thigh * shank * share
    skin = surface.cloth
    trunk = np.flatnonzero((np.abs(skin.canonical[:, 1] - waist) < 0.2) & (surface.regions.arm(skin) < 0.1))
    high = np.flatnonzero(points[:, 1] > waist - 0.12)
    nearest = trunk[cKDTree(skin.canonical[trunk]).query(points[high])[1]]
    share = np.clip((points[high, 1:2] - (waist - 0.12)) / 0.06, 0, 1).astype(np.float32)
    weights[high] = share * skin.weights[nearest] + (1 - share) * weights[high]
    return weights
