"""From the record of a body file to a posed body, in the file's own frame and before its camera."""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.models import load_body_model
from humansplat.body.smpl import ROTATIONS, SmplBody
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.io.body_files.record import BodyRecord, FocalCamera, PinholeCamera
from humansplat.structures import Cameras, PosedBody, TensorStruct

SMPL_FAMILY = ("smpl", "smplh", "smplx")
SMPL_TORSO = [1, 2, 16, 17]
"""Left hip, right hip, left shoulder, right shoulder in the skeletons of SMPL's family."""
MIN_DEPTH = 0.05
"""What of a body is nearer to its camera is refused, metres."""
MAX_STRETCH = 0.02
"""How much the sides of a photo and of the file's picture may differ in proportion: sizes are whole pixels."""
WEAK_DISTANCE = 1000.0
"""How far away a pinhole camera stands in for weak perspective, metres: depth then changes sizes by a thousandth."""


class RecordedBody(TensorStruct):
    """A posed body, and what of it tells which way it faces."""

    body: PosedBody
    """In the file's frame. Joints are the root alone, and parts and canonical positions are unknown (0, and the
    vertices themselves), where the file has vertices only."""
    torso: Float[Tensor, "4 3"] | None
    """Left hip, right hip, left shoulder, right shoulder; ``None`` where nothing tells them."""
    is_bare: bool
    """Whether the file has vertices only."""
    warnings: tuple[str, ...] = ()


def pose_record(record: BodyRecord, folder: str | Path | None = None) -> RecordedBody:
    """Pose what a file says.

    Args:
        record: One person of it.
        folder: Of the model files of SMPL's family; by default what ``HUMANSPLAT_BODY_MODELS`` names.

    Raises:
        UserError: If the model's files are missing or do not fit, or a mesh has no faces.
    """
    if record.posed is not None:
        return RecordedBody(body=record.posed, torso=None, is_bare=False, warnings=record.warnings)
    if record.rotations is None:
        return _bare(record, folder)
    model, parameters, warnings = _parameters(record, folder)
    posed = model.pose(parameters)
    if record.placement == "origin":
        turn = axis_angle_to_matrix(record.rotations[0])
        body = moved(posed, turn, torch.zeros(3))
    else:
        body = posed
    if record.scale != 1.0:
        body = replace(body, vertices=body.vertices * record.scale, joints=body.joints * record.scale, parameters=None)
    shift = torch.zeros(3) if record.translation is None else record.translation
    if record.placement == "root":
        shift = shift - body.joints[0]
    body = moved(body, torch.eye(3), shift)
    return RecordedBody(
        body=body, torso=body.joints[SMPL_TORSO], is_bare=False, warnings=(*record.warnings, *warnings)
    )


def _parameters(record: BodyRecord, folder: str | Path | None) -> tuple[SmplBody, dict[str, Tensor], list[str]]:
    """The model that a record needs, and the record by the model's names; coefficients that it lacks are cut off."""
    assert record.rotations is not None
    hands = [hand for hand in (record.left_hand_pca, record.right_hand_pca) if hand is not None]
    if len({len(hand) for hand in hands}) > 1 or (len(hands) == 1 and not _is_missing_other(record)):
        raise UserError(f"{record.source}: one hand is given otherwise than the other; give both in one form")
    components = len(hands[0]) if hands else None
    model = load_body_model(
        record.family,
        folder=folder,
        gender=record.gender,
        flat_hand_mean=not record.adds_mean_hand or record.family == "smpl",
        num_pca_comps=components,
    )
    assert isinstance(model, SmplBody)
    parameters, first, warnings = {"transl": torch.zeros(3)}, 0, []
    for name, count in ROTATIONS[model.name].items():
        parameters[name] = record.rotations[first : first + count].flatten()
        first += count
    if components is not None:
        for name, hand in (("left_hand_pose", record.left_hand_pca), ("right_hand_pose", record.right_hand_pca)):
            parameters[name] = torch.zeros(components) if hand is None else hand
    if record.placement == "origin":
        parameters["global_orient"] = torch.zeros(3)
    limits = (("betas", record.betas, model.num_betas), ("expression", record.expression, model.num_expression))
    for name, given, limit in limits:
        if given is None or not limit:
            continue
        if bool((given[limit:] != 0).any()):
            warnings.append(f"{record.source}: {len(given)} numbers of {name}, of which the model file has {limit}")
        parameters[name] = given[:limit]
    return model, parameters, warnings


def _is_missing_other(record: BodyRecord) -> bool:
    return ("right hand" if record.left_hand_pca is not None else "left hand") in record.missing


