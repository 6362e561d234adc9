"""Pinhole camera mathematics. Stateless; any leading batch axes.

Conventions, library-wide (``docs/conventions.md``):
    world   right-handed, metres, +Y up, the subject faces +Z
    camera  OpenCV: +X right, +Y down, +Z forward
    viewmat (4, 4) world -> camera, acting on column vectors
    K       (3, 3) in pixels; pixel (i, j) covers [j, j + 1) x [i, i + 1), so an
            undistorted principal point is (W / 2, H / 2)
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.structures import Cameras


def look_at(
    eye: Float[Tensor, "*batch 3"],
    target: Float[Tensor, "*batch 3"],
    up: Float[Tensor, "3"],
) -> Float[Tensor, "*batch 4 4"]:
    """Build world -> camera matrices for cameras at ``eye`` facing ``target``.

    Args:
        eye: Camera centres, world frame, metres.
        target: Points that project onto the principal point, world frame, metres.
        up: World direction that appears upwards in the image; need not be unit length.

    Returns:
        View matrices, OpenCV axes.

    Raises:
        ValueError: If ``up`` is parallel to a viewing direction.

    Example:
        >>> view = look_at(torch.tensor([0.0, 0.0, 2.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
        >>> view[2, 3].item()  # the world origin is two metres ahead
        2.0
    """
    forward = F.normalize(target - eye, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if (right.norm(dim=-1) < 1e-6).any():
        raise ValueError("up is parallel to a viewing direction")
    right = F.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)  # rows are the camera's axes
    return rigid(rotation, -(rotation @ eye[..., None])[..., 0])


def rigid(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Assemble homogeneous matrices from rotations and translations."""
    # Not a small constant tensor: making one on a GPU waits for all work queued there.
    bottom = torch.cat([torch.zeros_like(rotation[..., :1, :]), torch.ones_like(rotation[..., :1, :1])], dim=-1)
    return torch.cat([torch.cat([rotation, translation[..., None]], dim=-1), bottom], dim=-2)


def intrinsics(fov: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Intrinsics of an undistorted camera with square pixels.

    Args:
        fov: Angle of view over the larger side of the image, radians.
        width: Image width, pixels.
        height: Image height, pixels.

    Returns:
        ``K`` with the principal point at ``(width / 2, height / 2)``.
    """
    focal = 0.5 * max(width, height) / math.tan(0.5 * fov)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def to_camera(
    points: Float[Tensor, "*batch n 3"], viewmat: Float[Tensor, "*batch 4 4"]
) -> Float[Tensor, "*batch n 3"]:
    """Transform world points into camera frames."""
    return points @ viewmat[..., :3, :3].mT + viewmat[..., None, :3, 3]


def project(
    points: Float[Tensor, "*batch n 3"],
    viewmat: Float[Tensor, "*batch 4 4"],
    K: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch n 2"], Float[Tensor, "*batch n"]]:
    """Project world points.

    Returns:
        Pixel coordinates ``(x, y)`` and camera-frame depth in metres. Points with
        ``depth <= 0`` are behind the camera and their pixels are meaningless.
    """
    cam = to_camera(points, viewmat)
    homogeneous = cam @ K.mT
    return homogeneous[..., :2] / homogeneous[..., 2:], cam[..., 2]


def unproject(
    pixels: Float[Tensor, "*batch n 2"],
    depth: Float[Tensor, "*batch n"],
    viewmat: Float[Tensor, "*batch 4 4"],
    K: Float[Tensor, "*batch 3 3"],
) -> Float[Tensor, "*batch n 3"]:
    """Place pixels at a camera-frame depth (metres) in the world; inverse of :func:`project`."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    cam = depth[..., None] * (homogeneous @ torch.linalg.inv_ex(K).inverse.mT)
    return (cam - viewmat[..., None, :3, 3]) @ viewmat[..., :3, :3]


def elevations(cameras: Cameras) -> Float[Tensor, "*batch"]:
    """How far above the horizon cameras stand that look at somebody: how far they look down, radians."""
    return -cameras.viewmats[..., 2, 1].clamp(-1, 1).asin()


def orbit(
    camera: Cameras,
    center: Float[Tensor, "*batch 3"],
    azimuths: Float[Tensor, " v"],
) -> Cameras:
    """Carry a camera around the vertical axis through a point.

    Args:
        camera: The camera of azimuth zero, one a batch element.
        center: Point on the axis, world frame, metres.
        azimuths: Angles, radians; a positive one moves the camera towards +X when it starts on +Z.

    Returns:
        Cameras with one more batch axis of length ``v``, the same size and intrinsics.
    """
    cos, sin = azimuths.cos(), azimuths.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    # World rotation by -azimuth about +Y: turning the world back is carrying the camera forth.
    turn = torch.stack([cos, zero, -sin, zero, one, zero, sin, zero, cos], dim=-1).unflatten(-1, (3, 3))
    axis = center[..., None, :]
    shift = axis - (turn @ axis[..., None])[..., 0]
    viewmats = camera.viewmats[..., None, :, :] @ rigid(turn.expand(*shift.shape[:-1], 3, 3), shift)
    Ks = camera.Ks[..., None, :, :].expand(*viewmats.shape[:-2], 3, 3)
    return Cameras(viewmats=viewmats, Ks=Ks, width=camera.width, height=camera.height)
