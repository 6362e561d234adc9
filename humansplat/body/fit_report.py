"""A fit's result in the world frame, and its judgement."""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.fit_silhouette import draw_silhouette, overlap
from humansplat.body.fit_start import about_x
from humansplat.body.fit_terms import CROP_FOV
from humansplat.body.landmarks import LandmarkMap, landmark_points
from humansplat.body.protocol import BodyModel
from humansplat.geometry.projection import intrinsics, project, rigid
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import Cameras, PosedBody, TensorStruct

MAX_LANDMARK_ERROR = 0.05
"""Mean landmark error, as a share of the body's height in the picture, above which a fit is called bad."""
MIN_SILHOUETTE_IOU = 0.70
"""Overlap of the naked body and the mask below which a fit is called bad."""
MIN_VISIBLE = 0.5
"""Landmarks of a lower visibility count as hidden in the reported error."""


class BodyFit(TensorStruct):
    """A fitted body and how well it fits."""

    body: PosedBody
    """World frame: the torso faces +Z, the root joint stands over the origin, the lowest vertex at y = 0."""
    camera: Cameras
    """The canonical crop camera, unbatched; it looks down or up by at most 35 degrees and does not roll."""
    landmarks: Float[Tensor, "33 2"]
    """The body's landmarks in the picture, crop pixels."""
    landmark_error_px: float
    """Mean distance to the visible landmarks, crop pixels."""
    landmark_error_fraction: float
    """The same as a share of the body's height in the picture."""
    silhouette_iou: float
    """Of the naked body against the mask."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the fit, one sentence each."""


def world_frame(
    model: BodyModel, parameters: dict[str, Tensor], pitch: Float[Tensor, ""], side: int
) -> tuple[PosedBody, Cameras]:
    """Turn a body in front of the camera into the world frame, and the camera with it.

    Args:
        model: The whole body model.
        parameters: Of one body in the frame of the optimisation (x right, y up, z towards the camera at the origin).
        pitch: How far the camera looks down, radians.
        side: Side of the crop, pixels.

    Returns:
        The body with its torso facing +Z, the root joint over the origin and the lowest vertex on the ground, and
        the camera that sees it as before, without roll.
    """
    seen = model.pose(parameters)
    tilt = about_x(pitch)
    yaw = torso_yaw(model, seen.joints @ tilt)
    facing = tilt @ axis_angle_to_matrix(torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)]))
    rotations = parameters["rotations"].clone()
    rotations[0] = matrix_to_axis_angle(facing.mT @ axis_angle_to_matrix(rotations[0]))
    ground = (seen.vertices @ facing)[:, 1].min()
    up = facing[:, 1]
    origin = seen.joints[0] + (ground - seen.joints[0] @ up) * up
    translation = facing.mT @ (parameters["translation"] - origin)
    body = model.pose({**parameters, "rotations": rotations, "translation": translation})
    # seen = facing @ world + origin, and the camera's axes are the frame's with y and z reversed.
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    view = rigid(flip @ facing, flip @ origin)
    camera = Cameras(viewmats=view, Ks=intrinsics(CROP_FOV, side, side), width=side, height=side)
    return body, camera


def torso_yaw(model: BodyModel, joints: Float[Tensor, "j 3"]) -> Float[Tensor, ""]:
    """Angle about +Y from +Z to where hips and shoulders face, radians."""
    index = model.joint_names.index
    names = ("upperleg01", "upperarm01")
    left = torch.stack([joints[index(f"{name}.L")] - joints[index(f"{name}.R")] for name in names]).sum(dim=0)
    return torch.atan2(-left[2], left[0])


def judged(
    body: PosedBody,
    camera: Cameras,
    landmarks: LandmarkMap,
    seen: Float[Tensor, "33 2"],
    visibility: Float[Tensor, " 33"],
    mask: Float[Tensor, "s s"],
) -> BodyFit:
    """Measure a fit and say what is wrong with it."""
    points, _ = project(landmark_points(body, landmarks), camera.viewmats, camera.Ks)
    pixels, _ = project(body.vertices, camera.viewmats, camera.Ks)
    visible = visibility >= MIN_VISIBLE
    errors = (points - seen).norm(dim=-1)
    error = float(errors[visible].mean() if visible.any() else errors.mean())
    height = float(pixels[:, 1].max() - pixels[:, 1].min())
    iou = overlap(draw_silhouette(pixels, body.faces, camera.width), mask > 0.5)
    warnings = []
    if error > MAX_LANDMARK_ERROR * height:
        warnings.append(
            f"the body misses the landmarks by {error / height:.1%} of its height on average"
            f" (more than {MAX_LANDMARK_ERROR:.0%}); the pose is probably wrong"
        )
    if iou < MIN_SILHOUETTE_IOU:
        warnings.append(
            f"the body covers the person's silhouette badly (IoU {iou:.2f}, less than {MIN_SILHOUETTE_IOU:.2f});"
            " loose clothing, objects or a wrong pose may be why"
        )
    return BodyFit(
        body=body,
        camera=camera,
        landmarks=points,
        landmark_error_px=error,
        landmark_error_fraction=error / height,
        silhouette_iou=iou,
        warnings=tuple(warnings),
    )
