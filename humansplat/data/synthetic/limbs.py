"""Arms and legs: where their bones point, and the rotations of joints that take them there."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.figure import Template

Rotations = dict[str, Float[np.ndarray, "3 3"]]
"""Rotation of each joint against its parent, house axes; joints left out stay at rest."""


def unit(x: float, y: float, z: float) -> Float[np.ndarray, " 3"]:
    """A direction of unit length."""
    vector = np.array([x, y, z], np.float64)
    return vector / np.linalg.norm(vector)


def normalized(vector: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    """A vector scaled to unit length."""
    return vector / np.linalg.norm(vector)


def aim(start: Float[np.ndarray, " 3"], end: Float[np.ndarray, " 3"], twist: float = 0.0) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that turns one unit vector into another, then ``twist`` radians about the latter."""
    axis = np.cross(start, end)
    length = np.linalg.norm(axis)
    angle = np.arctan2(length, start @ end)
    axis = axis / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    return (Rotation.from_rotvec(end * twist) * Rotation.from_rotvec(axis * angle)).as_matrix()


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Float[np.ndarray, "3 3"]:
    """Rotation by a small axis-angle vector, radians."""
    return Rotation.from_rotvec([x, y, z]).as_matrix()


@dataclass(frozen=True)
class Limb:
    """Directions of the two bones of an arm or leg in the trunk's frame, as a left limb has them."""

    first: Float[np.ndarray, " 3"]
    """Upper arm or thigh."""
    second: Float[np.ndarray, " 3"]
    """Forearm or shank."""


@dataclass(frozen=True)
class Hinged:
    """A limb whose elbow or knee turns about its hinge alone, so that it can bend neither backwards nor sideways."""

    first: Float[np.ndarray, " 3"]
    """Direction of the upper arm (trunk's frame) or thigh (world), as a left limb has it."""
    twist: float
    """Turn of the upper arm or thigh outwards about itself, radians; 0 is the rest pose swung the shortest way."""
    flexion: float
    """Angle between the two bones, radians; 0 is a straight limb."""


def hinge(template: Template, joint: str, side: str) -> tuple[Float[np.ndarray, " 3"], float]:
    """The axis of an elbow (``lowerarm01``) or knee (``lowerleg01``) at rest, and how far it is flexed there.

    Returns:
        Unit axis at right angles to the first bone, about which a positive turn flexes; the angle, radians.
    """
    start, end = ("upperarm01", "wrist") if joint == "lowerarm01" else ("upperleg01", "foot")
    a, b, c = (template.joints[template.joint(f"{name}.{side}")].astype(np.float64) for name in (start, joint, end))
    first, second = normalized(b - a), normalized(c - b)
    if joint == "lowerarm01":  # elbows rest flexed
        axis = normalized(np.cross(first, second))
    else:
        axis = normalized(np.array([1.0, 0.0, 0.0]) - first[0] * first)
    return axis, float(np.arctan2(axis @ np.cross(first, second), first @ second))


def arm_rotations(template: Template, limb: Limb | Hinged, side: str, rng: np.random.Generator) -> Rotations:
    """Rotations of clavicle, upper arm, forearm and hand that aim an arm."""
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    upper = limb.first * mirror
    joints = {
        name: template.joints[template.joint(f"{name}.{side}")] for name in ("upperarm01", "lowerarm01", "wrist")
    }
    rest_upper, rest_fore = (
        normalized(joints[end] - joints[start])
        for start, end in (("upperarm01", "lowerarm01"), ("lowerarm01", "wrist"))
    )
    raised = max(upper[1] + 0.3, 0.0) * mirror[0] * 0.5  # the shoulder goes up with a raised arm
    clavicle = turn(z=raised + 0.04 * rng.normal(), y=-0.15 * upper[2] * mirror[0] + 0.04 * rng.normal())
    swing = clavicle.T @ aim(rest_upper, upper)
    rotations: Rotations = {}
    if isinstance(limb, Hinged):
        axis, angle = hinge(template, "lowerarm01", side)
        bend = Rotation.from_rotvec(axis * (limb.flexion - angle)).as_matrix()
        # Outwards is forwards to up for an arm held aside; half of it goes along the arm, or the shoulder would wring.
        half = Rotation.from_rotvec(-0.5 * limb.twist * mirror[0] * rest_upper).as_matrix()
        swing = swing @ half
        rotations[f"upperarm02.{side}"] = half
    else:
        bend = aim(rest_fore, (clavicle @ swing).T @ (limb.second * mirror))
    wrist = turn(*(0.2 * rng.normal(size=3)))
    return rotations | {
        f"clavicle.{side}": clavicle,
        f"upperarm01.{side}": swing,
        f"lowerarm01.{side}": bend,
        f"lowerarm02.{side}": Rotation.from_rotvec(rest_fore * rng.normal(0.0, 0.45)).as_matrix(),
        f"wrist.{side}": wrist,
        **finger_rotations(template, side, rng),
    }


