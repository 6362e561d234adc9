"""One reader for each program that writes parameters of the SMPL family; ``docs/body-files.md`` has the table.

A reader takes the fields of a file, which of its people is meant and, where the caller knows it, the body model.
"""

import dataclasses
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.body_files.cameras import (
    INTRINSICS,
    camera_from_points,
    focal_camera,
    square_crop,
    view_matrix,
    weak_camera,
)
from humansplat.io.body_files.fields import Fields, people_of
from humansplat.io.body_files.layouts import gather
from humansplat.io.body_files.parameters import read_parameters
from humansplat.io.body_files.record import BodyRecord, Family, FileCamera, FocalCamera
from humansplat.io.body_files.values import Value, read_values

PIXIE_MARGIN = 1.1
"""Side of PIXIE's crop over the longer side of the detected box."""
HMR_FOCAL = 5000.0
"""Of HMR2's crop camera, pixels of its crop."""
HMR_CROP = 256.0
HYBRIK_CROP = 256.0
"""HybrIK's focal length counts pixels of a crop of this width."""
KID_SHARE = 0.05
"""A share of the child's template in HybrIK-X's shape that is worth a warning when left out."""
MAX_REPROJECTION_PX = 3.0
"""Joints in space and in the picture that disagree by more fix no camera."""


