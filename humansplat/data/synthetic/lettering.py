"""Prints on clothes: made-up words in lines, numbers as on jerseys, badges and marks, stripes on sleeves."""

import math
from functools import cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

PIXELS_A_METRE = 640
"""Of the drawn prints; finer than textures of 1024 pixels."""
ONSETS = (
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
)
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo")
ENDS = ("", "n", "r", "s", "t", "l", "x", "rk", "nd", "m")


def made_up_word(rng: np.random.Generator, syllables: int) -> str:
    """A word of no language."""
    parts = [str(rng.choice(ONSETS)) + str(rng.choice(VOWELS)) for _ in range(syllables)]
    return "".join(parts) + str(rng.choice(ENDS))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _line(text: str, bold: int) -> Float[np.ndarray, "h w"]:
    """A line of text, cut to its letters, white on black."""
    font = _font(64)
    left, top, right, bottom = font.getbbox(text, stroke_width=bold)
    image = Image.new("L", (max(int(right - left), 1), max(int(bottom - top), 1)))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font, stroke_width=bold)
    return np.asarray(image, np.float32) / 255


def _fitted(mask: Float[np.ndarray, "h w"], width: float, height: float) -> Float[np.ndarray, "u v"]:
    """A mask scaled into a box of metres, keeping its proportions."""
    scale = min(width / mask.shape[1], height / mask.shape[0]) * PIXELS_A_METRE
    size = (max(round(mask.shape[1] * scale), 2), max(round(mask.shape[0] * scale), 2))
    image = Image.fromarray((mask * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


def words(rng: np.random.Generator, width: float, height: float) -> Float[np.ndarray, "h w"]:
    """One to four lines of words; the first is often the largest."""
    lines = []
    bold = int(rng.integers(0, 6))
    for number in range(int(rng.integers(1, 5))):
        text = made_up_word(rng, int(rng.integers(1, 4)))
        if number and rng.random() < 0.6:
            text += " " + made_up_word(rng, int(rng.integers(1, 3)))
        text = text.upper() if rng.random() < 0.6 else text.capitalize()
        share = 1.0 if number == 0 else float(rng.uniform(0.25, 0.8))
        lines.append(_fitted(_line(text, bold), width, height * share / 1.6))
    gap = max(round(0.012 * PIXELS_A_METRE), 1)
    total = np.zeros((sum(len(line) for line in lines) + gap * (len(lines) - 1), max(line.shape[1] for line in lines)))
    left = rng.random() < 0.25
    row = 0
    for line in lines:
        start = 0 if left else (total.shape[1] - line.shape[1]) // 2
        total[row : row + len(line), start : start + line.shape[1]] = line
        row += len(line) + gap
    return total.astype(np.float32)


def number(rng: np.random.Generator, height: float) -> Float[np.ndarray, "h w"]:
    """A jersey's number, sometimes in outline."""
    digits = str(int(rng.integers(1, 100)))
    solid = _line(digits, 4)
    if rng.random() < 0.3:
        thin = _line(digits, 0)
        inner = np.zeros_like(solid)
        top, left = (solid.shape[0] - thin.shape[0]) // 2, (solid.shape[1] - thin.shape[1]) // 2
        inner[top : top + thin.shape[0], left : left + thin.shape[1]] = thin
        solid = np.clip(solid - inner, 0, 1)
    return _fitted(solid, 0.3, height)


def badge(rng: np.random.Generator, size: float) -> Float[np.ndarray, "h w"]:
    """A mark: ring, shield, star, chevrons or bars, sometimes with a letter cut out of it."""
    count = 128
    y, x = np.meshgrid(np.linspace(1, -1, count), np.linspace(-1, 1, count), indexing="ij")
    radius, angle = np.hypot(x, y), np.arctan2(x, y)
    kind = str(rng.choice(["ring", "disc", "star", "shield", "chevrons", "bars", "drop"]))
    points = int(rng.integers(3, 9))
    if kind == "ring":
        inside = (radius < 1) & (radius > rng.uniform(0.55, 0.85)) | (radius < rng.uniform(0.0, 0.45))
    elif kind == "disc":
        inside = (np.abs(x) ** 2.5 + np.abs(y * rng.uniform(1.0, 1.8)) ** 2.5) < 1
    elif kind == "star":
        inner = rng.uniform(0.35, 0.7)
        wave = np.abs((angle * points / (2 * np.pi)) % 1.0 - 0.5) * 2
        inside = radius < inner + (1 - inner) * np.abs(wave)
    elif kind == "shield":
        inside = (y < 0.9) & (np.abs(x) < 0.8 * np.sqrt(np.clip((y + 1) / 1.3, 0, 1)))
    elif kind == "chevrons":
        inside = ((y - 0.6 * np.abs(x)) * rng.uniform(1.2, 2.2)) % 1.0 < 0.5
    elif kind == "bars":
        inside = ((x + rng.uniform(-0.6, 0.6) * y) * points / 2) % 1.0 < rng.uniform(0.3, 0.7)
    else:
        bow = y - rng.uniform(0.5, 1.0) * x**2
        inside = (np.abs(bow) < 0.35 * (1 - np.abs(x)) + 0.05) | (np.hypot(x + 0.5, y - 0.6) < 0.2)
    mask = inside.astype(np.float32)
    if kind in ("disc", "shield", "star") and rng.random() < 0.6:
        letter = _fitted(_line(made_up_word(rng, 1)[0].upper(), 3), 0.08, 0.08)
        side = (count - np.array(letter.shape)) // 2
        mask[side[0] : side[0] + letter.shape[0], side[1] : side[1] + letter.shape[1]] *= 1 - letter
    return _fitted(mask, size, size)


def stamp(
    mask: Float[np.ndarray, "h w"], x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], tilt: float = 0.0
) -> Float[np.ndarray, " n"]:
    """Coverage of points by a print around the origin.

    Args:
        mask: The print.
        x: Metres to the right of its middle, as a reader sees it.
        y: Metres above its middle.
        tilt: Radians by which it is turned.
    """
    cos, sin = math.cos(tilt), math.sin(tilt)
    column = (x * cos + y * sin) * PIXELS_A_METRE + mask.shape[1] / 2 - 0.5
    row = (x * sin - y * cos) * PIXELS_A_METRE + mask.shape[0] / 2 - 0.5
    inside = (column > -1) & (column < mask.shape[1]) & (row > -1) & (row < mask.shape[0])
    result = np.zeros(len(x), np.float32)
    padded = np.pad(mask, 1)
    column, row = column[inside] + 1, row[inside] + 1
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    u, v = column - left, row - top
    result[inside] = (
        padded[top, left] * (1 - u) * (1 - v)
        + padded[top, left + 1] * u * (1 - v)
        + padded[top + 1, left] * (1 - u) * v
        + padded[top + 1, left + 1] * u * v
    )
    return result
