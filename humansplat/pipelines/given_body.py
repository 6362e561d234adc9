"""A body from somebody else's file in place of the fitted one: placed before the crop of a photo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.fit_report import BodyFit
from humansplat.body.fit_silhouette import draw_silhouette, overlap
from humansplat.body.fit_terms import CROP_FOV
from humansplat.body.follow import follow_surface, joints_with_skin
from humansplat.body.models import load_body_model
from humansplat.body.placement import fitted_to_box, into_world, place_before_crop
from humansplat.body.recorded import RecordedBody, before_camera, check_photo, moved_record, pose_record
from humansplat.capture.capture import Capture
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, project, to_camera
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.io.body_files.record import BodyRecord, PinholeCamera
from humansplat.pipelines.crop_cameras import camera_in_crop
from humansplat.structures import Cameras, PosedBody, TensorStruct

MIN_GUESSED_IOU = 0.5
"""A body without a camera that covers the person less in every reading of its axes is refused."""
MAX_CHANGED_PX = 4.0
"""Pixels of a 256 px crop by which the canonical camera may show a body elsewhere than its own camera does."""
MAX_FOLLOWED = 0.04
"""Mean distance of a mesh from the default body drawn onto it that is worth a warning, metres."""
_TORSO = ("upperleg01.L", "upperleg01.R", "upperarm01.L", "upperarm01.R")
_AXES = {
    # Rotations from a file's axes to a camera's (x right, y down, z ahead).
    "y down": torch.diag(torch.tensor([1.0, 1.0, 1.0])),
    "y up": torch.diag(torch.tensor([1.0, -1.0, -1.0])),
    "z up": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
}
_GUESSES = {"unknown": tuple(_AXES), "y_up": ("y up",), "z_up": ("z up",)}


class GivenBody(TensorStruct):
    """A given body as the reconstruction needs it."""

    body: PosedBody
    """House world: torso facing +Z, root over the origin, lowest vertex on the ground."""
    camera: Cameras
    """Of the crop, unbatched."""
    warnings: tuple[str, ...] = ()


def given_body(
    record: BodyRecord,
    capture: Capture,
    size: tuple[int, int],
    fit: Callable[[], BodyFit],
    folder: str | Path | None = None,
) -> GivenBody:
    """Place the body of a file before the crop of a photo.

    A file of this library keeps its own camera. Any other body that has a camera is moved before the canonical one so
    that its pixels stay. A body without a camera faces as the fitted body does, or as its axes say, and is put where
    that is.

    Args:
        record: What the file says.
        capture: Of the photo.
        size: Width and height of the photo, pixels.
        fit: Fits the default body to the capture; called only where the file leaves something open.
        folder: Of the model files of SMPL's family.

    Raises:
        UserError: If the model files are missing, or the body cannot be made to cover the person.
    """
    recorded = pose_record(record, folder)
    side = capture.mask.shape[-1]
    if record.posed is not None:
        check_photo(record, *size)
        return GivenBody(body=record.posed, camera=camera_in_crop(_own_camera(record).resized(*size), capture))
    if record.camera is None:
        fitted = fit()
        placed, camera, told = _guessed(record, recorded, capture, fitted)
        return _finished(placed, camera, (*recorded.warnings, told), lambda: fitted)
    seen, own = before_camera(record, recorded, *size)
    placed, camera, changed = place_before_crop(seen, own, capture.crop_to_photo, side)
    warnings = recorded.warnings
    if changed > MAX_CHANGED_PX * side / 256:
        warnings = (
            *warnings,
            f"{record.source}: before the crop's camera the body shows {changed:.1f} px off where its file puts it",
        )
    return _finished(placed, camera, warnings, fit)


def _finished(
    placed: RecordedBody, camera: Cameras, warnings: tuple[str, ...], fit: Callable[[], BodyFit]
) -> GivenBody:
    if not placed.is_bare:
        return GivenBody(body=placed.body, camera=camera, warnings=warnings)
    body, camera, told = _named(placed, camera, fit())
    return GivenBody(body=body, camera=camera, warnings=(*warnings, *told))


def _own_camera(record: BodyRecord) -> Cameras:
    """The camera of a file of this library."""
    assert isinstance(record.camera, PinholeCamera)
    assert record.viewmat is not None
    assert record.image_size is not None
    width, height = record.image_size
    return Cameras(viewmats=record.viewmat, Ks=record.camera.K, width=width, height=height)


def _guessed(
    record: BodyRecord, recorded: RecordedBody, capture: Capture, fitted: BodyFit
) -> tuple[RecordedBody, Cameras, str]:
    """A body without a camera where the fitted one is, in the reading of its axes that covers the person best.

    The fitted body's box and not the mask's, in which there may be bags and wide clothes.
    """
    side = capture.mask.shape[-1]
    mask = capture.mask > 0.5
    shown, _ = project(fitted.body.vertices, fitted.camera.viewmats, fitted.camera.Ks)
    box = torch.cat([shown.amin(dim=0), shown.amax(dim=0)])
    K = intrinsics(CROP_FOV, side, side)
    best: tuple[float, str, Float[Tensor, "3 3"], Float[Tensor, 3]] | None = None
    for name, rotation in _readings(record, recorded, fitted):
        shift, body = fitted_to_box(recorded.body, rotation, box, side)
        pixels, _ = project(body.vertices, torch.eye(4), K)
        iou = overlap(draw_silhouette(pixels, body.faces, side), mask)
        if best is None or iou > best[0] + 0.01:
            best = (iou, name, rotation, shift)
    assert best is not None
    iou, name, rotation, shift = best
    if iou < MIN_GUESSED_IOU:
        raise UserError(
            f"{record.source} names no camera and covers the person of the photo badly in every reading of its axes "
            f"(best: {name}, overlap {iou:.2f}); give K, or focal and princpt, with the body in the camera's frame"
        )
    up = fitted.camera.viewmats[:3, 1].cpu()
    left = fitted.camera.viewmats[:3, 0].cpu() if recorded.torso is None else None
    placed, view = into_world(moved_record(recorded, rotation, shift), up, left)
    told = f"{record.source} names no camera: read with {name}, the body was put over the person (overlap {iou:.2f})"
    return placed, Cameras(viewmats=view, Ks=K, width=side, height=side), told


def _readings(record: BodyRecord, recorded: RecordedBody, fitted: BodyFit) -> list[tuple[str, Float[Tensor, "3 3"]]]:
    """Rotations from the file's axes to the camera's that may be meant.

    Each set of axes is tried as seen by a camera that looks along it (how estimators write meshes), and, for an
    upright world, turned about the vertical so that the body faces as the fitted one does.
    """
    view = fitted.camera.viewmats[:3, :3].cpu()
    found = []
    for name in _GUESSES[record.frame]:
        axes = _AXES[name]
        if record.frame == "unknown":
            found.append((f"{name}, seen along its axes", axes))
        upright = _AXES["y up"] @ axes  # +Y up, and the subject facing +Z if it faces along the axes
        facing = torch.eye(3)
        if recorded.torso is not None:
            hips_left, hips_right, left, right = recorded.torso @ upright.T
            across = hips_left - hips_right + left - right
            yaw = torch.atan2(-across[2], across[0])
            zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
            rows = [yaw.cos(), zero, -yaw.sin(), zero, one, zero, yaw.sin(), zero, yaw.cos()]
            facing = torch.stack(rows).unflatten(0, (3, 3))
        found.append((f"{name}, facing as the fitted body", view @ facing @ upright))
    return found


def _named(placed: RecordedBody, camera: Cameras, fitted: BodyFit) -> tuple[PosedBody, Cameras, tuple[str, ...]]:
    """Give bare vertices parts, canonical positions and joints, and turn them as their torso then says."""
    model = load_body_model()
    ours = to_camera(placed.body.vertices, camera.viewmats)
    view = fitted.camera.viewmats.cpu()
    theirs = to_camera(fitted.body.vertices.cpu(), view)
    between = (ours.amin(dim=0) + ours.amax(dim=0) - theirs.amin(dim=0) - theirs.amax(dim=0)) / 2
    if torch.equal(placed.body.faces, model.faces):  # the default body itself, as a mesh
        index, off, joints = torch.arange(len(ours)), 0.0, joints_with_skin(model, fitted.body.to("cpu"), ours)
    else:
        followed = follow_surface(model, _carried(fitted.body, view, between), ours)
        distances, nearest = cKDTree(followed.vertices.numpy()).query(ours.numpy())
        index, off, joints = torch.from_numpy(nearest).long(), float(distances.mean()), followed.joints
    named = replace(
        placed.body, vertices=ours, joints=joints, canonical=model.canonical[index], parts=model.parts[index]
    )
    torso = joints[[model.joint_names.index(name) for name in _TORSO]]
    recorded, house = into_world(RecordedBody(body=named, torso=torso, is_bare=True), camera.viewmats[:3, 1])
    told: tuple[str, ...] = ()
    if off > MAX_FOLLOWED:
        told = (f"the default body follows the given one {100 * off:.0f} cm off; its parts may be wrong",)
    return recorded.body, replace(camera, viewmats=house), told


def _carried(body: PosedBody, view: Float[Tensor, "4 4"], shift: Float[Tensor, "3"]) -> dict[str, Tensor]:
    """The parameters of the fitted body as its camera sees it, shifted there."""
    assert body.parameters is not None
    parameters = {name: value.cpu() for name, value in body.parameters.items()}
    turned = view[:3, :3] @ axis_angle_to_matrix(parameters["rotations"][0])
    parameters["rotations"] = torch.cat([matrix_to_axis_angle(turned)[None], parameters["rotations"][1:]])
    parameters["translation"] = view[:3, :3] @ parameters["translation"] + view[:3, 3] + shift
    return parameters
