"""A body drawn over a photo: does the file fit the photo?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from humansplat.body.models import load_body_model
from humansplat.body.recorded import before_camera, pose_record
from humansplat.capture.photo import Photo, Picture, load_photo
from humansplat.io.body_files.load import load_body_file
from humansplat.io.body_files.record import BodyRecord, Family
from humansplat.io.body_files.surfaces import lacks_faces
from humansplat.pipelines.crop_cameras import camera_in_photo
from humansplat.pipelines.given_body import given_body
from humansplat.render.lighting import Lighting
from humansplat.render.meshes import ShadedMesh, render_meshes
from humansplat.structures import Cameras, PosedBody

MAX_SIDE = 1600
"""Larger photos are drawn at this size, pixels."""
OPACITY = 0.65
"""How much of the photo the body hides."""
COLOR = (0.12, 0.35, 0.85)
"""Linear reflectance of the body: a colour that people seldom wear."""


@dataclass(frozen=True)
class DrawnBody:
    """A picture, and what there is to say about it."""

    picture: UInt8[np.ndarray, "h w 3"]
    told: str
    """One sentence: what was read."""
    warnings: tuple[str, ...] = ()


def draw_body_file(
    path: str | Path,
    photo: Picture,
    *,
    person: int | None = None,
    format: str | None = None,
    model: Family | None = None,
    folder: str | Path | None = None,
) -> DrawnBody:
    """Draw one person of a body file over the photo.

    The file's own camera is used as it is. A body without a camera is put over the person, as ``humansplat
    reconstruct`` would do.

    Args:
        path: Body file.
        photo: The photo.
        person: Which of the people of the file.
        format: Whose file it is, where its names do not tell it.
        model: Which body model it means, where it does not say.
        folder: Of the model files of SMPL's family.

    Raises:
        UserError: If the file or the photo cannot be read, or the body cannot be placed.
    """
    picture = load_photo(photo)
    template = load_body_model().pose({}) if lacks_faces(Path(path)) else None
    record = load_body_file(path, person=person, format=format, model=model, template=template)
    if record.camera is None:
        body, camera, warnings = _over_person(record, picture, folder)
    else:
        recorded, camera = before_camera(record, pose_record(record, folder), picture.width, picture.height)
        body, warnings = recorded.body, recorded.warnings
    missing = f", without {', '.join(record.missing)}" if record.missing else ""
    told = f"{record.family} body of {record.source}, {len(body.vertices)} vertices{missing}"
    return DrawnBody(picture=draw_body(picture, body, camera), told=told, warnings=warnings)


def _over_person(
    record: BodyRecord, picture: Photo, folder: str | Path | None
) -> tuple[PosedBody, Cameras, tuple[str, ...]]:
    """Find the person in the photo, and put a body without a camera there."""
    from humansplat.capture.capture import capture_person
    from humansplat.pipelines.body_estimation import BodyEstimator

    capture = capture_person(picture)
    size = (picture.width, picture.height)
    placed = given_body(record, capture, size, lambda: BodyEstimator(load_body_model())(capture), folder)
    return placed.body, camera_in_photo(placed.camera, capture, *size), placed.warnings


def draw_body(picture: Photo, body: PosedBody, camera: Cameras) -> UInt8[np.ndarray, "h w 3"]:
    """The body's surface, shaded and half transparent, over a photo.

    Args:
        picture: The photo; drawn smaller if it is larger than ``MAX_SIDE``.
        body: Unbatched, in the camera's world.
        camera: Unbatched, in the photo's pixels.
    """
    scale = min(1.0, MAX_SIDE / max(picture.width, picture.height))
    width, height = round(picture.width * scale), round(picture.height * scale)
    small = Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.LANCZOS)
    photo = np.asarray(small, dtype=np.float32) / 255
    vertices, view = _upright(body, camera)
    seen = Cameras(viewmats=view[None], Ks=camera.Ks[None], width=camera.width, height=camera.height)
    mesh = ShadedMesh(vertices=vertices, faces=body.faces.cpu().numpy().astype(np.int32), color=COLOR)
    rgba = render_meshes([mesh], seen.resized(width, height), _side_light()).rgba[0].movedim(0, -1).numpy()
    alpha = OPACITY * rgba[..., 3:]
    mixed = alpha * rgba[..., :3] + (1 - alpha) * photo
    return (mixed * 255).round().clip(0, 255).astype(np.uint8)


def _side_light() -> Lighting:
    """A lamp from the upper left and little else, so that limbs stand out before the trunk."""
    environment = np.zeros((9, 3), np.float32)
    environment[0] = 0.3
    direction = np.array([[-0.6, 0.6, 0.6]], np.float32)
    return Lighting(
        environment=environment,
        directions=direction / np.linalg.norm(direction),
        colors=np.full((1, 3), 1.0, np.float32),
    )


def _upright(body: PosedBody, camera: Cameras) -> tuple[Float[np.ndarray, "v 3"], Float[torch.Tensor, "4 4"]]:
    """The body in a frame with +Y up whatever its own is, as light falls from above, and the view of that frame."""
    rotation, shift = camera.viewmats[:3, :3], camera.viewmats[:3, 3]
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    cam = body.vertices.cpu() @ rotation.T + shift
    view = torch.eye(4)
    view[:3, :3] = flip
    return np.ascontiguousarray((cam @ flip).numpy()), view
