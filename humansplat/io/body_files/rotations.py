"""Rotations in whatever form a file has them, as axis-angle vectors.

The form follows from the shape: ``(..., 3, 3)`` or 9 numbers a joint are matrices, ``(..., 3, 2)`` or 6 the first two
columns of one (Zhou et al., CVPR 2019), 4 a quaternion, 3 axis times angle. Where numbers leave a choice, the
choice is the one that makes them rotations; if none or both do, the file is refused.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.geometry.rotations import matrix_to_axis_angle, quaternion_to_matrix, rotation_6d_to_matrix

MAX_DEVIATION = 0.02
"""Of a matrix times its transpose from one: float16 files and unpolished network outputs stay below."""
MAX_ANGLE = 4 * np.pi
"""A longer axis-angle vector is not one (degrees, or other numbers)."""


def read_rotations(array: np.ndarray, num_joints: Sequence[int], what: str) -> Float[Tensor, "n j 3"]:
    """Rotations of a stack of people as axis times angle.

    Args:
        array: Any number of leading axes (people, frames), which are counted together.
        num_joints: How many joints the group may have; no two of them may fit one shape.
        what: Names the array in messages.

    Raises:
        UserError: If the shape fits none of the forms, or the numbers are not rotations.
    """
    numbers = np.asarray(array, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"{what} holds numbers that are not finite; give a pose without them")
    joints, width = _joints_and_width(numbers, num_joints, what)
    stack = torch.from_numpy(np.array(numbers.reshape(-1, joints, width)))
    if width == 3:
        longest = float(stack.norm(dim=-1).max()) if stack.numel() else 0.0
        if longest > MAX_ANGLE:
            raise UserError(f"{what} turns a joint by {longest:.0f} radians; give axis times angle in radians")
        return stack.float()
    if width == 9:
        matrices = _checked(stack.unflatten(-1, (3, 3)), what)
    elif width == 6:
        matrices = _from_6d(stack, what)
    else:
        matrices = quaternion_to_matrix(_scalar_first(stack, what))
    return matrix_to_axis_angle(matrices).float()


def _joints_and_width(numbers: np.ndarray, num_joints: Sequence[int], what: str) -> tuple[int, int]:
    """How many joints a person has, and how many numbers a joint."""
    shape = numbers.shape
    for joints in num_joints:
        if shape[-3:] in {(joints, 3, 3), (joints, 3, 2)}:
            return joints, 3 * shape[-1]
        if joints == 1 and shape[-2:] == (3, 3) and _deviation(numbers) < MAX_DEVIATION:
            return 1, 9  # a matrix without an axis of joints
    for joints in num_joints:
        if len(shape) >= 2 and shape[-2] == joints and shape[-1] in {3, 4, 6, 9}:
            return joints, shape[-1]
    for joints in num_joints:
        if shape and shape[-1] in {width * joints for width in (3, 4, 6, 9)}:
            return joints, shape[-1] // joints
    counts = " or ".join(str(count) for count in num_joints)
    raise UserError(
        f"{what} has the shape {shape}; needed are {counts} joints as axis-angle (3 numbers), quaternion (4), "
        "6D (6) or matrix (3 x 3)"
    )


def _deviation(matrices: np.ndarray) -> float:
    return float(np.abs(matrices @ np.swapaxes(matrices, -1, -2) - np.eye(3)).max(initial=0.0))


def _checked(matrices: Float[Tensor, "n j 3 3"], what: str) -> Float[Tensor, "n j 3 3"]:
    deviation = _deviation(matrices.numpy())
    if deviation > MAX_DEVIATION or bool((torch.linalg.det(matrices) < 0).any()):
        raise UserError(
            f"{what} holds matrices that are not rotations (off by {deviation:.2g}); give orthonormal matrices"
        )
    # The nearest rotation: what is left of rounding would grow along the limbs.
    left, _, right = torch.linalg.svd(matrices)
    return left @ right


def _from_6d(numbers: Float[Tensor, "n j 6"], what: str) -> Float[Tensor, "n j 3 3"]:
    """Two columns, one after the other, or interleaved as a ``(3, 2)`` matrix is stored."""
    apart = numbers.unflatten(-1, (2, 3))
    interleaved = numbers.unflatten(-1, (3, 2)).mT
    errors = [float((pair @ pair.mT - torch.eye(2)).abs().max()) for pair in (apart, interleaved)]
    if min(errors) > 10 * MAX_DEVIATION or max(errors) < 10 * min(errors):
        raise UserError(
            f"{what} holds 6 numbers a joint that are not two columns of a rotation in one clear order; give matrices"
        )
    columns = apart if errors[0] < errors[1] else interleaved
    return rotation_6d_to_matrix(columns.flatten(-2))


def _scalar_first(quaternions: Float[Tensor, "n j 4"], what: str) -> Float[Tensor, "n j 4"]:
    """Order ``(w, x, y, z)``, by which end is large: joints turn by less than a right angle for the most part."""
    lengths = quaternions.norm(dim=-1)
    if float((lengths - 1).abs().max()) > MAX_DEVIATION:
        raise UserError(f"{what} holds 4 numbers a joint that are not unit quaternions; give axis-angle or matrices")
    first, last = quaternions[..., 0].abs(), quaternions[..., 3].abs()
    votes = int((first > 0.9).sum()) - int((last > 0.9).sum())
    if quaternions.shape[1] < 3 or abs(votes) <= 0.3 * first.numel():
        raise UserError(
            f"{what} holds quaternions whose order, scalar first or last, cannot be told; give axis-angle or matrices"
        )
    return quaternions if votes > 0 else quaternions.roll(1, dims=-1)
