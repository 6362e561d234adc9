"""One person's folder as arrays: pictures decoded, resampled if asked for, straight alpha kept."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image

from humansplat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PersonArrays:
    """One person; see ``docs/data-format.md`` for the files."""

    name: str
    width: int
    height: int
    images: UInt8[ndarray, "v 4 h w"]
    """Straight alpha; the four views of the rig first."""
    viewmats: Float32[ndarray, "v 4 4"]
    Ks: Float32[ndarray, "v 3 3"]
    vertices: Float32[ndarray, "n 3"]
    joints: Float32[ndarray, "j 3"]
    parameters: dict[str, ndarray]
    """The body model's own, by its names."""

    def arrays(self) -> dict[str, ndarray]:
        """All arrays by name; the parameters' names begin with ``param.``."""
        names = ("images", "viewmats", "Ks", "vertices", "joints")
        own = {name: getattr(self, name) for name in names}
        return own | {f"param.{name}": value for name, value in self.parameters.items()}


def read_person(folder: Path, image_size: int | None = None) -> PersonArrays:
    """Read one person's pictures, cameras and body.

    Args:
        folder: The person's folder.
        image_size: Side of the square pictures wanted, pixels; the intrinsics follow. ``None`` keeps the files'.

    Raises:
        UserError: If a file is missing, cannot be read, or does not fit the others.
    """
    try:
        cameras = json.loads((folder / "cameras.json").read_text(encoding="utf-8"))
        width, height = int(cameras["width"]), int(cameras["height"])
        viewmats, Ks = np.asarray(cameras["viewmats"], np.float32), np.asarray(cameras["Ks"], np.float32)
        paths = sorted(path for path in (folder / "images").iterdir() if path.suffix in (".png", ".webp"))
        with np.load(folder / "body.npz", allow_pickle=False) as body:
            vertices, joints = body["vertices"].astype(np.float32), body["joints"].astype(np.float32)
            parameters = {name: body[name].astype(np.float32) for name in PARAMETERS if name in body}
        size = (width, height) if image_size is None else (image_size, image_size)
        images = np.stack([_read_rgba(path, size) for path in paths])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{folder} cannot be read as a person: {error!r}; remove it or make it anew") from error
    if not len(images) == len(viewmats) == len(Ks) >= 4:
        raise UserError(
            f"{folder} has {len(images)} images and {len(viewmats)} cameras; as many are needed, and at least 4"
        )
    scale = np.asarray([size[0] / width, size[1] / height, 1], np.float32)
    return PersonArrays(
        name=folder.name,
        width=size[0],
        height=size[1],
        images=images,
        viewmats=viewmats,
        Ks=Ks * scale[:, None],
        vertices=vertices,
        joints=joints,
        parameters=parameters,
    )


PARAMETERS = ("phenotypes", "rotations", "translation")
"""Arrays of ``body.npz`` that are the body model's parameters."""


def _read_rgba(path: Path, size: tuple[int, int]) -> UInt8[ndarray, "4 h w"]:
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    if rgba.size != size:
        # "RGBa" is premultiplied: what lies under alpha 0 must not bleed into the edge.
        rgba = rgba.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    return np.ascontiguousarray(np.asarray(rgba).transpose(2, 0, 1))
