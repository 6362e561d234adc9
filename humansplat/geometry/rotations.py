"""Rotations as matrices, axis-angle vectors, quaternions and the 6D form. Any leading batch axes."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def axis_angle_to_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula, smooth at zero.

    Args:
        vector: Axis times angle, radians.

    Example:
        >>> import math
        >>> axis_angle_to_matrix(torch.tensor([0.0, math.pi / 2, 0.0]))[0, 2].item()  # about +Y: +Z goes to +X
        1.0
    """
    squared = vector.square().sum(dim=-1)[..., None, None]
    # Below a thousandth the factors stay what they are there: that changes the matrix by less than float32 resolves,
    # and keeps gradients finite.
    squared = squared.clamp(min=1e-6)
    angle = squared.sqrt()
    cross = skew(vector)
    turn = (angle.sin() / angle) * cross + ((1 - angle.cos()) / squared) * (cross @ cross)
    turn.diagonal(dim1=-2, dim2=-1).add_(1)
    return turn


def rotation_between(a: Float[Tensor, "3"], b: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The rotation of least angle that takes the direction of ``a`` to that of ``b``; half a turn if opposite.

    Example:
        >>> rotation_between(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))[2, 0].item()
        1.0
    """
    axis = torch.linalg.cross(a, b)
    sine, cosine = axis.norm(), a @ b
    if sine > 1e-6 * torch.hypot(sine, cosine):
        return axis_angle_to_matrix(axis / sine * torch.atan2(sine, cosine))
    across = torch.linalg.cross(a, F.one_hot(a.abs().argmin(), 3).to(a))
    return axis_angle_to_matrix(F.normalize(across, dim=0) * (0.0 if cosine > 0 else math.pi))


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix that takes ``x`` to ``vector x x``."""
    x, y, z = vector.unbind(-1)
    nx, ny, nz = (-vector).unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, nz, y, z, zero, nx, ny, x, zero], dim=-1).unflatten(-1, (3, 3))


def quaternion_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions ``(w, x, y, z)``; they need not be unit length."""
    w, x, y, z = F.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions ``(w, x, y, z)``, ``w >= 0``, of rotation matrices.

    All four of Shepperd's candidates are formed and the best conditioned one is taken, so that no
    rotation is close to a division by zero.
    """
    sums, differences = matrix + matrix.mT, matrix - matrix.mT
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None]
    axis = torch.stack([differences[..., 2, 1], differences[..., 0, 2], differences[..., 1, 0]], dim=-1)
    above = torch.cat([1 + trace, axis], dim=-1)[..., None, :]
    sums.diagonal(dim1=-2, dim2=-1).add_(1 - trace)
    candidates = torch.cat([above, torch.cat([axis[..., None], sums], dim=-1)], dim=-2)  # rows [*batch, 4, 4]
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None].expand(*matrix.shape[:-2], 1, 4)
    quaternion = F.normalize(candidates.gather(-2, best)[..., 0, :], dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_axis_angle(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis times angle, radians, angle in ``[0, pi]``."""
    quaternion = matrix_to_quaternion(matrix)
    sine = quaternion[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] * torch.where(sine < 1e-7, torch.full_like(sine, 2.0), angle / sine.clamp(min=1e-7))


def rotation_6d_to_matrix(columns: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Gram-Schmidt on two columns (Zhou et al., CVPR 2019); continuous everywhere."""
    a, b = columns[..., :3], columns[..., 3:]
    first = F.normalize(a, dim=-1)
    second = F.normalize(b - (first * b).sum(dim=-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_rotation_6d(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The first two columns, one after the other."""
    return torch.cat([matrix[..., 0], matrix[..., 1]], dim=-1)


def quaternion_multiply(a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Hamilton product of quaternions ``(w, x, y, z)``: first ``b`` turns, then ``a``."""
    return (multiplication_matrix(a) @ b[..., None])[..., 0]


def multiplication_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4 4"]:
    """What a quaternion's product with another one from the left does to the other's four numbers."""
    w, x, y, z = quaternion.unbind(-1)
    nx, ny, nz = (-quaternion[..., 1:]).unbind(-1)
    rows = [w, nx, ny, nz, x, w, nz, y, y, z, w, nx, z, ny, x, w]
    return torch.stack(rows, dim=-1).unflatten(-1, (4, 4))
