"""Rotations as matrices, axis-angle vectors, quaternions and the 6D form. Any leading batch axes."""

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
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)  # keeps the unused branch's gradient finite
    angle = safe.sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    cross = skew(vector)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + sine * cross + cosine * (cross @ cross)


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix that takes ``x`` to ``vector x x``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


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
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrix.unbind(-2))
    trace = xx + yy + zz
    diagonal = torch.stack([trace, xx, yy, zz], dim=-1)
    candidates = torch.stack(
        [
            1 + trace, zy - yz, xz - zx, yx - xy,
            zy - yz, 1 + 2 * xx - trace, xy + yx, xz + zx,
            xz - zx, xy + yx, 1 + 2 * yy - trace, yz + zy,
            yx - xy, xz + zx, yz + zy, 1 + 2 * zz - trace,
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))  # fmt: skip
    best = diagonal.argmax(dim=-1)[..., None, None].expand(*matrix.shape[:-2], 1, 4)
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
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )
