"""Light on a rendered mesh: a smooth environment and a few distant lamps."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, eq=False)
class Lighting:
    """What falls on a person; in linear units in which a white sheet facing a lamp of colour 1 looks white.

    A surface of reflectance ``a`` and normal ``n`` shows
    ``a * (occlusion * environment(n) + sum over lamps of color * max(0, n . direction) * visible)``.
    """

    environment: Float[np.ndarray, "9 3"]
    """Irradiance of the surroundings over pi, by normal: real spherical harmonics up to order two (Ramamoorthi and
    Hanrahan, SIGGRAPH 2001) without their constants, i.e. factors of ``1, x, y, z, xy, yz, 3zz - 1, xz, xx - yy``."""
    directions: Float[np.ndarray, "l 3"]
    """Unit vectors towards the lamps, world frame."""
    colors: Float[np.ndarray, "l 3"]
    """Irradiance of a lamp over pi, linear RGB."""
    softness: float = 0.1
    """Angular radius of the lamps, radians: the width of the shadows' edges."""
    shaded: bool = True
    """Whether surfaces react to light at all. ``False`` shows their own colour to the last digit: no occlusion, no
    gloss, and none of the display's shoulder that keeps highlights from clipping."""


def unlit() -> Lighting:
    """Show textures and vertex colours as they are, for scans: they carry the light of the scanner already."""
    environment = np.zeros((9, 3), np.float32)
    environment[0] = 1.0
    none = np.zeros((0, 3), np.float32)
    return Lighting(environment=environment, directions=none, colors=none, shaded=False)


def studio_lighting() -> Lighting:
    """A bright room with a weak lamp at the upper left of a subject who faces +Z: nothing hides in the dark."""
    environment = np.zeros((9, 3), np.float32)
    environment[0] = 0.75
    environment[2] = 0.1
    direction = np.array([[0.4, 0.6, 0.7]], np.float32)
    return Lighting(
        environment=environment,
        directions=direction / np.linalg.norm(direction),
        colors=np.full((1, 3), 0.25, np.float32),
    )


def random_lighting(rng: np.random.Generator) -> Lighting:
    """Draw daylight, indoor and evening scenes: one key lamp, often a second one, coloured surroundings.

    The sum of all light on a surface that faces the key lamp lies near one, so pictures are
    neither black nor burnt out, as a camera's exposure control would have it.
    """
    num_lamps = int(rng.integers(1, 3))
    exposure = rng.uniform(0.85, 1.15)
    key_share = rng.uniform(0.1, 0.65)
    azimuths = rng.normal(0.0, 1.1, num_lamps)  # mostly from the photographer's side
    elevations = np.radians(rng.uniform(10.0, 75.0, num_lamps))
    directions = np.stack(
        [np.sin(azimuths) * np.cos(elevations), np.sin(elevations), np.cos(azimuths) * np.cos(elevations)], axis=-1
    )
    strengths = key_share * np.array([1.0, rng.uniform(0.2, 0.6)])[:num_lamps] * exposure
    colors = strengths[:, None] * _tint(rng, num_lamps, 0.1)

    level = (1.0 - key_share) * exposure
    environment = np.zeros((9, 3))
    environment[0] = level * _tint(rng, 1, 0.07)[0]
    environment[2] = level * rng.uniform(0.0, 0.3) * _tint(rng, 1, 0.15)[0]  # the sky is brighter than the ground
    side = rng.uniform(-math.pi, math.pi)
    gradient = level * rng.uniform(0.0, 0.3) * _tint(rng, 1, 0.15)[0]
    environment[1], environment[3] = math.sin(side) * gradient, math.cos(side) * gradient
    environment[4:] = level * rng.normal(0.0, 0.03, (5, 1)) * _tint(rng, 5, 0.1)
    return Lighting(
        environment=environment.astype(np.float32),
        directions=directions.astype(np.float32),
        colors=colors.astype(np.float32),
        softness=float(rng.uniform(0.02, 0.3)),
    )


def _tint(rng: np.random.Generator, count: int, spread: float) -> Float[np.ndarray, "n 3"]:
    """Warm (orange) to cold (blue) factors with a mean of one and a little green or magenta."""
    warmth = rng.normal(0.0, spread, count)
    green = rng.normal(0.0, 0.25 * spread, count)
    tint = np.exp(np.stack([warmth, green, -warmth], axis=-1))
    return tint / tint.mean(axis=-1, keepdims=True)
