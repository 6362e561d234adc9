"""Textures of worn pieces: photographs without trade marks, recoloured, or patterns with the photograph's folds."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, UInt8

from humansplat.data.synthetic import patterns
from humansplat.data.synthetic.assets import AssetLibrary, Piece

LOGOS: Mapping[str, tuple[float, float, float, float]] = {
    "female_casualsuit01": (0.66, 0.15, 0.88, 0.37),
    "male_casualsuit02": (0.47, 0.05, 0.71, 0.28),
    "male_casualsuit04": (0.52, 0.05, 0.74, 0.28),
}
"""Where a photograph shows a trade mark: left, top, right, bottom as shares of the texture."""

PLAIN_ONLY = frozenset({"shoes05"})
"""Assets whose whole photograph looks like a brand: only their faintest folds are used."""


def without_logo(texture: UInt8[np.ndarray, "h w 4"], asset: str) -> UInt8[np.ndarray, "h w 4"]:
    """Fill the trade mark of an asset from the cloth to its left and right."""
    if asset not in LOGOS:
        return texture
    height, width = texture.shape[:2]
    left, top, right, bottom = (
        round(share * side) for share, side in zip(LOGOS[asset], (width, height) * 2, strict=True)
    )
    filled = texture.copy()
    start = texture[top:bottom, left - 4 : left].mean(1)[:, None]
    end = texture[top:bottom, right : right + 4].mean(1)[:, None]
    share = np.linspace(0, 1, right - left)[None, :, None]
    filled[top:bottom, left:right] = (start * (1 - share) + end * share).astype(np.uint8)
    return filled


def baked_piece(
    library: AssetLibrary, piece: Piece
) -> tuple[Float[np.ndarray, "s s 3"], Float[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """Cloth coordinates and mean-adult positions of the pixels of a piece's texture, and where they are used."""

    def make() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points, islands = patterns.bake(
            piece.cloth.uvs, piece.cloth.faces, piece.cloth.canonical, library.texture_size
        )
        return patterns.limb_coordinates(library.template, points), points, islands

    return library.cached(("bake", piece.asset, piece.role), make)


def _resized(values: np.ndarray, size: int) -> np.ndarray:
    rows, columns = (np.arange(size) * side // size for side in values.shape[:2])
    return values[rows][:, columns]


def garment_texture(
    library: AssetLibrary, piece: Piece, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
    """Colours for an asset's garment.

    Args:
        library: The assets.
        piece: The garment.
        rng: Source of all choices.

    Returns:
        sRGB, and what was done.
    """
    coordinates, points, islands = baked_piece(library, piece)
    photo = None
    if piece.texture is not None:
        photo = without_logo(library.texture(piece.texture), piece.asset)
    choice = rng.random()
    if photo is None or piece.asset in PLAIN_ONLY or choice < 0.55:
        image, name = patterns.draw_pattern(coordinates, points, rng)
        if photo is not None:
            folds = library.cached(
                ("shading", piece.asset, piece.role),
                lambda: patterns.shading(photo, _resized(islands, photo.shape[0])),
            )
            strength = rng.uniform(0.1, 0.3) if piece.asset in PLAIN_ONLY else rng.uniform(0.4, 1.2)
            image = image * _resized(folds, len(image))[..., None] ** strength
        image = patterns.weave(image, points, rng)
    elif choice < 0.85:
        image, name = patterns.recolor(photo, rng), "recoloured"
    else:
        image, name = photo[..., :3].astype(np.float32) / 255, "photograph"
    if piece.ao is not None:
        occlusion = library.texture(piece.ao)[..., :3].astype(np.float32).mean(-1) / 255
        image = image * (0.35 + 0.65 * _resized(occlusion, len(image)))[..., None]
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), name