def finger_rotations(template: Template, side: str, rng: np.random.Generator, fist: float | None = None) -> Rotations:
    """Curl the fingers of a hand: from stretched to a fist, together or each on its own.

    Args:
        template: The body.
        side: ``L`` or ``R``.
        rng: Source of all angles.
        fist: How far they curl, radians a joint; drawn if not given.
    """

    def place(name: str) -> np.ndarray:
        return template.joints[template.joint(f"{name}.{side}")].astype(np.float64)

    across = np.cross(place("finger2-1") - place("wrist"), place("finger5-1") - place("wrist"))
    palm = normalized(across) * (1.0 if across[1] < 0 else -1.0)  # at rest the palms look down
    curl = rng.beta(1.3, 2.0) * 1.4 if fist is None else fist
    rotations: Rotations = {}
    for finger in range(1, 6):
        share = curl * (0.35 if finger == 1 else 1.0) * np.clip(rng.normal(1.0, 0.25), 0.2, 1.8)
        along = normalized(place(f"finger{finger}-2") - place(f"finger{finger}-1"))
        axis = normalized(np.cross(along, palm))
        spread = Rotation.from_rotvec(palm * 0.08 * rng.normal())
        for segment in range(1, 4):
            bend = Rotation.from_rotvec(axis * share * (0.8 if segment == 1 else 1.0))
            rotations[f"finger{finger}-{segment}.{side}"] = (spread * bend if segment == 1 else bend).as_matrix()
    return rotations


def leg_rotations(
    template: Template, limb: Limb | Hinged, side: str, trunk: Float[np.ndarray, "3 3"], rng: np.random.Generator
) -> Rotations:
    """Rotations of thigh, shank and foot that aim a leg in the world, whatever the trunk's lean."""
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    thigh = limb.first * mirror
    hip, knee, ankle = (
        template.joints[template.joint(f"{name}.{side}")] for name in ("upperleg01", "lowerleg01", "foot")
    )
    turned_out = rng.normal(0.12, 0.15) * mirror[0]
    if isinstance(limb, Hinged):
        axis, angle = hinge(template, "lowerleg01", side)
        swing = trunk.T @ aim(normalized(knee - hip), thigh, -limb.twist * mirror[0])
        bend = Rotation.from_rotvec(axis * (limb.flexion - angle)).as_matrix()
        turned_out = limb.twist * mirror[0]
    else:
        swing = trunk.T @ turn(y=turned_out) @ aim(normalized(knee - hip), turn(y=-turned_out) @ thigh)
        bend = aim(normalized(ankle - knee), (trunk @ swing).T @ (limb.second * mirror))
    if isinstance(limb, Hinged) and (trunk @ swing @ bend @ normalized(ankle - knee))[1] > -0.75:  # off the ground
        foot = turn(x=rng.uniform(-0.3, 0.7), y=0.1 * rng.normal(), z=0.1 * rng.normal())
        return {f"upperleg01.{side}": swing, f"lowerleg01.{side}": bend, f"foot.{side}": foot}
    # The sole stays level unless the shank lies too flat for an ankle.
    level = (trunk @ swing @ bend).T @ turn(y=turned_out * 1.5)
    vector = Rotation.from_matrix(level).as_rotvec()
    length = np.linalg.norm(vector)
    vector *= min(1.0, 0.75 / max(float(length), 1e-6))
    foot = Rotation.from_rotvec(vector + 0.04 * rng.normal(size=3)).as_matrix()
    return {f"upperleg01.{side}": swing, f"lowerleg01.{side}": bend, f"foot.{side}": foot}
