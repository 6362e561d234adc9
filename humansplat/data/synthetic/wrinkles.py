"""Wrinkles: pieces are refined, and ridges rise across limbs where the pose presses cloth together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from humansplat.data.synthetic.cloth import Cloth, normals, smooth_noise
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.patterns import limb_coordinates

ROUNDNESS = 0.6
"""How far new vertices leave the flat triangle towards the curved surface (Boubekeur and Alexa, 2008)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Wrinkles:
    """Ridges of a piece, for each of its vertices."""

    along: Float[np.ndarray, " n"]
    """Place along the limb, metres: pressed together along it, cloth wrinkles across."""
    wave: Float[np.ndarray, " n"]
    """Height of the ridges, from -1/2 to 1."""
    resting: Float[np.ndarray, " n"]
    """Amplitude in the rest pose, metres."""
    pressed: float
    """Amplitude added where cloth is pressed to half its length, metres."""


def draw_wrinkles(cloth: Cloth, template: Template, rng: np.random.Generator, loose: float) -> Wrinkles:
    """Draw the ridges of a piece.

    Args:
        cloth: The piece.
        template: What all bodies share.
        rng: Source of width, direction and place.
        loose: 0 for tight pieces, 1 for wide ones.
    """
    points = cloth.canonical
    coordinates = limb_coordinates(template, points)
    width = float(rng.uniform(0.05, 0.085))
    bent = smooth_noise(points, rng, 0.22) * rng.uniform(0.25, 0.6) + rng.uniform(-0.4, 0.4) * np.abs(
        coordinates[:, 1]
    )
    phase = 2 * np.pi * (coordinates[:, 0] / width + bent)
    wave = np.sin(phase) + 0.35 * np.sin(2 * phase + 1.0)
    patches = np.clip(0.3 + 1.1 * smooth_noise(points, rng, 0.25), 0, 1)
    ends = _near_ends(cloth, template)
    resting = (0.001 + 0.0035 * loose) * patches + (0.0018 + 0.005 * loose) * ends * (0.4 + 0.6 * patches)
    return Wrinkles(
        along=coordinates[:, 0],
        wave=(0.25 + 0.55 * wave).astype(np.float32),
        resting=resting.astype(np.float32),
        pressed=float(rng.uniform(0.02, 0.035) * (0.5 + 0.7 * loose)),
    )


def _near_ends(cloth: Cloth, template: Template) -> Float[np.ndarray, " n"]:
    """1 where sleeves and legs pile up: elbows, wrists, knees and ankles of the mean adult."""
    near = np.zeros(len(cloth.canonical), np.float32)
    for name, reach in (("lowerarm01", 0.07), ("wrist", 0.08), ("lowerleg01", 0.1), ("foot", 0.1)):
        for side in "LR":
            distance = np.linalg.norm(cloth.canonical - template.joints[template.joint(f"{name}.{side}")], axis=1)
            near = np.maximum(near, np.exp(-((distance / reach) ** 2) / 2))
    return near


def wrinkled(cloth: Cloth, wrinkles: Wrinkles, posed: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Raise the ridges of a posed piece.

    Args:
        cloth: The piece at rest.
        wrinkles: Its ridges.
        posed: Its vertices in the world.
    """
    corners = cloth.faces
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    a, b = edges.T
    resting = np.linalg.norm(cloth.vertices[a] - cloth.vertices[b], axis=1)
    ratio = np.linalg.norm(posed[a] - posed[b], axis=1) / np.maximum(resting, 1e-4)
    length = np.linalg.norm(cloth.canonical[a] - cloth.canonical[b], axis=1)
    share = np.clip(np.abs(wrinkles.along[a] - wrinkles.along[b]) / np.maximum(length, 1e-4), 0, 1) ** 2
    count = len(posed)
    total = np.bincount(a, share, count) + np.bincount(b, share, count)
    short = np.clip(1 - ratio, 0, 0.6) * share
    pressed = (np.bincount(a, short, count) + np.bincount(b, short, count)) / np.maximum(total, 1e-3)
    pressed = cloth.smooth(pressed[:, None].astype(np.float32), 2)[:, 0]
    height = (wrinkles.resting + wrinkles.pressed * pressed / 0.5) * wrinkles.wave
    outward = normals(posed, cloth.faces, cloth.weld)
    return (posed + height[:, None] * outward).astype(np.float32)


def refined(cloth: Cloth) -> Cloth:
    """Split every triangle into four; new vertices lie on the curved surface that the normals tell."""
    corners = cloth.faces
    halves = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    codes, index = np.unique(halves.min(1) * len(cloth.vertices) + halves.max(1), return_inverse=True)
    a, b = np.divmod(codes, len(cloth.vertices))
    ab, bc, ca = (index + len(cloth.vertices)).reshape(3, -1)
    first, second, third = corners.T
    faces = np.concatenate(
        [np.stack(face, 1) for face in ((first, ab, ca), (ab, second, bc), (ca, bc, third), (ab, bc, ca))]
    )
    outward = normals(cloth.vertices, cloth.faces, cloth.weld)

    def middle(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, 0.5 * (values[a] + values[b])])

    def curved(values: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
        flat = 0.5 * (values[a] + values[b])
        lift = sum(((values[k] - flat) * outward[k]).sum(1, keepdims=True) * outward[k] for k in (a, b))
        return np.concatenate([values, flat + 0.5 * ROUNDNESS * lift]).astype(np.float32)

    return Cloth(
        vertices=curved(cloth.vertices),
        faces=faces,
        uvs=middle(cloth.uvs),
        canonical=middle(cloth.canonical),
        weights=middle(cloth.weights),
        weld=_middle_welds(cloth, a, b),
    )


def _middle_welds(cloth: Cloth, a: Int[np.ndarray, " e"], b: Int[np.ndarray, " e"]) -> Int[np.ndarray, " m"]:
    """Two halves of a seam get the same new vertices."""
    ends = np.sort(np.stack([cloth.weld[a], cloth.weld[b]], 1), axis=1)
    size = int(cloth.weld.max()) + 1
    _, new = np.unique(ends[:, 0] * size + ends[:, 1], return_inverse=True)
    return np.concatenate([cloth.weld, new + size])
