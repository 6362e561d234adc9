"""Where a fit starts: orientation and limbs straight from the world landmarks, and the readings that may be meant.

A picture has depth twins: an arm that reaches forward looks like one that reaches back, and a person seen from
the front like one seen from behind. The world landmarks decide most of these, sometimes wrongly, so the fit starts
from several readings side by side and the evidence as a whole picks one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.fit_freedoms import PoseSpace
from humansplat.body.fit_landmarks import balance_row
from humansplat.body.fit_terms import FOCAL
from humansplat.body.landmarks import MIRRORED_LANDMARKS
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle, rotation_between
from humansplat.structures import LiftedMarkers


@dataclass(frozen=True)
class Limb:
    """Landmarks and freedoms of an arm or a leg of one side."""

    landmarks: tuple[int, int, int]
    joints: tuple[str, str, str]
    swings: tuple[str, str]
    twist: str
    hinge: str


LIMBS = tuple(
    limb
    for side, odd in (("L", 0), ("R", 1))
    for limb in (
        Limb(
            (11 + odd, 13 + odd, 15 + odd),
            (f"upperarm01.{side}", f"lowerarm01.{side}", f"wrist.{side}"),
            (f"arm_raise.{side}", f"arm_forward.{side}"),
            f"arm_twist.{side}",
            f"elbow_flexion.{side}",
        ),
        Limb(
            (23 + odd, 25 + odd, 27 + odd),
            (f"upperleg01.{side}", f"lowerleg01.{side}", f"foot.{side}"),
            (f"hip_flexion.{side}", f"hip_abduction.{side}"),
            f"hip_twist.{side}",
            f"knee_flexion.{side}",
        ),
    )
)

POSSIBLE_LEAN, SURE_LEAN = math.radians(20.0), math.radians(40.0)
"""A lean along the line of sight up to the first is not believed to be the person's, from the second on it is."""
PITCH_SHARE, MAX_PITCH = 0.8, math.radians(10.0)
"""The camera's share of a lean, the rest being the detector's, and the most that a camera looks down."""
MAX_LIFTED_PITCH = math.radians(35.0)
"""The same where a lifter tells which way is up: it has learned on cameras between -12 and 30 degrees."""


def swapped(landmarks: Float[Tensor, "33 k"]) -> Float[Tensor, "33 k"]:
    """Landmarks with left and right exchanged."""
    return landmarks[list(MIRRORED_LANDMARKS)]


def depth_reversed(world: Float[Tensor, "33 3"]) -> Float[Tensor, "33 3"]:
    """The twin of a pose that looks the same from far away: depth negated, and so left and right exchanged."""
    return swapped(world) * world.new_tensor([1.0, 1.0, -1.0])


def camera_pitch(world: Float[Tensor, "33 3"], points: Float[Tensor, "33 2"]) -> tuple[Tensor, Tensor]:
    """How far the camera looks down, and the world landmarks of a person who stands upright before it.

    Photographs are mostly taken from above the person's middle: then the person leans towards the camera. A lean up
    to what cameras do is the camera's; the detector leans too, so what is beyond that is taken out of the landmarks;
    but a large lean is the person's own and is kept.

    Args:
        world: y up, z towards the camera.
        points: In the picture, fractions of the crop.

    Returns:
        The pitch, radians, positive for a camera that looks down, and the world landmarks.
    """
    weight = balance_row(points) @ world
    lean = torch.atan2(weight[2], weight[1])
    upright = ((SURE_LEAN - lean.abs()) / (SURE_LEAN - POSSIBLE_LEAN)).clamp(0.0, 1.0)
    pitch = (PITCH_SHARE * lean * upright).clamp(-MAX_PITCH, MAX_PITCH)
    turn = about_x(pitch - lean * upright)
    return pitch, world @ turn.mT


def lifted_pitch(lifted: LiftedMarkers) -> Float[Tensor, ""]:
    """How far the camera looks down, radians, from the direction up."""
    return torch.atan2(-lifted.up[2], -lifted.up[1]).clamp(-MAX_LIFTED_PITCH, MAX_LIFTED_PITCH)


def lifted_world(lifted: LiftedMarkers) -> Float[Tensor, "33 3"]:
    """The landmarks among lifted markers as world landmarks: y up, z towards the camera, in no certain unit."""
    return lifted.points[:33] * lifted.points.new_tensor([1.0, -1.0, -1.0])


def about_x(angle: Float[Tensor, ""]) -> Float[Tensor, "3 3"]:
    """Rotation about the picture's horizontal axis; a positive angle turns up towards the camera."""
    return axis_angle_to_matrix(torch.stack([angle, torch.zeros_like(angle), torch.zeros_like(angle)]))


def limb_flipped(world: Float[Tensor, "33 3"], limb: Limb, from_joint: int) -> Float[Tensor, "33 3"]:
    """World landmarks with the depth of a limb negated: all of it (0), or from its middle joint on (1)."""
    pivot, *moved = limb.landmarks[from_joint:]
    flipped = world.clone()
    flipped[moved, 2] = 2 * world[pivot, 2] - world[moved, 2]
    return flipped