def _bare(record: BodyRecord, folder: str | Path | None) -> RecordedBody:
    """Vertices without parameters."""
    vertices, faces = record.vertices, record.faces
    assert vertices is not None
    if faces is None and record.family in SMPL_FAMILY:
        model = load_body_model(record.family, folder=folder)
        faces = model.faces if len(model.canonical) == len(vertices) else None
    if faces is None:
        raise UserError(
            f"{record.source} holds {len(vertices)} vertices without faces; add an array faces, or put the mesh that "
            "the program writes (.ply or .obj, as many vertices) beside it"
        )
    root = vertices.mean(dim=0) if record.root is None else record.root
    body = PosedBody(
        vertices=vertices,
        joints=root[None],
        canonical=vertices,
        faces=faces,
        parts=torch.zeros(len(vertices), dtype=torch.long),
        # The name under which choices of points are remembered: meshes of one size need not have the same faces.
        model=f"mesh {int((faces * torch.tensor([1, 3, 7])).sum())}",
    )
    return RecordedBody(body=body, torso=record.torso, is_bare=True, warnings=record.warnings)


def moved(body: PosedBody, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, "3"]) -> PosedBody:
    """A body turned about the origin and then shifted; its parameters follow where they can.

    SMPL's ``transl`` is what is added to a body that turned about its root joint, the default body's
    ``translation`` is where the root joint lands.
    """
    parameters = body.parameters
    joints = body.joints @ rotation.T + shift
    if parameters is not None and {"global_orient", "transl"} <= parameters.keys():
        turn = rotation @ axis_angle_to_matrix(parameters["global_orient"])
        at_rest = body.joints[0] - parameters["transl"]
        parameters = {
            **parameters,
            "global_orient": matrix_to_axis_angle(turn),
            "transl": joints[0] - at_rest,
        }
    elif parameters is not None and {"rotations", "translation"} <= parameters.keys():
        turn = matrix_to_axis_angle(rotation @ axis_angle_to_matrix(parameters["rotations"][0]))
        rotations = torch.cat([turn[None], parameters["rotations"][1:]])
        parameters = {**parameters, "rotations": rotations, "translation": joints[0]}
    elif parameters is not None:
        parameters = None
    return replace(body, vertices=body.vertices @ rotation.T + shift, joints=joints, parameters=parameters)


def moved_record(recorded: RecordedBody, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, "3"]) -> RecordedBody:
    """A body and its torso, turned about the origin and then shifted."""
    torso = None if recorded.torso is None else recorded.torso @ rotation.T + shift
    return replace(recorded, body=moved(recorded.body, rotation, shift), torso=torso)


def before_camera(record: BodyRecord, recorded: RecordedBody, width: int, height: int) -> tuple[RecordedBody, Cameras]:
    """The body in the frame of the camera that its file names, and that camera in the pixels of a photo.

    Args:
        record: With a camera.
        recorded: What was posed of it.
        width: Of the photo, pixels.
        height: Of the photo, pixels.

    Raises:
        UserError: If the file names no camera.
    """
    if record.camera is None:
        raise UserError(
            f"{record.source} names no camera; needed are K, or focal and princpt, or [s, tx, ty] with the crop's box"
        )
    check_photo(record, width, height)
    seen = record.image_size or (width, height)
    if record.viewmat is not None:
        recorded = moved_record(recorded, record.viewmat[:3, :3], record.viewmat[:3, 3])
    if isinstance(record.camera, PinholeCamera):
        K = record.camera.K
    elif isinstance(record.camera, FocalCamera):
        center = torch.tensor([seen[0] / 2, seen[1] / 2])
        K = _intrinsics(record.camera.focal, center if record.camera.principal is None else record.camera.principal)
    else:
        weak = record.camera
        focal = WEAK_DISTANCE * weak.scale * weak.side / 2
        K = _intrinsics(torch.tensor([focal, focal]), weak.center)
        recorded = moved_record(recorded, torch.eye(3), torch.cat([weak.shift, torch.tensor([WEAK_DISTANCE])]))
    camera = Cameras(viewmats=torch.eye(4), Ks=K, width=seen[0], height=seen[1]).resized(width, height)
    if float(recorded.body.vertices[:, 2].min()) < MIN_DEPTH:
        raise UserError(
            f"{record.source} reaches behind its camera; the body must lie before it, "
            "its translation at positive z (depth)"
        )
    return recorded, camera


def check_photo(record: BodyRecord, width: int, height: int) -> None:
    """Make sure that a photo has the shape of the picture that the file was made from.

    Raises:
        UserError: If it has another.
    """
    if record.image_size is None:
        return
    own_width, own_height = record.image_size
    if abs(own_width * height - own_height * width) > MAX_STRETCH * own_width * height:
        raise UserError(
            f"{record.source} was made from a picture of {own_width} x {own_height} px and the photo is "
            f"{width} x {height} px; give the photo that it was made from"
        )


def _intrinsics(focal: Float[Tensor, "2"], principal: Float[Tensor, "2"]) -> Float[Tensor, "3 3"]:
    K = torch.eye(3)
    K[0, 0], K[1, 1], K[:2, 2] = focal[0], focal[1], principal
    return K
