"""The three styles of cameras in body files: K, focal length and principal point, weak perspective in a crop."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.geometry.projection import rigid
from humansplat.io.body_files.fields import Fields
from humansplat.io.body_files.record import FileCamera, FocalCamera, PinholeCamera, WeakCamera

FOCAL = ("scaled_focal_length", "focal", "focal_length", "focal_length_px", "pred_focal", "img_focal")
PRINCIPAL = ("princpt", "principal_point", "principal", "img_center", "camera_center")
INTRINSICS = ("K", "intrinsics", "intrinsic", "cam_int", "intrinsic_matrix", "cam_intrinsics")
WEAK = ("body_cam", "pred_cam", "weak_cam")


def focal_camera(fields: Fields, person: int) -> FileCamera | None:
    """``K``, or focal length (and principal point), if the file has them."""
    matrix = fields.array(*INTRINSICS)
    if matrix is not None:
        if matrix.shape[-2:] != (3, 3):
            raise UserError(
                f"{fields.path}: {fields.name_of(*INTRINSICS)} has the shape {matrix.shape}; needed is (3, 3)"
            )
        stack = matrix.reshape(-1, 3, 3)
        return PinholeCamera(K=torch.from_numpy(stack[min(person, len(stack) - 1)].astype(np.float32)))
    focal = fields.rows((1, 2), *FOCAL) if _is_vector(fields) else None
    if focal is None:
        number = fields.number(person, *FOCAL)
        if number is None:
            return None
        focal = torch.tensor([[number]])
    one = focal[min(person, len(focal) - 1)]
    if not bool((one > 0).all()):
        raise UserError(f"{fields.path}: a focal length of {one.tolist()} px; it must be positive")
    return FocalCamera(focal=one.expand(2).clone(), principal=fields.row(person, 2, *PRINCIPAL))


def _is_vector(fields: Fields) -> bool:
    array = fields.array(*FOCAL)
    return array is not None and array.ndim > 0 and array.shape[-1] == 2


def image_size(fields: Fields, person: int) -> tuple[int, int] | None:
    """Width and height of the picture, if the file has them."""
    width, height = fields.number(person, "width", "img_width"), fields.number(person, "height", "img_height")
    if width is not None and height is not None:
        return round(width), round(height)
    size = fields.row(person, 2, "img_size", "image_size")
    return None if size is None else (round(float(size[0])), round(float(size[1])))


def square_crop(fields: Fields, person: int, margin: float | None) -> tuple[Float[Tensor, "2"], float] | None:
    """Centre and side of the crop that an estimator saw, photo pixels.

    Args:
        fields: May hold ``box_center`` and ``box_size``, or a box ``bbox`` (left, top, right, bottom).
        person: Whose.
        margin: The crop's side over the longer side of ``bbox``; ``None`` where that is not known, so that a bare
            box tells no crop.
    """
    center, side = fields.row(person, 2, "box_center", "bbox_center"), fields.number(person, "box_size", "bbox_size")
    if center is not None and side is not None:
        return center, side
    box = fields.row(person, (4, 5), "bbox", "bboxes")
    if box is None or margin is None:
        return None
    size = box[2:4] - box[:2]
    if not bool((size > 0).all()):
        raise UserError(
            f"{fields.path}: the box {box[:4].tolist()} is empty as (left, top, right, bottom); give it in this order"
        )
    return (box[:2] + box[2:4]) / 2, margin * float(size.max())


def weak_camera(fields: Fields, person: int, margin: float | None) -> WeakCamera | None:
    """Weak perspective ``[s, tx, ty]`` and its crop; ``None`` if either is missing.

    Raises:
        UserError: If the scale is not positive.
    """
    values, crop = fields.row(person, 3, *WEAK), square_crop(fields, person, margin)
    if values is None or crop is None:
        return None
    if not float(values[0]) > 0:
        raise UserError(
            f"{fields.path}: {fields.name_of(*WEAK)} has the scale {float(values[0]):g}; it must be positive"
        )
    return WeakCamera(scale=float(values[0]), shift=values[1:], center=crop[0], side=crop[1])


def view_matrix(fields: Fields, person: int) -> Float[Tensor, "4 4"] | None:
    """World -> camera, from ``viewmat`` or from ``R`` and ``T``, if the file has them.

    Raises:
        UserError: If ``R`` is no rotation.
    """
    matrix, turn, shift = fields.array("viewmat", "extrinsics", "w2c"), fields.array("R"), fields.row(person, 3, "T")
    if matrix is not None and matrix.shape[-2:] == (4, 4):
        stack = matrix.reshape(-1, 4, 4)
        view = torch.from_numpy(stack[min(person, len(stack) - 1)].astype(np.float32))
    elif turn is not None and shift is not None and turn.shape[-2:] == (3, 3):
        stack = turn.reshape(-1, 3, 3)
        rotation = torch.from_numpy(stack[min(person, len(stack) - 1)].astype(np.float32))
        view = rigid(rotation, shift)
    else:
        return None
    if float((view[:3, :3] @ view[:3, :3].T - torch.eye(3)).abs().max()) > 1e-3:
        raise UserError(f"{fields.path}: the camera's rotation is none; give an orthonormal R, world to camera")
    return view


def camera_from_points(
    points: Float[Tensor, "n 3"], pixels: Float[Tensor, "n 2"], what: str
) -> tuple[FocalCamera, float]:
    """Focal length and principal point from points in the camera's frame and where they show.

    Least squares; square pixels.

    Returns:
        The camera, and the root mean square of what it leaves, pixels.

    Raises:
        UserError: If the points do not fix a camera.
    """
    rays = (points[:, :2] / points[:, 2:]).double().numpy()
    seen = pixels.double().numpy()
    count = len(rays)
    rows = np.zeros((2 * count, 3))
    rows[:count, 0], rows[count:, 0] = rays[:, 0], rays[:, 1]
    rows[:count, 1] = rows[count:, 2] = 1.0
    target = np.concatenate([seen[:, 0], seen[:, 1]])
    solution, _, rank, _ = np.linalg.lstsq(rows, target, rcond=1e-9)
    if rank < 3 or not np.isfinite(solution).all() or solution[0] <= 0:
        raise UserError(f"{what}: its points in space and in the picture fit no camera; give the focal length")
    left = math.sqrt(float(np.mean((rows @ solution - target) ** 2)))
    focal, x, y = (float(value) for value in solution)
    return FocalCamera(focal=torch.tensor([focal, focal]), principal=torch.tensor([x, y])), left
