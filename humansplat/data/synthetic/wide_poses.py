"""Uncommon poses: fighting, dancing, bowing, lunging with a turned trunk; limbs anywhere that joints allow."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.limb_kinds import LEG_KINDS, draw_arm, draw_kind, draw_legs
from humansplat.data.synthetic.limbs import (
    Hinged,
    Limb,
    Rotations,
    arm_rotations,
    hinge,
    leg_rotations,
    turn,
)
from humansplat.data.synthetic.wide_limbs import (
    MAX_ELBOW,
    MAX_KNEE,
    WIDE_ARM_KINDS,
    WIDE_LEG_KINDS,
    draw_wide_arm,
    draw_wide_legs,
)

SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")
BENT_TRUNKS = 0.67
"""Share of wide poses whose trunk bends and turns as far as a spine does."""
MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Trunk:
    """Bends of pelvis and spine, radians: ``lean`` forwards, ``tilt`` towards the right, ``twist`` to the left."""

    pelvis_lean: float
    pelvis_tilt: float
    lean: float
    """Of the whole spine, over the pelvis; the others as well."""
    tilt: float
    twist: float

    @property
    def root(self) -> Float[np.ndarray, "3 3"]:
        """Rotation of the pelvis."""
        return turn(x=self.pelvis_lean) @ turn(z=self.pelvis_tilt)

    def rotations(self) -> Rotations:
        """The pelvis, and the spine's bends in equal parts for its joints."""
        part = turn(self.lean / 5, self.twist / 5, self.tilt / 5)
        return {"root": self.root} | dict.fromkeys(SPINE, part)


def draw_trunk(rng: np.random.Generator, legs: str, side: float) -> Trunk:
    """Draw a trunk for a kind of legs; ``side`` is 1 if the left leg makes the pose, -1 for the right one."""
    u = rng.uniform
    if rng.random() < BENT_TRUNKS:
        lean = float(np.clip(rng.normal(0.4, 0.6), -0.5, 1.7))
        tilt, twist = (float(np.clip(rng.normal(0, s), -2 * s, 2 * s)) for s in (0.26, 0.42))
    else:
        lean, tilt, twist = rng.normal(0.08, 0.12), rng.normal(0.0, 0.06), rng.normal(0.0, 0.1)
    share = u(0.25, 0.55)
    pelvis_lean, pelvis_tilt = share * lean, 0.3 * tilt
    if legs == "kick_side":
        pelvis_tilt += side * u(0.0, 0.6)
    elif legs == "kick_back":
        pelvis_lean += u(0.2, 0.6)
    elif legs == "kick_front":
        pelvis_lean -= u(0.0, 0.3)
    pelvis_lean = float(np.clip(pelvis_lean, -0.35, 0.75))
    return Trunk(pelvis_lean, float(pelvis_tilt), (1 - share) * lean, 0.7 * tilt, twist)


def wide_head(rng: np.random.Generator, lean: float) -> Rotations:
    """Look anywhere that a neck allows; who bends over often looks ahead."""
    yaw = float(np.clip(rng.normal(0.0, 0.55), -1.2, 1.2))
    nod = float(np.clip(rng.normal(0.08, 0.28) - lean * rng.uniform(0.0, 0.6), -0.8, 0.7))
    tilt = float(np.clip(rng.normal(0.0, 0.16), -0.4, 0.4))
    return {name: turn(nod / 4, yaw / 4, tilt / 4) for name in NECK}


def wide_pose(template: Template, rng: np.random.Generator) -> tuple[Rotations, str]:
    """Draw an uncommon pose from kinds of legs and arms.

    Returns:
        Rotations by joint, and the kinds for the record.
    """
    legs = draw_kind(rng, WIDE_LEG_KINDS)
    if legs == "high_kick":
        legs = draw_kind(rng, {"kick_front": 0.4, "kick_side": 0.4, "kick_back": 0.2})
    left_first = bool(rng.random() < 0.5)
    trunk = draw_trunk(rng, legs, 1.0 if left_first else -1.0)
    pose = trunk.rotations()
    both: list[Limb | Hinged] = []
    if legs in LEG_KINDS:
        both += draw_legs(rng, legs)[:2]
    else:
        pelvis = trunk.root if left_first else MIRROR @ trunk.root @ MIRROR
        both += draw_wide_legs(rng, legs, pelvis)
    for side, leg in zip("LR" if left_first else "RL", both, strict=True):
        pose |= leg_rotations(template, leg, side, trunk.root, rng)
    lean = trunk.pelvis_lean + trunk.lean
    pose |= wide_head(rng, lean)
    kinds = [draw_kind(rng, WIDE_ARM_KINDS) for _ in "LR"]
    if rng.random() < 0.15:
        kinds[1] = kinds[0]
    dangling = turn(x=-lean * float(rng.random() < 0.5))  # hanging from a bent trunk is forwards of it
    for side, kind in zip("LR", kinds, strict=True):
        pose |= arm_rotations(template, _arm(rng, kind, dangling), side, rng)
    return pose, f"{legs}/{kinds[0]}/{kinds[1]}"


def _arm(rng: np.random.Generator, kind: str, dangling: Float[np.ndarray, "3 3"]) -> Limb | Hinged:
    if kind in ("free", "guarding", "crossing"):
        return draw_wide_arm(rng, kind)
    limb = draw_arm(rng, kind)
    return Limb(dangling @ limb.first, dangling @ limb.second) if kind == "hanging" else limb


def loosened(template: Template, pose: Rotations, rng: np.random.Generator, scale: float) -> Rotations:
    """Turn shoulders, hips and trunk of a pose by large random angles, and flex its elbows and knees further.

    Args:
        template: The body.
        pose: A pose to change.
        rng: Source of all choices.
        scale: Standard deviation of the shoulders' angles, radians.
    """
    moved = dict(pose)
    for side in "LR":
        for name, factor in (("upperarm01", 1.0), ("upperleg01", 0.7)):
            moved[f"{name}.{side}"] = pose.get(f"{name}.{side}", np.eye(3)) @ turn(
                *(scale * factor * rng.normal(size=3))
            )
        for name, most in (("lowerarm01", MAX_ELBOW), ("lowerleg01", MAX_KNEE)):
            key = f"{name}.{side}"
            bend = pose.get(key, np.eye(3))
            axis, resting = hinge(template, name, side)
            present = resting + float(Rotation.from_matrix(bend).as_rotvec() @ axis)
            further = np.clip(2 * scale * abs(rng.normal()), 0.0, max(most - 0.2 - present, 0.0))
            moved[key] = bend @ Rotation.from_rotvec(axis * further).as_matrix()
    lean, twist, tilt = (float(np.clip(s * rng.normal(), -2 * s, 2 * s)) for s in (1.2 * scale, scale, 0.6 * scale))
    for name in SPINE:
        moved[name] = pose.get(name, np.eye(3)) @ turn(lean / 5, twist / 5, tilt / 5)
    for name, rotation in wide_head(rng, 0.0).items():
        moved[name] = pose.get(name, np.eye(3)) @ rotation
    return moved
