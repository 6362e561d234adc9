"""One person's folder as the pool keeps it: pictures decoded, resampled if asked for, straight alpha kept."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from humansplat.data.format import read_cameras
from humansplat.data.rig import COMPARED, NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.io.body import read_body
from humansplat.structures import Cameras, PosedBody


@dataclass(frozen=True, kw_only=True)
class PersonTensors:
    """One person on the CPU; see ``docs/data-format.md`` for the files."""

    name: str
    images: UInt8[Tensor, "v 4 h w"]
    """Straight alpha; the four views of the rig first."""
    cameras: Cameras
    """``[v]``."""
    body: PosedBody
    """Unbatched."""
    compared: Bool[Tensor, " v"] | None = None
    """Views by which a model is judged, see ``data.rig.COMPARED``; ``None``: all but the rig's."""

    def tensors(self) -> dict[str, Tensor]:
        """All that is not the same for everybody, by name; the parameters' names begin with ``param.``."""
        own = {
            "images": self.images,
            "viewmats": self.cameras.viewmats,
            "Ks": self.cameras.Ks,
            "compared": self._compared(),
            "vertices": self.body.vertices,
            "joints": self.body.joints,
        }
        return own | {f"param.{name}": value for name, value in (self.body.parameters or {}).items()}

    def _compared(self) -> Bool[Tensor, " v"]:
        return torch.arange(len(self.images)) >= NUM_RIG_VIEWS if self.compared is None else self.compared


def load_person(
    folder: Path, template: PosedBody, image_size: int | None = None, *, max_views: int | None = None
) -> PersonTensors:
    """Read one person's pictures, cameras and body; part maps are left where they are.

    Args:
        folder: The person's folder.
        template: Any body of the same model.
        image_size: Side of the square pictures wanted, pixels; the intrinsics follow. ``None`` keeps the files'.
        max_views: Most views: the rig's four and others, evenly chosen. ``None`` reads all.

    Raises:
        UserError: If a file is missing, cannot be read, or does not fit the others.
    """
    cameras, roles = read_cameras(folder / "cameras.json")
    if len(roles) < NUM_RIG_VIEWS:
        raise UserError(f"{folder} has {len(roles)} views, {NUM_RIG_VIEWS} are needed: make the person anew")
    body, _ = read_body(folder / "body.npz", template)
    views = even_views(len(roles), max_views)
    size = (cameras.width, cameras.height) if image_size is None else (image_size, image_size)
    images = [_read_rgba(folder / "images" / f"{view:03d}.png", cameras, size) for view in views]
    return PersonTensors(
        name=folder.name,
        images=torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()),
        cameras=cameras[torch.tensor(views)].resized(*size),
        body=body,
        compared=torch.tensor([roles[view] in COMPARED for view in views]),
    )


def even_views(count: int, most: int | None) -> list[int]:
    """The views of the rig, and at most so many in all, spread over the others."""
    if most is None or most >= count:
        return list(range(count))
    others = np.linspace(NUM_RIG_VIEWS, count, most - NUM_RIG_VIEWS, endpoint=False).astype(int)
    return [*range(NUM_RIG_VIEWS), *others.tolist()]


def decode_rgba(content: bytes, where: str, cameras: Cameras, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 4"]:
    """Decode a picture with straight alpha, and resample it if asked for.

    Args:
        content: The bytes of the file.
        where: Its name, for messages.
        cameras: Their size is the one that the picture must have.
        size: Width and height wanted, pixels.

    Raises:
        UserError: If it is no picture, or of another size.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            rgba = image if image.mode == "RGBA" else image.convert("RGBA")
            rgba.load()
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise UserError(f"{where} cannot be read as a picture ({error}): make the person anew") from error
    if rgba.size != (cameras.width, cameras.height):
        raise UserError(
            f"{where} has {rgba.size} pixels where cameras.json says {(cameras.width, cameras.height)}: "
            "make the person anew"
        )
    if rgba.size != size:
        # "RGBa" is premultiplied: what lies under alpha 0 must not bleed into the edge.
        rgba = rgba.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    return np.asarray(rgba)


def _read_rgba(path: Path, cameras: Cameras, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 4"]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): make the person anew") from error
    return decode_rgba(content, str(path), cameras, size)
