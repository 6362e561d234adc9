"""Splat files: PLY, compressed PLY and SPZ, both ways; SOG, reading.

The formats keep logarithms of the scales, logits of the opacities and the zeroth spherical harmonic of
the colours (Kerbl et al., SIGGRAPH 2023). Only this module knows that: in memory there are
:class:`~humansplat.structures.Gaussians`, activations applied. Positions are written as they are, metres
with +Y up.
"""

import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float

from humansplat.errors import UserError
from humansplat.io.atomic import replacing
from humansplat.structures import Gaussians

if TYPE_CHECKING:
    from gsply import GSData

logger = logging.getLogger(__name__)

SH_C0 = 0.28209479177387814
"""The zeroth spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + SH_C0 * coefficient."""
OPACITY_MARGIN = 1e-6
"""Opacities are kept this far from 0 and 1, whose logits are infinite."""
MIN_SCALE = 1e-9
"""Smallest scale that is written, metres; the logarithm of 0 is infinite."""
_MAX_HEADER = 65_536
"""A PLY header is looked for in so many bytes; a splat file's has a few thousand."""

COMPRESSED = (".compressed.ply", ".ply_compressed")
WRITABLE = (".ply", ".compressed.ply", ".spz")
READABLE = (*WRITABLE, ".sog")


def write_splats(splats: Gaussians, path: Path, *, min_opacity: float = 0.0) -> None:
    """Write unbatched splats; the suffix picks the format.

    Args:
        splats: At least one splat. ``.ply`` keeps 32-bit floats, in order; ``.compressed.ply`` (PlayCanvas)
            and ``.spz`` (Niantic) quantise, and the former also reorders.
        path: Ends in one of :data:`WRITABLE`; appears whole or not at all.
        min_opacity: Splats below are left out.

    Raises:
        UserError: If the suffix names no format that can be written.
        ValueError: If the splats are batched, or none is left, or a number is not finite.
    """
    import gsply

    _check_suffix(path, WRITABLE, "written")
    if splats.means.ndim != 2:
        raise ValueError(f"a file holds one set of splats, got batch axes {tuple(splats.means.shape[:-2])}")
    splats = splats.detach().to("cpu")
    if min_opacity > 0:
        splats = splats.where(splats.opacities >= min_opacity)
    if splats.num_splats == 0:
        raise ValueError(f"{path.name}: no splat to write (min_opacity {min_opacity})")
    data = _encode(splats)
    with replacing(path) as temporary:
        if path.name.lower().endswith(".spz"):
            # 14 of 24 bits after the point: 0.06 mm, and room for 512 m.
            gsply.write_spz(temporary, data, fractional_bits=14)
        else:
            gsply.plywrite(temporary, data, compressed=path.name.lower().endswith(COMPRESSED))


def read_splats(path: Path) -> Gaussians:
    """Read a splat file of any format in :data:`READABLE`, however it was made.

    Colours that depend on the view (spherical harmonics above the zeroth) are left out, with a warning
    in the log; quaternions are normalised; colours outside ``[0, 1]`` are clamped.

    Raises:
        UserError: If the suffix names no format, the content is not of that format, or a package that
            the format needs is missing.
        FileNotFoundError: If there is no such file.
    """
    _check_suffix(path, READABLE, "read")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        _check_header(path)
        data = _reader(path)(path)
    except ImportError as error:
        raise UserError(f"{path}: reading .sog needs the package imagecodecs; pip install imagecodecs") from error
    except (ValueError, KeyError, IndexError, OSError, EOFError, BadZipFile, zlib.error, struct.error) as error:
        raise UserError(f"{path}: not a splat file that can be read ({error})") from error
    if data.shN is not None and np.asarray(data.shN).size:
        logger.warning("%s: colours that depend on the view are left out", path)
    return _decode(data)


def _check_suffix(path: Path, suffixes: tuple[str, ...], verb: str) -> None:
    if not path.name.lower().endswith((*suffixes, *COMPRESSED)):
        raise UserError(f"{path}: splats are {verb} as {', '.join(suffixes)}, not as {path.suffix or 'no suffix'!r}")


def _check_header(path: Path) -> None:
    """Refuse a PLY file whose header does not end: gsply would look for its end for ever."""
    if path.name.lower().endswith((".ply", *COMPRESSED)):
        with path.open("rb") as file:
            start = file.read(_MAX_HEADER)
        if not start.startswith(b"ply") or b"end_header" not in start:
            raise ValueError("it has no PLY header")


def _reader(path: Path) -> "Callable[[Path], GSData]":
    import gsply

    if path.suffix.lower() == ".spz":
        return gsply.read_spz
    if path.suffix.lower() == ".sog":
        return gsply.sogread
    return gsply.plyread


def _encode(splats: Gaussians) -> "GSData":
    import gsply

    opacities = _array(splats.opacities).clip(OPACITY_MARGIN, 1 - OPACITY_MARGIN).astype(np.float64)
    arrays = {
        "means": _array(splats.means),
        "scales": np.log(_array(splats.scales).clip(min=MIN_SCALE)),
        "quats": _array(torch.nn.functional.normalize(splats.quats, dim=-1)),
        "opacities": np.log(opacities / (1 - opacities)).astype(np.float32),
        "sh0": (_array(splats.colors) - 0.5) / SH_C0,
    }
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"splats: {name} holds a number that is not finite")
    no_harmonics = np.zeros((splats.num_splats, 0, 3), dtype=np.float32)
    # The format is stated: gsply would otherwise guess it from the values.
    return gsply.GSData(**arrays, shN=no_harmonics, _format=gsply.create_ply_format(sh_degree=0))


def _decode(data: "GSData") -> Gaussians:
    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32))  # a copy: gsply's arrays are views of the file

    return Gaussians(
        means=tensor(data.means),
        quats=torch.nn.functional.normalize(tensor(data.quats), dim=-1),
        scales=tensor(data.scales).exp(),
        opacities=tensor(data.opacities).reshape(-1).sigmoid(),
        colors=(0.5 + SH_C0 * tensor(data.sh0)).clamp(0, 1),
    )


def _array(values: Float[torch.Tensor, "..."]) -> np.ndarray:
    return np.ascontiguousarray(values.to(torch.float32).numpy())
