"""Skin, hair and eyes: photographed textures of MakeHuman, moved to other tones."""

import colorsys

import numpy as np
from jaxtyping import Float, UInt8

SKIN_TONES = np.array(
    [
        *([0.93, 0.78, 0.69], [0.89, 0.71, 0.60], [0.83, 0.65, 0.52], [0.76, 0.57, 0.43]),
        *([0.66, 0.47, 0.34], [0.53, 0.37, 0.26], [0.40, 0.27, 0.19], [0.29, 0.19, 0.14]),
    ]
)
"""Mean sRGB of skin from very light to very dark."""

BRIGHTEST = 0.8
"""Linear reflectance that no skin exceeds."""

ORIGIN_TONES = {"caucasian": (0.5, 3.2), "asian": (0.9, 4.0), "african": (4.0, 7.0), "": (0.5, 7.0)}
"""Range of plausible places in ``SKIN_TONES`` for the origin that a texture's name tells."""


def skin_texture(
    texture: UInt8[np.ndarray, "h w 4"], name: str, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """Move a skin photograph to another tone, keeping its details.

    Args:
        texture: A skin of MakeHuman.
        name: Its name, which may tell an origin.
        rng: Source of the tone.

    Returns:
        The texture, and the tone's place in ``SKIN_TONES``.
    """
    origin = next(key for key in ORIGIN_TONES if key in name)
    low, high = ORIGIN_TONES[origin] if rng.random() < 0.7 else ORIGIN_TONES[""]
    place = rng.uniform(low, high)
    tone = np.array([np.interp(place, np.arange(len(SKIN_TONES)), SKIN_TONES[:, k]) for k in range(3)])
    tone = np.clip(tone * (1 + rng.normal(0, 0.025, 3)), 0.05, 0.97)
    image = (texture[..., :3].astype(np.float32) / 255) ** 2.2
    mean = np.median(image.reshape(-1, 3)[::7], axis=0)
    contrast = rng.uniform(0.75, 1.05)
    relative = (image / mean) ** contrast
    reflected = relative * tone**2.2
    strongest = reflected.max(-1, keepdims=True)
    moved = (reflected / (1 + (strongest / BRIGHTEST) ** 4) ** 0.25) ** (1 / 2.2)  # bends before it burns out
    return (moved * 255).astype(np.uint8), float(place)


HAIR_COLORS = np.array(
    [
        *([0.06, 0.05, 0.05], [0.13, 0.09, 0.07], [0.24, 0.15, 0.10], [0.36, 0.24, 0.15], [0.50, 0.36, 0.22]),
        *([0.70, 0.56, 0.36], [0.82, 0.72, 0.54], [0.45, 0.18, 0.09], [0.55, 0.54, 0.53], [0.85, 0.84, 0.83]),
    ]
)
"""Mean sRGB: blacks, browns, blonds, red, grey, white."""


def hair_color(rng: np.random.Generator, tone: float, age: float) -> Float[np.ndarray, " 3"]:
    """Draw a hair colour that goes with skin tone and age; a few people dye."""
    if rng.random() < 0.04:
        return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.9)))
    shares = np.array([3, 3, 3, 2.5, 2, 1.5, 0.8, 0.7, 0.3, 0.2])
    if tone > 2.5:
        shares *= [3, 2, 0.5, 0.2, 0.08, 0.05, 0.05, 0.03, 1, 0.5]
    if age > 0.85:
        shares *= [0.4, 0.5, 0.7, 0.8, 0.8, 0.6, 0.6, 0.5, 8, 8]
    color = HAIR_COLORS[rng.choice(len(HAIR_COLORS), p=shares / shares.sum())]
    return np.clip(color * (1 + rng.normal(0, 0.12)) * (1 + rng.normal(0, 0.05, 3)), 0.02, 0.95)


def tint_hair(
    texture: UInt8[np.ndarray, "h w 4"], color: Float[np.ndarray, " 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 4"]:
    """Give strands another colour: the photograph's brightness relative to its mean, times the colour."""
    visible = texture[..., 3] > 64
    luminance = texture[..., :3].astype(np.float32).mean(-1) / 255
    mean = luminance[visible].mean() if visible.any() else 0.5
    relative = np.clip(luminance / max(mean, 0.02), 0, 3) ** rng.uniform(0.5, 0.9)
    moved = np.clip(relative[..., None] * color, 0, 1)
    return np.concatenate([(moved * 255).astype(np.uint8), texture[..., 3:]], -1)


def is_female_skin(name: str) -> bool:
    """Whether the name of a skin says that it was made for women."""
    return "female" in name
