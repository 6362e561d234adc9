"""Cloth colours: palettes, patterns drawn in the mean adult's space, and recoloured photographs of cloth."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from humansplat.data.synthetic import lettering
from humansplat.data.synthetic.cloth import smooth_noise
from humansplat.data.synthetic.figure import Template


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """The used pixels of a texture, and where they lie on the mean adult."""

    pixels: Int[np.ndarray, " n"]
    """Their places in the flattened texture; row 0 is the top."""
    nearest: Int[np.ndarray, " s"]
    """For every pixel of the flattened texture, the used one (of ``n``) that it repeats: islands bleed outwards."""
    points: Float[np.ndarray, "n 3"]
    """Position on the mean adult, metres."""
    coordinates: Float[np.ndarray, "n 3"]
    """``limb_coordinates`` of the points."""

    @property
    def size(self) -> int:
        """Texture side, pixels."""
        return round(len(self.nearest) ** 0.5)

    @cached_property
    def tree(self) -> cKDTree:
        """Search structure over ``points``."""
        return cKDTree(self.points)

    def finish(self, colors: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The texture of colours in ``[0, 1]``."""
        painted = (np.clip(colors, 0, 1) * 255).astype(np.uint8)
        return painted[self.nearest].reshape(self.size, self.size, 3)

    def sample(self, image: np.ndarray) -> np.ndarray:
        """Values of another texture of the same layout, of any size, at the used pixels."""
        rows, columns = np.divmod(self.pixels, self.size)
        return image[rows * image.shape[0] // self.size, columns * image.shape[1] // self.size]


def canvas(
    template: Template, uvs: Float[np.ndarray, "n 2"], faces: Int[np.ndarray, "f 3"], points: np.ndarray, size: int
) -> Canvas:
    """Find the used pixels of a texture by rays through the flat UV mesh.

    Args:
        template: The body.
        uvs: Texture coordinates, origin at the bottom left; whole numbers are dropped.
        faces: Vertex indices.
        points: The vertices on the mean adult, ``[n, 3]``.
        size: Texture side, pixels.
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    corners = np.pad(uvs[faces], ((0, 0), (0, 0), (0, 1))).astype(np.float32)
    corners[..., :2] -= np.floor(corners[..., :2].mean(1, keepdims=True))
    scene = EmbreeScene()
    TriangleMesh(scene, corners)
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    v, u = np.meshgrid(1 - centers, centers, indexing="ij")
    origins = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)
    down = np.broadcast_to(np.array([0, 0, -1], np.float32), origins.shape)
    hits = scene.run(origins, np.ascontiguousarray(down), query="INTERSECT", output=True)
    found = hits["primID"] >= 0
    if not found.any():  # a piece without texture coordinates: one pixel, one colour
        found[0], hits["primID"][0] = True, 0
    pixels = np.flatnonzero(found)
    face = faces[hits["primID"][pixels]]
    shares = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], -1)[pixels]
    drawn = np.einsum("nk,nkc->nc", shares, points[face]).astype(np.float32)
    row, column = distance_transform_edt(~found.reshape(size, size), return_distances=False, return_indices=True)
    order = np.cumsum(found) - 1
    return Canvas(
        pixels=pixels,
        nearest=order[(row * size + column).ravel()],
        points=drawn,
        coordinates=limb_coordinates(template, drawn),
    )


def limb_coordinates(template: Template, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Cloth coordinates of points on the mean adult: along the limb, around it, and metres in front.

    On trunk and legs the first runs up and the second to the left; on the arms, which hang slanted at rest, the
    first runs from wrist to shoulder. A seam lies at the shoulder, as sleeves have one.
    """
    coordinates = points[..., [1, 0, 2]].copy()
    for side, sign in (("L", 1.0), ("R", -1.0)):
        shoulder = template.joints[template.joint(f"upperarm01.{side}")]
        elbow = template.joints[template.joint(f"lowerarm01.{side}")]
        along = (shoulder - elbow) / np.linalg.norm(shoulder - elbow)
        across = np.array([along[1], -along[0], 0.0]) * sign
        relative = points - shoulder
        arm = (relative @ along < 0.0) & (points[..., 0] * sign > shoulder[0] * sign - 0.02)
        arm &= points[..., 1] > template.joints[template.joint("root"), 1] - 0.05
        turned = np.stack([shoulder[1] + relative @ along, shoulder[0] + relative @ across, points[..., 2]], -1)
        coordinates[arm] = turned[arm]
    return coordinates.astype(np.float32)


def cloth_color(rng: np.random.Generator) -> Float[np.ndarray, " 3"]:
    """An sRGB colour as clothes have: many neutrals and blues, some loud ones."""
    kind = rng.choice(["neutral", "denim", "earth", "muted", "loud", "pastel"], p=[0.3, 0.12, 0.12, 0.2, 0.16, 0.1])
    u = rng.uniform
    if kind == "neutral":
        value = rng.choice([u(0.03, 0.2), u(0.2, 0.55), u(0.6, 0.97)], p=[0.4, 0.25, 0.35])
        return np.clip(value * (1 + rng.normal(0, 0.03, 3)), 0, 1)
    hue, saturation, value = {
        "denim": lambda: (u(0.56, 0.66), u(0.3, 0.7), u(0.2, 0.7)),
        "earth": lambda: (u(0.04, 0.17), u(0.25, 0.7), u(0.2, 0.75)),
        "muted": lambda: (u(0, 1), u(0.15, 0.5), u(0.25, 0.75)),
        "loud": lambda: (u(0, 1), u(0.65, 1.0), u(0.4, 0.95)),
        "pastel": lambda: (u(0, 1), u(0.1, 0.35), u(0.75, 1.0)),
    }[str(kind)]()
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _mix(first: np.ndarray, second: np.ndarray, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    share = np.clip(share, 0, 1).astype(np.float32)[:, None]
    return first * (1 - share) + second * share


def _edge(value: np.ndarray, softness: float) -> np.ndarray:
    """0 below zero, 1 above, with an edge as wide as a texture pixel or two."""
    return np.clip(value / softness + 0.5, 0, 1)


def _stripes(position: np.ndarray, period: float, duty: float, phase: float) -> np.ndarray:
    wave = np.abs((position / period + phase) % 1.0 - 0.5) * 2  # 0 in the middle of a stripe
    return _edge((duty - wave) * period, 0.004)


def draw_pattern(
    surface: Canvas, rng: np.random.Generator, *, lettered: bool = True
) -> tuple[Float[np.ndarray, "n 3"], str]:
    """Draw a cloth pattern: the used pixels in sRGB, and its name.

    Args:
        surface: The texture.
        rng: Source of all choices.
        lettered: Whether prints have letters; validation people keep the strokes that they always had.
    """
    colors = [cloth_color(rng).astype(np.float32) for _ in range(3)]
    if np.abs(colors[0] - colors[1]).max() < 0.15:
        colors[1] = np.clip(1.0 - colors[0], 0.05, 0.95)
    names = list(PATTERNS)
    name = str(rng.choice(names, p=[PATTERNS[name][0] for name in names]))
    image = PATTERNS[name][1](surface, colors, rng)
    if not lettered:
        if rng.random() < 0.3:
            image, name = _strokes(image, surface.points, colors[2], rng), f"{name}+print"
        return image, name
    if np.abs(colors[2] - colors[0]).max() < 0.25:  # prints are to be seen
        colors[2] = np.clip(1.0 - colors[0], 0.03, 0.97)
    if rng.random() < 0.35:
        image = _print(surface, image, colors, rng)
        name += "+print"
    return image, name


Colors = list[np.ndarray]


def _plain(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(colors[0], surface.points.shape).copy()


def _striped(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    axis, period = int(rng.random() < 0.35), rng.uniform(0.015, 0.14)
    stripes = _stripes(surface.coordinates[:, axis], period, rng.uniform(0.15, 0.6), rng.uniform())
    return _mix(colors[0], colors[1], stripes)


def _checked(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    period, duty = rng.uniform(0.03, 0.15), rng.uniform(0.2, 0.55)
    along, around = surface.coordinates[:, 0], surface.coordinates[:, 1]
    rows, columns = (_stripes(position, period, duty, rng.uniform()) for position in (along, around))
    image = _mix(colors[0], colors[1], 0.5 * (rows + columns))
    if rng.random() < 0.5:  # tartan: a thin third colour
        thin = np.maximum(*(_stripes(position, period, 0.06, rng.uniform()) for position in (along, around)))
        image = _mix(image, colors[2], 0.8 * thin)
    return image


def _dotted(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    period, radius = rng.uniform(0.03, 0.12), rng.uniform(0.15, 0.35)
    along, around = surface.coordinates[:, 0] / period, surface.coordinates[:, 1] / period
    x = (around + 0.5 * (np.floor(along) % 2)) % 1.0 - 0.5
    return _mix(colors[0], colors[1], _edge((radius - np.hypot(x, along % 1.0 - 0.5)) * period, 0.004))


def _blotched(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    scale, softness = rng.uniform(0.08, 0.35), rng.choice([0.05, 0.5])
    first, second = (smooth_noise(surface.points, rng, scale) for _ in range(2))
    return _mix(_mix(colors[0], colors[1], _edge(first, softness)), colors[2], _edge(second - 0.2, softness))


def _graded(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    low, high = sorted(rng.uniform(0.1, 1.6, 2))
    return _mix(colors[0], colors[1], (surface.coordinates[:, 0] - low) / max(high - low, 0.1))


def _blocked(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    """Two tones that change at a height, or sides and sleeves of a third."""
    image = _mix(colors[0], colors[1], _edge(surface.coordinates[:, 0] - rng.uniform(0.4, 1.4), 0.005))
    if rng.random() < 0.5:
        image = _mix(image, colors[2], _edge(np.abs(surface.points[:, 0]) - rng.uniform(0.06, 0.2), 0.005))
    return image


def _flowered(surface: Canvas, colors: Colors, rng: np.random.Generator) -> np.ndarray:
    """Large flowers or splashes."""
    image = _plain(surface, colors, rng)
    petals, spread = int(rng.integers(3, 7)), rng.uniform(0.02, 0.05)
    low, high = surface.points.min(0), surface.points.max(0)
    for spot in rng.uniform(low, high, (int(rng.integers(40, 130)), 3)):
        near = surface.tree.query_ball_point(spot, 2 * spread)
        if near:
            x, y, z = (surface.points[near] - spot).T
            reach = spread * rng.uniform(0.7, 1.4) * (1 + 0.35 * np.sin(np.arctan2(y, x) * petals))
            share = _edge(reach - np.sqrt(x * x + y * y + z * z), 0.004)
            image[near] = _mix(image[near], colors[int(rng.integers(1, 3))], share)
    return image


PATTERNS: dict[str, tuple[float, Callable[[Canvas, Colors, np.random.Generator], np.ndarray]]] = {
    "plain": (0.42, _plain),
    "stripes": (0.13, _striped),
    "checks": (0.1, _checked),
    "dots": (0.05, _dotted),
    "blotches": (0.07, _blotched),
    "gradient": (0.06, _graded),
    "blocks": (0.09, _blocked),
    "flowers": (0.08, _flowered),
}
"""Share and painter of each pattern."""


def _print(surface: Canvas, image: Float[np.ndarray, "n 3"], colors: Colors, rng: np.random.Generator) -> np.ndarray:
    """Print words, a number or a mark on the chest or the back, or stripes along sleeves and legs."""
    points = surface.points
    kind = str(rng.choice(["words", "number", "badge", "stripes"], p=[0.4, 0.18, 0.22, 0.2]))
    if kind == "stripes":
        return _side_stripes(surface, image, colors[2], rng)
    behind = bool(rng.random() < (0.6 if kind == "number" else 0.2))
    on_side = points[:, 2] < 0.06 if behind else points[:, 2] > 0.08
    x, y = (-1 if behind else 1) * points[:, 0], points[:, 1] - float(rng.uniform(1.22, 1.38))
    on_arm = np.abs(points[:, 0]) > 0.24
    if kind == "words":
        mask = lettering.words(rng, float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.03, 0.12)))
        share = lettering.stamp(mask, x, y, float(rng.normal(0, 0.06)))
    elif kind == "number":
        share = lettering.stamp(lettering.number(rng, float(rng.uniform(0.12, 0.26))), x, y)
        if rng.random() < 0.5:
            name = lettering.words(rng, 0.26, 0.045)
            share = np.maximum(share, lettering.stamp(name, x, y - 0.17))
    else:
        small = rng.random() < 0.6
        mask = lettering.badge(rng, float(rng.uniform(0.05, 0.1) if small else rng.uniform(0.14, 0.26)))
        share = lettering.stamp(mask, x - (0.085 if small else 0.0), y - (0.02 if small else 0.0))
        if small and rng.random() < 0.5:
            share = np.maximum(share, lettering.stamp(lettering.words(rng, 0.11, 0.02), x - 0.085, y + 0.045))
    return _mix(image, colors[2], share * (on_side & ~on_arm))


def _side_stripes(
    surface: Canvas, image: Float[np.ndarray, "n 3"], color: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One to three stripes along the outer side of sleeves and legs, or around the upper arms."""
    count, width = int(rng.integers(1, 4)), float(rng.uniform(0.008, 0.02))
    arm = np.abs(surface.points[:, 0]) > 0.22
    if rng.random() < 0.4:
        band = np.abs(surface.coordinates[:, 0] - rng.uniform(1.22, 1.38)) - width * count
        along, on = surface.coordinates[:, 0], arm & (band < 0)
    else:
        along = surface.points[:, 2] - np.where(arm, 0.02, 0.05)
        on = (np.abs(along) < width * count) & (arm | (surface.coordinates[:, 0] < 1.0))
        on &= np.abs(surface.points[:, 0]) > 0.1
    stripes = _stripes(along, 2 * width, 0.55, rng.uniform())
    return _mix(image, color, stripes * on)


def _strokes(
    image: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "n 3"], color: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "n 3"]:
    """Print letter-like strokes or a blob: what validation people, who do not change, have for words and marks."""
    height, width = rng.uniform(0.03, 0.2), rng.uniform(0.08, 0.28)
    centre = np.array([rng.choice([0.0, 0.0, 0.08, -0.08]), rng.uniform(1.15, 1.4)])
    front = points[:, 2] > 0.09 if rng.random() < 0.75 else points[:, 2] < 0.05
    x, y = points[:, 0] - centre[0], points[:, 1] - centre[1]
    inside = front & (np.abs(x) < width / 2) & (np.abs(y) < height / 2)
    if rng.random() < 0.6:
        lines, letters = int(rng.integers(1, 4)), int(rng.integers(3, 12))
        row = np.clip(((y / height + 0.5) * lines).astype(int), 0, lines - 1)
        column = np.clip(((x / width + 0.5) * letters * 4).astype(int), 0, letters * 4 - 1)
        within = ((y / height + 0.5) * lines) % 1.0
        strokes = rng.random((lines, letters * 4, 4)) < 0.6
        strokes[:, 3::4] = False  # gaps between letters
        level = np.clip((within * 4).astype(int), 0, 3)
        share = (inside & strokes[row, column, level] & (within > 0.15)).astype(np.float32)
    else:
        ring = np.hypot(x / width, y / height) * 2
        petals = int(rng.integers(0, 8))
        shape = ring + 0.25 * np.sin(petals * np.arctan2(y, x)) * (petals > 1)
        share = (front & (shape < 1)).astype(np.float32) * (1 if rng.random() < 0.5 else (ring > 0.6))
    return _mix(image, color, share)


def weave(image: Float[np.ndarray, "n 3"], surface: Canvas, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Add what plain colours lack: faint folds, wear and weave, in light only."""
    folds = smooth_noise(surface.points[::4] * [1.0, 0.45, 1.0], rng, rng.uniform(0.08, 0.25))
    light = 1 + rng.uniform(0.0, 0.18) * np.repeat(folds, 4)[: len(image)]
    light += rng.uniform(0.0, 0.03) * rng.standard_normal(len(image), np.float32)
    return image * light[:, None].astype(np.float32)


def shading(texture: UInt8[np.ndarray, "h w 4"], surface: Canvas) -> Float[np.ndarray, " n"]:
    """Folds and seams of a photographed cloth at the used pixels: brightness against the surroundings', around 1."""
    luminance = texture[..., :3].astype(np.float32).mean(-1) / 255
    mask = np.zeros(surface.size**2, np.float32)
    mask[surface.pixels] = 1
    rows = np.arange(luminance.shape[0]) * surface.size // luminance.shape[0]
    mask = mask.reshape(surface.size, surface.size)[rows][:, rows]
    sigma = 0.04 * len(texture)
    local = gaussian_filter(luminance * mask, sigma) / np.maximum(gaussian_filter(mask, sigma), 1e-3)
    return surface.sample(np.clip((luminance + 0.08) / (local + 0.08), 0.55, 1.5))


def recolor(image: Float[np.ndarray, "n 3"], rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Shift hue, saturation, brightness and contrast of a photographed cloth; its structure stays."""
    yiq = image @ np.array([[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]], np.float32)
    angle, saturation = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.3)
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    in_phase, quadrature = yiq[..., 1] * cos - yiq[..., 2] * sin, yiq[..., 1] * sin + yiq[..., 2] * cos
    mean = yiq[..., 0].mean()
    level = rng.uniform(0.1, 0.75)
    luminance = np.clip(level + (yiq[..., 0] - mean) * rng.uniform(0.6, 1.2), 0.01, 1)
    tint = (cloth_color(rng) - 0.5) * rng.uniform(0.0, 0.5)
    back = np.array([[1, 1, 1], [0.956, -0.272, -1.106], [0.621, -0.647, 1.703]], np.float32)
    shifted = np.stack([luminance, in_phase, quadrature], -1).astype(np.float32) @ back
    return np.clip(shifted + tint * luminance[..., None], 0, 1)
