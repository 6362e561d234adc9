"""Textures of worn pieces: photographs without trade marks, recoloured, or patterns with the photograph's folds."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary, Piece

LOGOS: Mapping[str, tuple[float, float, float, float]] = {
    "female_casualsuit01": (0.70, 0.15, 0.88, 0.33),
    "male_casualsuit02": (0.49, 0.095, 0.63, 0.24),
    "male_casualsuit04": (0.49, 0.095, 0.63, 0.24),
}
"""Where a photograph shows a trade mark: left, top, right, bottom as shares of the texture."""

FILL_STEPS = 600
"""Relaxation steps; the holes are some hundred pixels wide."""

PLAIN_ONLY = frozenset({"shoes05"})
"""Assets whose whole photograph looks like a brand: only their faintest folds are used."""


def without_logo(texture: UInt8[np.ndarray, "h w 4"], asset: str) -> UInt8[np.ndarray, "h w 4"]:
    """Fill the trade mark of an asset from the cloth to its left and right."""
    if asset not in LOGOS:
        return texture
    height, width = texture.shape[:2]
    sides = (width, height, width, height)
    left, top, right, bottom = (round(share * side) for share, side in zip(LOGOS[asset], sides, strict=True))
    window = (slice(top - 2, bottom + 2), slice(left - 2, right + 2))
    filled = texture[window].astype(np.float32)
    inner = (slice(2, -2), slice(2, -2))
    filled[inner] = np.median(np.concatenate([filled[:2].reshape(-1, 4), filled[-2:].reshape(-1, 4)]), axis=0)
    for _ in range(FILL_STEPS):  # a soap film over the hole
        filled[inner] = (filled[1:-3, 2:-2] + filled[3:-1, 2:-2] + filled[2:-2, 1:-3] + filled[2:-2, 3:-1]) / 4
    result = texture.copy()
    result[window] = filled.astype(np.uint8)
    return result


def piece_canvas(library: AssetLibrary, piece: Piece) -> patterns.Canvas:
    """The pixels of a piece's texture, kept in the library's cache."""
    cloth = piece.cloth
    return library.cached(
        ("canvas", piece.source, piece.role),
        lambda: patterns.canvas(library.template, cloth.uvs, cloth.faces, cloth.canonical, library.texture_size),
    )


def garment_texture(
    library: AssetLibrary, piece: Piece, rng: np.random.Generator, *, lettered: bool = True
) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """Colours for an asset's garment.

    Args:
        library: The assets.
        piece: The garment.
        rng: Source of all choices.
        lettered: As in ``patterns.draw_pattern``.

    Returns:
        sRGB, and what was done.
    """
    surface = piece_canvas(library, piece)
    photo = None
    if piece.texture is not None:
        path = piece.texture
        photo = library.cached(("photo", path), lambda: without_logo(library.texture(path), piece.asset))
    choice = rng.random()
    if photo is None or piece.asset in PLAIN_ONLY or choice < 0.55:
        colors, name = patterns.draw_pattern(surface, rng, lettered=lettered)
        if photo is not None:
            folds = library.cached(
                ("shading", piece.source, piece.role), lambda photo=photo: patterns.shading(photo, surface)
            )
            strength = rng.uniform(0.1, 0.3) if piece.asset in PLAIN_ONLY else rng.uniform(0.4, 1.2)
            colors = colors * folds[:, None] ** np.float32(strength)
        colors = patterns.weave(colors, surface, rng)
    else:
        colors, name = surface.sample(photo)[:, :3].astype(np.float32) / 255, "photograph"
        if choice < 0.85:
            colors, name = patterns.recolor(colors, rng), "recoloured"
    if piece.ao is not None:
        occlusion = surface.sample(library.texture(piece.ao))[:, :3].astype(np.float32).mean(-1) / 255
        colors = colors * (0.7 + 0.3 * occlusion)[:, None]
    return surface.finish(colors), name
