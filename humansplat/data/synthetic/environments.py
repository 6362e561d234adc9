"""Light from small environment maps: skies, streets, rooms; projected to nine coefficients and two lamps.

A map holds radiance by direction, an equirectangular picture of ``ROWS x 2 ROWS`` in linear RGB. What a surface of
normal ``n`` receives is its convolution with a cosine, which nine spherical harmonics tell within some percent
(Ramamoorthi and Hanrahan, SIGGRAPH 2001). The strongest small source leaves the map and becomes a lamp, for shadows.
"""

import math

import numpy as np
from jaxtyping import Float

from humansplat.render.lighting import Lighting

ROWS = 24
_BANDS = np.array([1.0, 2 / 3, 2 / 3, 2 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4])
"""What the cosine leaves of each harmonic, over pi."""
_NORMS = np.array([1.0, 3.0, 3.0, 3.0, 15.0, 15.0, 5 / 4, 15.0, 15 / 4])
"""One over the mean square of each harmonic on the sphere."""


def sphere_directions() -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Unit directions of the pixels of a map, row 0 up, the first column behind the subject; and their solid angles.

    Returns:
        World directions, and shares of the sphere, which sum to 1.
    """
    polar = (np.arange(ROWS) + 0.5) * math.pi / ROWS
    turn = (np.arange(2 * ROWS) + 0.5) * math.pi / ROWS - math.pi
    theta, phi = (grid.ravel() for grid in np.meshgrid(polar, turn, indexing="ij"))
    directions = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1)
    edges = np.cos(np.arange(ROWS + 1) * math.pi / ROWS)
    return directions, np.repeat((edges[:-1] - edges[1:]) / (4 * ROWS), 2 * ROWS)


def harmonics(directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 9"]:
    """The nine polynomials whose factors ``Lighting.environment`` holds."""
    x, y, z = directions.T
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], -1)


def project(radiance: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "9 3"]:
    """Coefficients of the irradiance over pi that a map casts.

    Args:
        radiance: Linear RGB of each direction of ``sphere_directions``.
    """
    directions, shares = sphere_directions()
    moments = harmonics(directions).T @ (shares[:, None] * radiance)
    return (_BANDS * _NORMS)[:, None] * moments


def random_environment(rng: np.random.Generator) -> Lighting:
    """Draw the light of an open sky, a street, a room with windows, a stage or a studio, exposed as a camera would."""
    kind = str(rng.choice(list(_SCENES), p=[share for share, _ in _SCENES.values()]))
    directions, shares = sphere_directions()
    radiance, lamps = _SCENES[kind][1](directions, rng)
    environment = project(radiance)
    towards, colors, softness = lamps
    # Exposed for what faces the photographer, half above: neither black nor burnt out.
    seen = np.array([[0.0, 0.3, 1.0], [0.5, 0.4, 0.8], [-0.5, 0.4, 0.8], [0.0, 1.0, 0.3]])
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    light = harmonics(seen) @ environment + np.maximum(seen @ towards.T, 0) @ colors
    exposure = rng.uniform(0.75, 1.1) / max(float(light.mean()), 1e-3)
    exposure = min(exposure, 1.6 / max(float(light.mean(1).max()), 1e-3))
    return Lighting(
        environment=_nowhere_dark(exposure * environment).astype(np.float32),
        directions=towards.astype(np.float32),
        colors=(exposure * colors).astype(np.float32),
        softness=softness,
    )


def _nowhere_dark(environment: Float[np.ndarray, "9 3"]) -> Float[np.ndarray, "9 3"]:
    """Lift the mean so far that the lowest irradiance, where harmonics may undershoot, is positive."""
    lowest = (harmonics(sphere_directions()[0]) @ environment).min(0)
    lifted = environment.copy()
    lifted[0] += np.maximum(0.06 - lowest, 0)
    return lifted


Lamps = tuple[Float[np.ndarray, "l 3"], Float[np.ndarray, "l 3"], float]
"""Directions, irradiance over pi, angular radius."""


def _tint(rng: np.random.Generator, spread: float) -> Float[np.ndarray, " 3"]:
    warmth, green = rng.normal(0, spread), rng.normal(0, 0.25 * spread)
    tint = np.exp([warmth, green, -warmth])
    return tint / tint.mean()


def _towards(azimuth: float, elevation: float) -> Float[np.ndarray, " 3"]:
    level = math.cos(elevation)
    return np.array([math.sin(azimuth) * level, math.sin(elevation), math.cos(azimuth) * level])


def _spot(directions: np.ndarray, towards: np.ndarray, radius: float) -> Float[np.ndarray, "n 1"]:
    """A soft disc."""
    angle = np.arccos(np.clip(directions @ towards, -1, 1))
    return np.clip((radius - angle) / (0.3 * radius) + 0.5, 0, 1)[:, None]


def _panel(
    directions: np.ndarray, azimuth: float, elevation: float, width: float, height: float
) -> Float[np.ndarray, "n 1"]:
    """A window or a softbox, given by its angles."""
    turn = np.arctan2(directions[:, 0], directions[:, 2]) - azimuth
    turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
    high = np.abs(np.arcsin(np.clip(directions[:, 1], -1, 1)) - elevation)
    return (np.clip((width / 2 - turn) / 0.15 + 0.5, 0, 1) * np.clip((height / 2 - high) / 0.15 + 0.5, 0, 1))[:, None]


def _ground(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    below = np.clip(-directions[:, 1:2] / 0.1 + 0.5, 0, 1)
    color = rng.choice([0.12, 0.25, 0.45]) * _tint(rng, 0.2)  # asphalt or grass, soil, sand or snow
    return below, color


def _sky(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lamps]:
    """Open sky: clear with a sun, or clouded; brighter at the horizon or at the zenith."""
    clouds = float(rng.uniform())
    blue = np.array([0.6, 0.85, 1.4]) * (1 - clouds) + np.array([1.0, 1.0, 1.02]) * clouds
    up = np.clip(directions[:, 1:2], 0, 1)
    gradient = 1 + (rng.uniform(-0.5, 0.1) * (1 - clouds) + rng.uniform(0.2, 1.2) * clouds) * up
    low = float(rng.uniform(0.1, 1.2))  # elevation of the sun
    sun = _towards(float(rng.normal(0.0, 1.2)), low)
    warm = np.array([1.0, 0.93 - 0.25 * math.exp(-low / 0.25), 0.85 - 0.55 * math.exp(-low / 0.25)])
    glow = _spot(directions, sun, 0.6) * warm * rng.uniform(0.2, 1.5)
    sky = gradient * blue + glow
    strength = (1 - clouds) ** 1.5 * rng.uniform(1.0, 3.0)
    below, earth = _ground(directions, rng)
    bounce = earth * (1 + strength * max(sun[1], 0.1) * warm)
    radiance = sky * (1 - below) + bounce * below
    return radiance, (sun[None], strength * warm[None], float(rng.uniform(0.01, 0.06) + 0.4 * clouds**2))


def _street(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lamps]:
    """A strip of sky between coloured fronts."""
    radiance, (sun, color, softness) = _sky(directions, rng)
    along = float(rng.uniform(0, np.pi))
    across = np.abs(np.sin(np.arctan2(directions[:, 0], directions[:, 2]) - along))
    height = rng.uniform(0.5, 1.1)
    elevation = np.arcsin(np.clip(directions[:, 1], -1, 1))
    front = np.clip((height * across - elevation) / 0.1, 0, 1) * (directions[:, 1] > 0)
    side = np.sin(np.arctan2(directions[:, 0], directions[:, 2]) - along) > 0
    walls = np.where(
        side[:, None], rng.uniform(0.2, 0.7) * _tint(rng, 0.25), rng.uniform(0.15, 0.5) * _tint(rng, 0.25)
    )
    return radiance * (1 - front[:, None]) + walls * front[:, None], (sun, color * rng.uniform(0.0, 1.0), softness)


def _room(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lamps]:
    """Coloured walls, floor and ceiling, windows, and a lamp above."""
    wall = rng.uniform(0.15, 0.5) * _tint(rng, 0.2)
    radiance = np.broadcast_to(wall, directions.shape).copy()
    one_side = np.clip(directions @ _towards(float(rng.uniform(-np.pi, np.pi)), 0.0), 0, 1)[:, None]
    radiance += one_side * rng.uniform(0.0, 0.4) * _tint(rng, 0.4)
    up, down = np.clip(directions[:, 1:2], 0, 1), np.clip(-directions[:, 1:2], 0, 1)
    radiance += up * rng.uniform(0.0, 0.6) * _tint(rng, 0.1) - down * 0.5 * wall
    light = _tint(rng, 0.15)
    first = None
    for _ in range(int(rng.integers(1, 4))):
        azimuth, elevation = float(rng.normal(0.0, 1.3)), float(rng.uniform(0.0, 0.6))
        panel = _panel(directions, azimuth, elevation, rng.uniform(0.3, 1.2), rng.uniform(0.4, 1.0))
        radiance = radiance * (1 - panel) + rng.uniform(3.0, 12.0) * light * panel
        first = first if first is not None else _towards(azimuth, elevation + 0.1)
    assert first is not None
    lamp = _towards(float(rng.normal(0.0, 1.0)), float(rng.uniform(0.7, 1.4)))
    towards = np.stack([first, lamp])
    colors = np.stack([rng.uniform(0.1, 0.8) * light, rng.uniform(0.0, 0.5) * _tint(rng, 0.2)])
    return radiance, (towards, colors, float(rng.uniform(0.1, 0.35)))


def _studio(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lamps]:
    """Soft boxes in a grey room."""
    radiance = np.full(directions.shape, rng.uniform(0.1, 0.9)) * _tint(rng, 0.03)
    azimuth = float(rng.choice([-1, 1]) * rng.uniform(0.2, 1.2))
    tint = _tint(rng, 0.06)
    for turn, power in ((azimuth, 1.0), (-azimuth * rng.uniform(0.6, 1.4), rng.uniform(0.1, 0.8))):
        box = _panel(directions, turn, float(rng.uniform(0.1, 0.6)), 0.7, 0.9)
        radiance = radiance + rng.uniform(3, 9) * power * box * tint
    key = _towards(azimuth, float(rng.uniform(0.3, 0.8)))
    return radiance, (key[None], rng.uniform(0.1, 0.9) * tint[None], float(rng.uniform(0.1, 0.3)))


def _evening(directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Lamps]:
    """Dim surroundings of one colour and two coloured lamps: lanterns, signs, a stage."""
    radiance = np.broadcast_to(rng.uniform(0.15, 0.35) * _tint(rng, 0.35), directions.shape).copy()
    glow = np.clip(directions[:, 1:2], 0, 1) * rng.uniform(0.0, 0.2)
    towards = np.stack([_towards(float(rng.normal(0, s)), float(rng.uniform(0.2, 1.1))) for s in (0.7, 1.6)])
    colors = np.stack([rng.uniform(0.25, 0.7) * _tint(rng, 0.25), rng.uniform(0.1, 0.4) * _tint(rng, 0.5)])
    for direction, color in zip(towards, colors, strict=True):
        radiance += 1.5 * _spot(directions, direction, 0.5) * color
    return radiance + glow * _tint(rng, 0.2), (towards, colors, float(rng.uniform(0.03, 0.25)))


_SCENES = {
    "sky": (0.28, _sky),
    "street": (0.16, _street),
    "room": (0.32, _room),
    "studio": (0.14, _studio),
    "evening": (0.1, _evening),
}
