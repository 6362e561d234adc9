"""The pictures on scans: found, opened, and reduced where they are larger than any view can show."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from humansplat.errors import UserError

MAX_SIDE = 8192
"""Larger textures are halved until they fit: at 1024 px a face's close-up shows texels of 0.3 mm, and 8192 on a person
of two square metres have 0.2 mm. An unreduced one of 16384 px would take 1 GiB and its smaller levels a third more."""
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".tga")


def load_texture(path: Path, notes: list[str]) -> UInt8[np.ndarray, "h w c"]:
    """Read a texture as sRGB, with straight alpha if it has any.

    Args:
        path: The picture.
        notes: A sentence is added when it was reduced, the same on every machine: without folders.

    Raises:
        UserError: If it is missing, no picture, or beyond what Pillow opens.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is what scans' textures are
            with Image.open(path) as image:
                # Only JPEG can be decoded at less than its size; the others ignore it.
                image.draft("RGB", (MAX_SIDE, MAX_SIDE))
                return texture_of(image, path.name, notes)
    except FileNotFoundError as error:
        raise UserError(f"{path}: the texture is missing; put it there") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: the texture is too large ({error}); reduce it to {MAX_SIDE} px") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path}: the texture cannot be read ({error})") from error


def texture_of(image: Image.Image, name: str, notes: list[str]) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an opened picture, at most ``MAX_SIDE`` on a side; see :func:`load_texture`."""
    width, height = image.size
    factor = 1
    while max(width, height) > factor * MAX_SIDE:
        factor *= 2
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    image = image.convert("RGBA" if has_alpha else "RGB")
    if factor > 1:
        image = image.reduce(factor)
        notes.append(f"{name} was reduced from {width} x {height} to {image.width} x {image.height} px")
    return np.asarray(image)


def picture_beside(path: Path) -> Path | None:
    """The picture that is meant for a mesh that names none: of its stem, or ``material0``, or the only one."""
    pictures = sorted(entry for entry in path.parent.iterdir() if entry.suffix.lower() in PICTURES)
    for stem in (path.stem, "material0"):
        named = [picture for picture in pictures if picture.stem == stem]
        if named:
            return named[0]
    meshes = [entry for entry in path.parent.iterdir() if entry.suffix.lower() in (".obj", ".ply")]
    return pictures[0] if len(pictures) == len(meshes) == 1 else None