def torso_turned(world: Float[Tensor, "33 3"]) -> Float[Tensor, "33 3"]:
    """World landmarks with the depth of shoulders and hips negated; the limbs move along."""
    turned = world.clone()
    for limb in LIMBS:
        turned[list(limb.landmarks), 2] -= 2 * world[limb.landmarks[0], 2]
    return turned


def readings(world: Float[Tensor, "33 3"]) -> list[Float[Tensor, "33 3"]]:
    """World landmarks as detected, with one limb or half limb flipped in depth, and with the torso turned."""
    flipped = [limb_flipped(world, limb, part) for limb in LIMBS for part in (0, 1)]
    return [world, *flipped, torso_turned(world)]


def torso_orientation(world: Float[Tensor, "33 3"]) -> Float[Tensor, "3 3"]:
    """Rotation that takes the rest pose's axes (left, up, forward) to the torso's."""
    up = F.normalize(world[[11, 12]].mean(0) - world[[23, 24]].mean(0), dim=0)
    left = (world[11] - world[12]) + (world[23] - world[24])
    left = F.normalize(left - (left @ up) * up, dim=0)
    return torch.stack([left, up, torch.linalg.cross(left, up)], dim=1)


def limb_angles(
    world: Float[Tensor, "33 3"],
    root: Float[Tensor, "3 3"],
    limb: Limb,
    space: PoseSpace,
    joint_index: Callable[[str], int],
    rest: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Angles that point a limb's two bones where the world landmarks do, in closed form.

    The swing is the shortest turn of the upper bone. The hinge opens by the angle between the bones, and the twist
    turns its plane; a nearly straight limb has no such plane and keeps its twist.
    """
    a, b, c = (world[i] for i in limb.landmarks)
    upper, lower = (F.normalize((end - start) @ root, dim=0) for start, end in ((a, b), (b, c)))
    rest_a, rest_b, rest_c = (rest[name] for name in limb.joints)
    rest_upper, rest_lower = F.normalize(rest_b - rest_a, dim=0), F.normalize(rest_c - rest_b, dim=0)
    swing = rotation_between(rest_upper, upper)
    vector = matrix_to_axis_angle(swing)
    axes = space.swing[joint_index(limb.joints[0])]
    angles = {name: axes[:, space.index[name]] @ vector for name in limb.swings}

    target = swing.mT @ lower
    bend = torch.arccos((rest_upper @ target).clamp(-1, 1)) - torch.arccos((rest_upper @ rest_lower).clamp(-1, 1))
    angles[limb.hinge] = torch.maximum(bend, space.lower[space.index[limb.hinge]])
    hinge = space.swing[joint_index(limb.joints[1])][:, space.index[limb.hinge]]
    bent = axis_angle_to_matrix(hinge * angles[limb.hinge]) @ rest_lower
    flat_bent, flat_target = (v - (v @ rest_upper) * rest_upper for v in (bent, target))
    sine = torch.linalg.cross(flat_bent, flat_target) @ rest_upper
    angle = torch.atan2(sine, flat_bent @ flat_target)
    column = space.index[limb.twist]
    axis = space.twist[:, :, column].sum(0)
    certainty = ((target - (target @ rest_upper) * rest_upper).norm() / 0.4).clamp(max=1.0)
    twist = angle * torch.sign(axis @ rest_upper) * certainty
    angles[limb.twist] = torch.minimum(torch.maximum(twist, space.lower[column]), space.upper[column])
    return angles


def start_angles(
    world: Float[Tensor, "33 3"],
    root: Float[Tensor, "3 3"],
    space: PoseSpace,
    joint_names: list[str],
    rest: dict[str, Tensor],
) -> Float[Tensor, " d"]:
    """Pose angles of one reading: limbs in closed form, the rest at the prior's mean."""
    angles = space.mean.clone()
    for limb in LIMBS:
        for name, value in limb_angles(world, root, limb, space, joint_names.index, rest).items():
            angles[space.index[name]] = value
    return angles


def start_place(
    landmarks: Float[Tensor, "h 33 3"], seen: Float[Tensor, "h 33 2"], weights: Float[Tensor, "h 33"]
) -> Float[Tensor, "h 3"]:
    """Place of the root by weak perspective: the depth at which posed landmarks spread as far as the seen ones.

    Args:
        landmarks: Posed, relative to the root joint, metres.
        seen: Where they are in the picture, fractions of the crop.
        weights: How much each counts.
    """
    share = (weights / weights.sum(-1, keepdim=True))[..., None]
    flat = torch.stack([landmarks[..., 0], -landmarks[..., 1]], dim=-1)
    center, seen_center = (share * flat).sum(-2), (share * seen).sum(-2)
    spread = (share * (flat - center[:, None]).square()).sum((-1, -2)).sqrt()
    seen_spread = (share * (seen - seen_center[:, None]).square()).sum((-1, -2)).sqrt()
    depth = FOCAL * spread / seen_spread.clamp(min=1e-3)
    uv = seen_center - FOCAL * center / depth[:, None]
    return torch.cat([uv, depth.log()[:, None]], dim=-1)
