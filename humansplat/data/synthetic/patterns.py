"""Cloth colours: palettes, procedural patterns drawn in the mean adult's space, and recoloured photographs of cloth."""

import colorsys
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import distance_transform_edt, gaussian_filter

from humansplat.data.synthetic.cloth import smooth_noise
from humansplat.data.synthetic.figure import Template


def bake(
    uvs: Float[np.ndarray, "n 2"], faces: Int[np.ndarray, "f 3"], values: Float[np.ndarray, "n c"], size: int
) -> tuple[Float[np.ndarray, "size size c"], Bool[np.ndarray, "size size"]]:
    """Draw per-vertex values into texture space by rays through the flat UV mesh; islands bleed outwards.

    Args:
        uvs: Texture coordinates, origin at the bottom left; whole numbers are dropped.
        faces: Vertex indices.
        values: What to draw.
        size: Texture side, pixels; row 0 is the top.

    Returns:
        The texture, filled everywhere from the nearest island, and where the islands are.
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
    found = (hits["primID"] >= 0).reshape(size, size)
    face = faces[np.maximum(hits["primID"], 0)]
    shares = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], -1)
    drawn = np.einsum("nk,nkc->nc", shares, values[face]).reshape(size, size, -1)
    if found.any():
        nearest = distance_transform_edt(~found, return_distances=False, return_indices=True)
        drawn = drawn[tuple(nearest)]
    return drawn.astype(np.float32), found


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


def _mix(colors: list[np.ndarray], share: Float[np.ndarray, "..."]) -> Float[np.ndarray, "... 3"]:
    share = np.clip(share, 0, 1)[..., None]
    return colors[0] * (1 - share) + colors[1] * share


def _edge(value: np.ndarray, softness: float) -> np.ndarray:
    """0 below zero, 1 above, with an edge as wide as a texture pixel or two."""
    return np.clip(value / softness + 0.5, 0, 1)


def _stripes(c: np.ndarray, axis: int, period: float, duty: float, phase: float) -> np.ndarray:
    wave = np.abs((c[..., axis] / period + phase) % 1.0 - 0.5) * 2  # 0 in the middle of a stripe
    return _edge((duty - wave) * period, 0.004)


def draw_pattern(
    coordinates: Float[np.ndarray, "h w 3"], points: Float[np.ndarray, "h w 3"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "h w 3"], str]:
    """Draw a cloth pattern.

    Args:
        coordinates: ``limb_coordinates`` of each texture pixel.
        points: Position of each texture pixel on the mean adult, metres.
        rng: Source of all choices.

    Returns:
        sRGB, and the pattern's name.
    """
    colors = [cloth_color(rng) for _ in range(3)]
    if np.abs(colors[0] - colors[1]).max() < 0.15:
        colors[1] = np.clip(1.0 - colors[0], 0.05, 0.95)
    u = rng.uniform
    c = coordinates

    def plain() -> np.ndarray:
        return np.broadcast_to(colors[0], c.shape).copy()

    def stripes() -> np.ndarray:
        axis, period = int(rng.random() < 0.35), u(0.015, 0.14)
        return _mix(colors, _stripes(c, axis, period, u(0.15, 0.6), u(0, 1)))

    def checks() -> np.ndarray:
        period, duty = u(0.03, 0.15), u(0.2, 0.55)
        rows, columns = (_stripes(c, axis, period, duty, u(0, 1)) for axis in (0, 1))
        image = _mix(colors, 0.5 * rows + 0.5 * columns)
        if rng.random() < 0.5:  # tartan: a thin third colour
            thin = np.maximum(_stripes(c, 0, period, 0.06, u(0, 1)), _stripes(c, 1, period, 0.06, u(0, 1)))
            image = image * (1 - 0.8 * thin[..., None]) + colors[2] * 0.8 * thin[..., None]
        return image

    def dots() -> np.ndarray:
        period, radius = u(0.03, 0.12), u(0.15, 0.35)
        row = np.floor(c[..., 0] / period)
        x = (c[..., 1] / period + 0.5 * (row % 2)) % 1.0 - 0.5
        y = (c[..., 0] / period) % 1.0 - 0.5
        return _mix(colors, _edge((radius - np.hypot(x, y)) * period, 0.004))

    def camouflage() -> np.ndarray:
        flat = points.reshape(-1, 3)
        scale, softness = u(0.08, 0.35), rng.choice([0.02, 0.5])
        first, second = (smooth_noise(flat, rng, scale, 3).reshape(c.shape[:2]) for _ in range(2))
        image = _mix(colors, _edge(first, softness))
        share = _edge(second - 0.2, softness)[..., None]
        return image * (1 - share) + colors[2] * share

    def gradient() -> np.ndarray:
        low, high = sorted(u(0.1, 1.6, 2))
        return _mix(colors, (c[..., 0] - low) / max(high - low, 0.1))

    def blocks() -> np.ndarray:  # two or three tones at heights or sides
        image = _mix(colors, _edge(c[..., 0] - u(0.4, 1.4), 0.005))
        if rng.random() < 0.5:
            side = _edge(np.abs(c[..., 1]) - u(0.06, 0.2), 0.005)[..., None]
            image = image * (1 - side) + colors[2] * side
        return image

    def motifs() -> np.ndarray:  # large flowers or splashes
        image = plain()
        spots = rng.uniform([-0.6, 0.0, -0.1], [0.6, 1.6, 0.4], (70, 3))
        for spot in spots:
            distance = np.linalg.norm(points - spot, axis=-1)
            angle = np.arctan2(points[..., 1] - spot[1], points[..., 0] - spot[0])
            petal = u(0.02, 0.06) * (1 + 0.35 * np.sin(angle * int(rng.integers(3, 7)) + u(0, 6)))
            share = _edge(petal - distance, 0.004)[..., None]
            image = image * (1 - share) + colors[int(rng.integers(1, 3))] * share
        return image

    kinds: dict[str, tuple[float, Callable[[], np.ndarray]]] = {
        "plain": (0.42, plain), "stripes": (0.13, stripes), "checks": (0.1, checks), "dots": (0.05, dots),
        "camouflage": (0.07, camouflage), "gradient": (0.06, gradient), "blocks": (0.09, blocks),
        "motifs": (0.08, motifs),
    }  # fmt: skip
    names = list(kinds)
    name = str(rng.choice(names, p=[kinds[name][0] for name in names]))
    image = kinds[name][1]()
    if rng.random() < 0.3:
        image = _print(image, points, colors[2], rng)
        name += "+print"
    return np.clip(image, 0, 1), name


def _print(
    image: Float[np.ndarray, "h w 3"], points: Float[np.ndarray, "h w 3"], color: np.ndarray, rng: np.random.Generator
) -> Float[np.ndarray, "h w 3"]:
    """Print lines of letter-like strokes, or a badge, on the chest or the back."""
    height, width = rng.uniform(0.03, 0.2), rng.uniform(0.08, 0.28)
    centre = np.array([rng.choice([0.0, 0.0, 0.08, -0.08]), rng.uniform(1.15, 1.4)])
    front = points[..., 2] > 0.09 if rng.random() < 0.75 else points[..., 2] < 0.05
    x, y = points[..., 0] - centre[0], points[..., 1] - centre[1]
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
    return image * (1 - share[..., None]) + color * share[..., None]


def weave(
    image: Float[np.ndarray, "h w 3"], points: Float[np.ndarray, "h w 3"], rng: np.random.Generator
) -> Float[np.ndarray, "h w 3"]:
    """Add what plain colours lack: faint folds, wear and weave, in light only."""
    flat = points.reshape(-1, 3)
    folds = smooth_noise(flat * [1.0, 0.45, 1.0], rng, rng.uniform(0.08, 0.25), 3).reshape(image.shape[:2])
    light = 1 + rng.uniform(0.0, 0.18) * folds + rng.uniform(0.0, 0.06) * rng.normal(size=image.shape[:2])
    return np.clip(image * light[..., None], 0, 1)


def shading(texture: UInt8[np.ndarray, "h w 4"], islands: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Folds and seams of a photographed cloth: its brightness against the surroundings', around 1."""
    luminance = texture[..., :3].astype(np.float32).mean(-1) / 255
    mask = islands.astype(np.float32)
    sigma = 0.04 * len(texture)
    local = gaussian_filter(luminance * mask, sigma) / np.maximum(gaussian_filter(mask, sigma), 1e-3)
    return np.where(islands, np.clip((luminance + 0.08) / (local + 0.08), 0.55, 1.5), 1.0)


def recolor(texture: UInt8[np.ndarray, "h w 4"], rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    """Shift hue, saturation, brightness and contrast of a photographed cloth; its structure stays."""
    image = texture[..., :3].astype(np.float32) / 255
    yiq = image @ np.array([[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]], np.float32)
    angle, saturation = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.3)
    chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * saturation * np.exp(1j * angle)
    mean = yiq[..., 0].mean()
    level = rng.uniform(0.1, 0.75)
    luminance = np.clip(level + (yiq[..., 0] - mean) * rng.uniform(0.6, 1.2), 0.01, 1)
    tint = (cloth_color(rng) - 0.5) * rng.uniform(0.0, 0.5)
    back = np.array([[1, 1, 1], [0.956, -0.272, -1.106], [0.621, -0.647, 1.703]], np.float32)
    shifted = np.stack([luminance, chroma.real, chroma.imag], -1) @ back
    return np.clip(shifted + tint * luminance[..., None], 0, 1)