def read_smpl(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """Parameters by the smplx package's names, with whatever camera is beside them.

    Its hands are offsets from the mean hand, as the package has it, unless they are matrices or ``flat_hand_mean``
    says otherwise.
    """
    record = read_parameters(fields, person, family, "SMPL parameters", adds_mean_hand=_hands_are_vectors(fields))
    return _with_camera(record, fields)


def _hands_are_vectors(fields: Fields) -> bool:
    hand = fields.array("left_hand_pose", "right_hand_pose")
    return hand is not None and hand.shape[-2:] != (3, 3)


def _with_camera(record: BodyRecord, fields: Fields) -> BodyRecord:
    """Add the camera that the names tell, and the frame that follows."""
    camera = focal_camera(fields, record.person)
    if camera is None:
        camera = weak_camera(fields, record.person, margin=None)
        if camera is not None:
            return dataclasses.replace(record, camera=camera, translation=None)
    view = view_matrix(fields, record.person)
    if view is not None and camera is not None:
        return dataclasses.replace(record, camera=camera, viewmat=view, frame="world")
    return dataclasses.replace(record, camera=camera, frame="camera" if camera is not None else "unknown")


def read_pixie(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """PIXIE's ``{name}_param.pkl``: matrices, weak perspective in a crop around the detected box."""
    record = read_parameters(fields, person, family or "smplx", "PIXIE")
    camera = weak_camera(fields, record.person, margin=PIXIE_MARGIN)
    return dataclasses.replace(record, camera=camera, translation=None)


def read_hmr(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """HMR2 / 4D-Humans and its relatives: matrices, and the camera of the crop or of the whole picture."""
    record = read_parameters(fields, person, family or "smpl", "HMR2")
    index = record.person
    shift = fields.row(index, 3, "pred_cam_t")
    whole = fields.row(index, 3, "pred_cam_t_full", "cam_t_full", "full_cam_t", "camera_translation")
    if whole is None and fields.name_of(*INTRINSICS) is not None:
        whole = shift  # CameraHMR: the body stands before the photo's own camera
    if whole is not None:
        return dataclasses.replace(record, camera=_hmr_whole(fields, record), translation=whole)
    crop = square_crop(fields, index, margin=None)
    if crop is not None and shift is not None:
        focal = HMR_FOCAL / HMR_CROP * crop[1]
        camera: FileCamera | None = FocalCamera(focal=torch.tensor([focal, focal]), principal=crop[0])
        return dataclasses.replace(record, camera=camera, translation=shift)
    return dataclasses.replace(record, camera=weak_camera(fields, index, margin=None), translation=None)


def _hmr_whole(fields: Fields, record: BodyRecord) -> FileCamera:
    """The camera of the whole picture; the file's ``focal_length`` of 5000 is that of the crop."""
    camera = focal_camera(fields, record.person)
    if isinstance(camera, FocalCamera) and "scaled_focal_length" not in fields and float(camera.focal[0]) == HMR_FOCAL:
        if record.image_size is None:
            raise UserError(
                f"{fields.path}: focal_length {HMR_FOCAL:.0f} counts pixels of the crop; "
                "add scaled_focal_length or img_size"
            )
        return FocalCamera(focal=camera.focal / HMR_CROP * max(record.image_size), principal=camera.principal)
    if camera is None:
        raise UserError(f"{fields.path}: a translation before the whole picture without scaled_focal_length; add it")
    return camera


def read_hybrik(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """HybrIK-X's ``res_SMPLX.pk``: 55 matrices, where the root is, a focal length in pixels of the crop."""
    record = read_parameters(fields, person, family or "smplx", "HybrIK-X")
    index, warnings, betas, expression = record.person, [], record.betas, record.expression
    if betas is not None and len(betas) > 10:
        # Ten coefficients, the share of the child's template, and the expression.
        if abs(float(betas[10])) > KID_SHARE:
            warnings.append(f"{record.source}: a share {float(betas[10]):.2f} of the child's template is left out")
        expression = betas[11:] if len(betas) > 11 else expression
        betas = betas[:10]
    root, box = fields.row(index, 3, "pred_cam_root"), fields.row(index, 4, "bbox")
    camera: FileCamera | None = None
    if box is not None:
        focal = (fields.number(index, "f") or 1000.0) * float(box[2] - box[0]) / HYBRIK_CROP
        camera = FocalCamera(focal=torch.tensor([focal, focal]))
    return dataclasses.replace(
        record,
        betas=betas,
        expression=expression,
        translation=root if root is not None else record.translation,
        placement="root" if root is not None else "smpl",
        camera=camera,
        missing=tuple(name for name in record.missing if name != "expression" or expression is None),
        warnings=tuple(warnings),
    )


def read_smpler(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """SMPLer-X's ``smplx/{frame}_{person}.npz``; ``meta/{frame}_{person}.json`` beside it has the camera."""
    record = read_parameters(fields, person, family or "smplx", "SMPLer-X", adds_mean_hand=True)
    camera = focal_camera(fields, record.person)
    meta = smpler_meta(fields.path)
    if camera is None and meta is not None:
        camera = focal_camera(people_of(read_values(meta), meta)[0], 0)
    return dataclasses.replace(record, camera=camera)


def smpler_meta(path: Path) -> Path | None:
    """The companion of ``smplx/00001_0.npz``: in ``meta/`` as the program writes it, or beside the file."""
    candidates = (path.parent.parent / "meta" / f"{path.stem}.json", path.with_suffix(".json"))
    return next((candidate for candidate in candidates if candidate != path and candidate.is_file()), None)


def read_nlf(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """NLF: 72 or 165 numbers of pose; joints in space (millimetres or metres) and in the picture give the camera."""
    if family is None:
        family = "smplx" if "jaw" in gather(fields)[0].groups else "smpl"
    record = read_parameters(fields, person, family, "NLF")
    camera: FileCamera | None = focal_camera(fields, record.person)
    joints, seen = fields.array("joints3d"), fields.array("joints2d")
    if joints is None:
        return dataclasses.replace(record, camera=camera)
    points = points_of(joints, record.person)
    points = points / unit_of(points, f"{fields.path}: joints3d")
    if camera is None and seen is not None:
        camera = camera_of_points(points, points_of(seen, record.person), fields)
    return dataclasses.replace(record, camera=camera, translation=points[0], placement="root")


def points_of(array: object, person: int) -> Float[Tensor, "n k"]:
    """One person's points of a stack ``[..., n, k]``."""
    stack = torch.as_tensor(array).float()
    stack = stack.reshape(-1, *stack.shape[-2:])
    return stack[min(person, len(stack) - 1)]


def unit_of(points: Float[Tensor, "n 3"], what: str) -> float:
    """How many of a body's units are a metre: 1, 100 or 1000.

    Raises:
        UserError: If the body has no person's size in metres, centimetres or millimetres.
    """
    size = float((points.amax(dim=0) - points.amin(dim=0)).max())
    for unit in (1.0, 100.0, 1000.0):
        if 0.3 * unit < size < 2.9 * unit:
            return unit
    raise UserError(f"{what} spans {size:g}, which is no person in metres, centimetres or millimetres; scale it")


def camera_of_points(points: Float[Tensor, "n 3"], pixels: Float[Tensor, "n k"], fields: Fields) -> FocalCamera:
    """The camera that takes points to their pixels.

    Raises:
        UserError: If none does.
    """
    if len(points) != len(pixels):
        raise UserError(
            f"{fields.path} has {len(points)} points in space and {len(pixels)} in the picture; give as many"
        )
    camera, left = camera_from_points(points, pixels[:, :2], str(fields.path))
    if left > MAX_REPROJECTION_PX:
        raise UserError(
            f"{fields.path}: its points in space and in the picture disagree by {left:.1f} px; give the focal length"
        )
    return camera


def read_amass(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """AMASS and what is stored like it: frames of ``poses`` and ``trans``; the world's z is up, and no camera."""
    return dataclasses.replace(read_parameters(fields, person, family, "AMASS"), frame="z_up")


def read_easymocap(fields: Fields, person: int | None, family: Family | None) -> BodyRecord:
    """EasyMocap: ``Rh`` and ``Th`` move the body about its own origin; hands as six components each."""
    groups, told = _easymocap_groups(fields)
    values = {name: value for name, value in fields.values.items() if name != "poses"}
    own = dataclasses.replace(fields, values={**values, **groups})
    record = read_parameters(own, person, family or told, "EasyMocap")
    return dataclasses.replace(_with_camera(record, own), placement="origin")


def _easymocap_groups(fields: Fields) -> tuple[dict[str, Value], Family | None]:
    """The parts of ``poses``, by the names that other files use, and the model that its width tells."""
    poses = fields.array("poses")
    if poses is None or poses.ndim == 0:
        raise UserError(f"{fields.path}: Rh and Th without poses; EasyMocap's files have all three")
    poses = poses.reshape(-1, poses.shape[-1])
    width = poses.shape[1]
    if width in {72, 78, 87, 156, 165}:
        if abs(poses[:, :3]).max() > 1e-6:
            raise UserError(f"{fields.path}: both Rh and the first three poses turn the body; set the latter to zero")
        poses = poses[:, 3:]
    hands = {75: (63, 69, 75), 84: (63, 69, 75), 153: (63, 108, 153), 162: (72, 117, 162)}
    families: dict[int, Family] = {69: "smpl", 75: "smplh", 84: "smplx", 153: "smplh", 162: "smplx"}
    rest = poses.shape[1]
    if rest not in {63, 69, *hands}:
        raise UserError(f"{fields.path}: poses of {width} numbers; EasyMocap has 63, 69, 72, 78, 87, 156 or 165")
    groups: dict[str, Value] = {"body_pose": poses[:, : 69 if rest == 69 else 63]}
    if rest in hands:
        first, middle, last = hands[rest]
        groups |= {"left_hand_pose": poses[:, first:middle], "right_hand_pose": poses[:, middle:last]}
    if families.get(rest) == "smplx":
        head = poses[:, 75:84] if rest == 84 else poses[:, 63:72]
        groups |= {"jaw_pose": head[:, :3], "leye_pose": head[:, 3:6], "reye_pose": head[:, 6:9]}
    return groups, families.get(rest)
