"""Load any photo as 8-bit sRGB pixels, with its alpha when it has one."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from humansplat.errors import UserError

MIN_SIDE = 128
"""Smaller photos are refused, pixels."""
_HEIF_SUFFIXES = {".heic", ".heif", ".hif", ".avif"}
# An alpha that hides less than this share of the picture is a frame or an accident, not a cut-out.
_MIN_TRANSPARENT_SHARE = 0.02


@dataclass(frozen=True)
class Photo:
    """A picture as the rest of ``capture`` wants it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """sRGB, upright; straight (not multiplied by alpha)."""
    alpha: Float[np.ndarray, "h w"] | None
    """In ``[0, 1]``; ``None`` for a picture without transparency."""
    name: str
    """What messages call it."""
    warnings: tuple[str, ...] = ()
    """Sentences about what could not be read."""

    @property
    def height(self) -> int:
        """Pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Pixels."""
        return self.pixels.shape[1]


Picture: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor | Photo
"""Whatever :func:`load_photo` reads."""


def load_photo(source: Picture) -> Photo:
    """Read a photo from a file, a Pillow image or an array.

    Handles JPEG, PNG, WebP, TIFF and whatever else Pillow reads, HEIC with ``pillow-heif``; EXIF
    orientation, greyscale, 16 bit, CMYK, palettes, alpha and ICC profiles (converted to sRGB).

    Args:
        source: A path; a Pillow image; an array ``[h, w]``, ``[h, w, 3]`` or ``[h, w, 4]`` of uint8, or of floats
            in ``[0, 1]``; or a tensor ``[3, h, w]`` or ``[4, h, w]`` of floats in ``[0, 1]``.

    Raises:
        UserError: If it cannot be read, or is smaller than 128 px.
    """
    if isinstance(source, Photo):
        photo = source
    elif isinstance(source, Tensor):
        photo = _from_array(source.detach().cpu().movedim(0, -1).numpy())
    elif isinstance(source, np.ndarray):
        photo = _from_array(source)
    elif isinstance(source, Image.Image):
        photo = _from_image(source, "the photo")
    else:
        photo = _from_file(Path(source))
    if min(photo.width, photo.height) < MIN_SIDE:
        raise UserError(
            f"{photo.name} is {photo.width} x {photo.height} px; use a photo of at least {MIN_SIDE} px on each side"
        )
    return photo


def load_mask(source: Picture, photo: Photo) -> Float[np.ndarray, "h w"]:
    """Read a person mask: the alpha of a picture that has one, else its brightness.

    Args:
        source: As for :func:`load_photo`; arrays ``[h, w]`` may be boolean.
        photo: The photo that the mask belongs to.

    Returns:
        The mask in ``[0, 1]``, at the size of the photo.

    Raises:
        UserError: If it cannot be read, has another shape than the photo, or is empty.
    """
    if isinstance(source, Tensor) and source.ndim == 2:
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray) and source.dtype == bool:
        source = source.astype(np.uint8) * 255
    picture = load_photo(source)
    name = "the mask" if picture.name == "the photo" else picture.name
    mask = picture.alpha
    if mask is None:
        mask = np.asarray(Image.fromarray(picture.pixels).convert("L"), dtype=np.float32) / 255.0
    if mask.shape != (photo.height, photo.width):
        if abs(picture.width * photo.height - picture.height * photo.width) > 0.01 * picture.width * photo.height:
            raise UserError(
                f"{name} is {picture.width} x {picture.height} px and {photo.name} {photo.width} x {photo.height}; "
                "give a mask of the photo's own shape"
            )
        size = (photo.width, photo.height)
        mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)).clip(0.0, 1.0)
    if mask.max() < 0.5:
        raise UserError(f"{name} marks no pixel as person; white is person, black is background")
    return mask


def _from_file(path: Path) -> Photo:
    if path.suffix.lower() in _HEIF_SUFFIXES:
        _register_heif(path)
    try:
        with Image.open(path) as image:
            return _from_image(image, str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the path of a photo") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the path of a photo") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has too many pixels ({error}); scale it to less than 100 megapixels") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a picture that can be read; give a JPEG, PNG, WebP or HEIC file") from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        # Pillow's decoders report damaged files by all of these.
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged or truncated ({error}); export the photo again") from error


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(f"{path} needs pillow-heif, which is not installed; run: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()


def _from_image(image: Image.Image, name: str) -> Photo:
    image.load()
    upright = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if upright.mode in ("P", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    alpha = None
    if "A" in upright.getbands():
        alpha = np.asarray(upright.getchannel("A"), dtype=np.float32) / 255.0
        upright = upright.convert({"LA": "L", "La": "L"}.get(upright.mode, "RGB"))
    if upright.mode[0] in "IF":
        upright = _eight_bits(upright)
    upright, warnings = _to_srgb(upright, profile, name)
    return Photo(pixels=np.array(upright), alpha=_real_alpha(alpha), name=name, warnings=warnings)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit integers and floats down; Pillow's own conversion clips them to white."""
    values = np.asarray(image).astype(np.float32)
    scale = 257.0 if image.mode[0] == "I" else (1.0 / 255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
    return Image.fromarray((values / scale + 0.5).clip(0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert to sRGB; a profile that cannot be used gives a warning."""
    if not profile or image.mode not in ("RGB", "L", "CMYK"):
        return image.convert("RGB"), ()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        warning = f"the colour profile of {name} cannot be used ({error}); its colours are read as sRGB"
        return image.convert("RGB"), (warning,)
    assert converted is not None  # it is None only when Pillow converts in place
    return converted, ()


def _from_array(array: np.ndarray) -> Photo:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(f"the photo has shape {array.shape}; give [h, w], [h, w, 3] or [h, w, 4]")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UserError(f"the photo is an array of {array.dtype}; give uint8, or finite floats in [0, 1]")
        if array.size and (array.min() < -1e-3 or array.max() > 1.0 + 1e-3):
            raise UserError(f"the photo has values from {array.min():.3g} to {array.max():.3g}; floats lie in [0, 1]")
        array = (array * 255.0 + 0.5).clip(0, 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    alpha = array[..., 3].astype(np.float32) / 255.0 if array.shape[2] == 4 else None
    colors = np.broadcast_to(array[..., :3], (*array.shape[:2], 3))
    return Photo(pixels=np.array(colors), alpha=_real_alpha(alpha), name="the photo")


def _real_alpha(alpha: np.ndarray | None) -> np.ndarray | None:
    """Drop an alpha that cuts nothing out."""
    if alpha is None or (alpha < 0.5).mean() < _MIN_TRANSPARENT_SHARE:
        return None
    return alpha
