"""A body that a file placed before a photo, before the canonical camera of the photo's crop and in the house world."""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.fit_start import MAX_PITCH
from humansplat.body.fit_terms import CROP_FOV
from humansplat.body.recorded import RecordedBody, moved, moved_record
from humansplat.geometry.projection import intrinsics, look_at, project, rigid
from humansplat.geometry.rotations import axis_angle_to_matrix, skew
from humansplat.structures import Cameras, PosedBody

_MIN_LEAN = 0.06
"""Those who lean less, radians, stand as people do."""
_MAX_LEAN = 0.35
"""Feet further out from below the body than this, radians, carry no weight."""
_FEET = 0.06
"""The share of a body's height that counts as feet."""
_STEPS = 15
_NUM_POINTS = 500


def place_before_crop(
    recorded: RecordedBody, camera: Cameras, crop_to_photo: Float[Tensor, "2 3"], side: int
) -> tuple[RecordedBody, Cameras, float]:
    """Move a body before the canonical camera so that it shows where its own camera shows it.

    The file's camera may be of any kind and stand anywhere, a kilometre away for weak perspective; the canonical
    one sees the crop at 30 degrees. The rigid motion between the two is the one that changes the pixels least.

    Args:
        recorded: In the frame of ``camera``.
        camera: Unbatched, in pixels of the photo, at the origin of its frame.
        crop_to_photo: Affine map from crop pixels to photo pixels.
        side: Of the crop, pixels.

    Returns:
        The body in the house world (torso facing +Z, root over the origin, lowest vertex on the ground), the
        canonical camera there, and the root mean square of the pixels by which the two views differ.
    """
    vertices = recorded.body.vertices
    chosen = vertices[torch.linspace(0, len(vertices) - 1, min(_NUM_POINTS, len(vertices))).long()]
    ahead = chosen[chosen[:, 2] > 0]
    pixels, _ = project(ahead, camera.viewmats, camera.Ks)
    linear, corner = crop_to_photo[:, :2], crop_to_photo[:, 2]
    seen = (pixels - corner) @ torch.linalg.inv(linear).T
    middle = torch.cat([linear @ torch.tensor([side / 2, side / 2]) + corner, torch.ones(1)])
    ray = torch.linalg.inv(camera.Ks) @ middle
    start = look_at(torch.zeros(3), ray, torch.tensor([0.0, -1.0, 0.0]))[:3, :3]
    K = intrinsics(CROP_FOV, side, side)
    rotation, shift, error = _solve(ahead.double(), seen.double(), K.double(), start.double())
    turned = moved_record(recorded, rotation.float(), shift.float())
    level = rotation.float() @ torch.tensor([0.0, -1.0, 0.0])
    body, view = into_world(turned, _balanced(turned.body, level))
    return body, Cameras(viewmats=view, Ks=K, width=side, height=side), error


