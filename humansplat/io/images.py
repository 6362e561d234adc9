"""PNG files of 8-bit pictures and label maps, the same bytes for the same values."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.atomic import replacing


def to_bytes(image: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w c"]:
    """Round values in ``[0, 1]`` to 8 bits, channels last; values outside are clamped."""
    scaled = (image.detach().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy())


def write_png(pixels: Shaped[np.ndarray, "h w *c"], path: Path, *, level: int = 4) -> None:
    """Write uint8 pixels: grey ``[h, w]``, sRGB ``[h, w, 3]`` or sRGB and straight alpha ``[h, w, 4]``, or uint16.

    Args:
        pixels: What to write.
        path: Appears whole or not at all.
        level: Effort of the compression, 0 to 9; it changes size and time, never the picture.

    Raises:
        ValueError: If the pixels are of another type or number of channels.
    """
    is_colored = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    is_grey = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
    if not (is_colored or is_grey):
        raise ValueError(
            f"write_png takes uint8 [h, w], [h, w, 3] or [h, w, 4] or uint16 [h, w], got {pixels.dtype} {pixels.shape}"
        )
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=level)


def read_png(path: Path) -> UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]:
    """Read what :func:`write_png` wrote.

    Raises:
        UserError: If there is no such file or it holds no picture.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such picture; make the data anew") from error
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path}: not a picture that can be read; make the data anew") from error