def _balanced(body: PosedBody, level: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """The world's up for a camera whose pitch no file tells: the person stands over the feet, before and behind.

    Who leans a little as anybody does, or as much as sitting and falling people, keeps the level camera.
    """
    corners = body.vertices[body.faces]
    middles = corners.mean(dim=1)
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    heights = middles @ level
    feet = areas * (heights < heights.min() + _FEET * (heights.max() - heights.min()))
    above = areas @ middles / areas.sum() - feet @ middles / feet.sum()
    pitch, lean = torch.atan2(level[2], -level[1]), torch.atan2(above[2], -above[1])
    if not _MIN_LEAN < float((lean - pitch).abs()) < _MAX_LEAN:
        return level
    return torch.stack([torch.zeros_like(lean), -lean.cos(), lean.sin()])


def _solve(
    points: Float[Tensor, "n 3"], pixels: Float[Tensor, "n 2"], K: Float[Tensor, "3 3"], start: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"], float]:
    """The rigid motion that shows points nearest to their pixels: Gauss-Newton over six unknowns."""
    focal, center = K[0, 0], K[:2, 2]
    pivot = points.mean(dim=0)
    local = points - pivot
    rotation = start
    spread = (pixels - pixels.mean(dim=0)).norm() / (local @ rotation.T)[:, :2].norm()
    depth = focal / spread
    place = torch.cat([(pixels.mean(dim=0) - center) / focal * depth, depth[None]])
    residual = pixels.new_zeros(1)
    for _ in range(_STEPS):
        turned = local @ rotation.T
        cam = turned + place
        z = cam[:, 2].clamp(min=0.1)
        residual = (focal * cam[:, :2] / z[:, None] + center - pixels).flatten()
        slope = cam.new_zeros(len(cam), 2, 3)
        slope[:, 0, 0] = slope[:, 1, 1] = focal / z
        slope[:, :, 2] = -focal * cam[:, :2] / z[:, None].square()
        jacobian = torch.cat([-slope @ skew(turned), slope], dim=-1).flatten(0, 1)  # [2n, 6]
        normal = jacobian.T @ jacobian
        step = torch.linalg.solve(
            normal + 1e-9 * normal.diagonal().mean() * torch.eye(6).to(normal), -jacobian.T @ residual
        )
        rotation = axis_angle_to_matrix(step[:3]) @ rotation
        place = place + step[3:]
    error = float(residual.unflatten(0, (-1, 2)).square().sum(dim=1).mean().sqrt())
    return rotation, place - rotation @ pivot, error


def into_world(
    recorded: RecordedBody, up: Float[Tensor, "3"], left: Float[Tensor, "3"] | None = None
) -> tuple[RecordedBody, Float[Tensor, "4 4"]]:
    """Carry a body from a camera's frame to the house world.

    Args:
        recorded: In the camera's frame.
        up: The world's up there; a roll against the camera is ignored, and so is more pitch than
            the canonical camera may have.
        left: Towards the person's left hand; by default as the torso says, or else the camera's right.

    Returns:
        The body, and world -> camera.
    """
    pitch = torch.atan2(up[2], -up[1]).clamp(-MAX_PITCH, MAX_PITCH)
    zero = torch.zeros_like(pitch)
    vertical = torch.stack([zero, -pitch.cos(), pitch.sin()])
    if left is None and recorded.torso is not None:
        hip_left, hip_right, shoulder_left, shoulder_right = recorded.torso
        left = hip_left - hip_right + shoulder_left - shoulder_right
    across = torch.tensor([1.0, 0.0, 0.0]) if left is None else left - (left @ vertical) * vertical
    if float(across.norm()) < 1e-3:  # lying on the side
        across = torch.tensor([1.0, 0.0, 0.0])
    across = across / across.norm()
    axes = torch.stack([across, vertical, torch.linalg.cross(across, vertical)])  # rows: the world's axes
    body = recorded.body
    root, ground = axes @ body.joints[0], (body.vertices @ axes.T)[:, 1].min()
    origin = torch.stack([root[0], ground, root[2]])  # of the world, along its axes
    return moved_record(recorded, axes, -origin), rigid(axes.T, axes.T @ origin)


def fitted_to_box(
    body: PosedBody, rotation: Float[Tensor, "3 3"], box: Float[Tensor, "4"], side: int
) -> tuple[Float[Tensor, "3"], PosedBody]:
    """Where to put a turned body so that the canonical camera shows it in a box.

    Args:
        body: In any frame.
        rotation: To the camera's axes.
        box: Left, top, right, bottom, crop pixels.
        side: Of the crop.

    Returns:
        The shift after the rotation, and the body before the camera.
    """
    K = intrinsics(CROP_FOV, side, side)
    turned = moved(body, rotation, torch.zeros(3))
    low, high = turned.vertices.amin(dim=0), turned.vertices.amax(dim=0)
    size, center = (box[2:] - box[:2]).max(), (box[:2] + box[2:]) / 2
    shift = torch.cat([torch.zeros(2), (K[0, 0] * (high - low)[:2].max() / size)[None]]) - (low + high) / 2
    for _ in range(10):
        pixels, _ = project(turned.vertices + shift, torch.eye(4), K)
        shown_low, shown_high = pixels.amin(dim=0), pixels.amax(dim=0)
        depth = (turned.vertices + shift)[:, 2].mean()
        off = (center - (shown_low + shown_high) / 2) * depth / K[0, 0]
        shift = shift + torch.cat([off, (depth * ((shown_high - shown_low).max() / size - 1))[None]])
    return shift, moved(turned, torch.eye(3), shift)
