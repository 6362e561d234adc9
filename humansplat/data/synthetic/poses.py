"""Poses: MakeHuman's own, mixtures of them, and procedural ones built from limb directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from humansplat.data.synthetic.figure import Template, joint_transforms
from humansplat.data.synthetic.makehuman import Motion

HOUSE_FROM_BVH = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
"""MakeHuman's poses are Z up and face -Y."""

Rotations = dict[str, Float[np.ndarray, "3 3"]]
"""Rotation of each joint against its parent, house axes; joints left out stay at rest."""


def motion_pose(motion: Motion, frame: int) -> Rotations:
    """One frame of a BVH motion in house axes, by MakeHuman joint name."""
    turned = HOUSE_FROM_BVH @ motion.rotations[frame] @ HOUSE_FROM_BVH.T
    return dict(zip(motion.joint_names, turned, strict=True))


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


def _arm(rng: np.random.Generator, kind: str) -> Limb:
    """An arm of a named kind with its natural spread; +x is away from the trunk, +z forward."""
    u = rng.uniform
    out = u(0.22, 0.5)
    kinds: dict[str, Callable[[], Limb]] = {
        "hanging": lambda: Limb(unit(out, -1, u(-0.2, 0.15)), unit(out * u(0.2, 0.9), -1, u(0.02, 0.45))),
        "apart": lambda: Limb(unit(u(0.5, 1.0), -1, u(-0.2, 0.2)), unit(u(0.3, 1.0), -1, u(0.0, 0.5))),
        "hip": lambda: Limb(unit(u(0.75, 1.1), -1, u(-0.5, -0.1)), unit(u(-0.9, -0.55), -0.8, u(0.25, 0.5))),
        "folded": lambda: Limb(unit(u(0.3, 0.5), -1, u(0.1, 0.4)), unit(u(-1.0, -0.5), u(-0.2, 0.35), u(0.7, 1.0))),
        "forward": lambda: Limb(unit(u(-0.05, 0.4), u(-0.9, 0.3), 1), unit(u(-0.3, 0.3), u(-0.5, 0.7), 1)),
        "holding": lambda: Limb(unit(u(0.2, 0.5), -1, u(0.0, 0.5)), unit(u(-0.4, 0.3), u(-0.3, 0.6), 1)),
        "side": lambda: Limb(unit(1, u(-0.4, 0.35), u(-0.3, 0.35)), unit(1, u(-0.5, 0.6), u(-0.1, 0.6))),
        "raised": lambda: Limb(unit(u(0.2, 0.9), 1, u(-0.15, 0.4)), unit(u(-0.4, 0.6), 1, u(-0.1, 0.5))),
        "waving": lambda: Limb(unit(1, u(-0.5, 0.2), u(-0.1, 0.4)), unit(u(-0.2, 0.5), 1, u(0.0, 0.5))),
        "head": lambda: Limb(unit(u(0.5, 1.0), u(-0.1, 0.6), u(0.2, 0.5)), unit(u(-0.9, -0.5), u(0.5, 1.0), -0.05)),
        "behind": lambda: Limb(unit(u(0.4, 0.6), -1, u(-0.6, -0.3)), unit(u(-0.5, -0.1), -1, u(-0.3, 0.0))),
        "swing_front": lambda: Limb(unit(0.25, -1, u(0.25, 0.8)), unit(u(-0.1, 0.2), u(-1.0, 0.2), u(0.6, 1.2))),
        "swing_back": lambda: Limb(unit(0.3, -1, u(-0.9, -0.3)), unit(u(0.0, 0.2), -1, u(-0.3, 0.6))),
    }
    return kinds[kind]()


ARM_KINDS = {
    "hanging": 0.34, "apart": 0.12, "hip": 0.09, "folded": 0.06, "forward": 0.06, "holding": 0.1, "side": 0.05,
    "raised": 0.04, "waving": 0.05, "head": 0.03, "behind": 0.06,
}  # fmt: skip
"""How often each kind of arm is drawn for people who stand or sit."""


def _legs(rng: np.random.Generator, kind: str) -> tuple[Limb, Limb, float]:
    """Left and right leg, and the lean of the trunk about the x axis; the right leg's x is mirrored already."""
    u = rng.uniform
    if kind == "standing":
        wide = u(0.0, 0.22)
        legs = [Limb(unit(wide + u(-0.03, 0.05), -1, u(-0.1, 0.14)), unit(wide, -1, u(-0.16, 0.0))) for _ in "LR"]
        if rng.random() < 0.35:  # the weight on one leg, the other knee loose
            legs[0] = Limb(unit(wide + 0.08, -1, u(0.1, 0.35)), unit(wide - 0.05, -1, u(-0.25, -0.05)))
        lean = u(-0.06, 0.08)
    elif kind == "wide":
        wide = u(0.25, 0.6)
        legs = [Limb(unit(wide * u(0.8, 1.1), -1, u(-0.2, 0.3)), unit(wide * u(0.7, 1), -1, u(-0.4, 0))) for _ in "LR"]
        lean = u(-0.05, 0.25)
    elif kind == "walking":
        stride = u(0.15, 0.6)
        legs = [
            Limb(unit(0.05, -1, stride), unit(0.03, -1, u(0.1, 0.9) * stride - 0.1)),
            Limb(unit(0.05, -1, -stride * u(0.5, 0.9)), unit(0.03, -1, -stride - u(0.0, 0.5))),
        ]
        lean = u(0.0, 0.1)
    elif kind == "running":
        legs = [
            Limb(unit(0.05, u(-0.9, -0.2), 1), unit(0.03, -1, u(-0.7, 0.2))),
            Limb(unit(0.05, -1, -u(0.2, 0.7)), unit(0.03, u(-0.5, 0.2), -1)),
        ]
        lean = u(0.05, 0.3)
    elif kind == "sitting":
        wide = u(0.0, 0.45)
        legs = [Limb(unit(wide * u(0.8, 1.2), u(-0.35, 0.0), 1), unit(wide * 0.4, -1, u(-0.35, 0.35))) for _ in "LR"]
        lean = u(-0.2, 0.25)
    elif kind == "squatting":
        wide = u(0.15, 0.5)
        legs = [Limb(unit(wide, u(-0.8, -0.05), 1), unit(wide * 0.6, -1, u(-0.8, -0.3))) for _ in "LR"]
        lean = u(0.2, 0.6)
    elif kind == "lunging":
        legs = [
            Limb(unit(0.12, u(-0.8, -0.3), 1), unit(0.05, -1, u(-0.2, 0.2))),
            Limb(unit(0.1, -1, -u(0.2, 0.7)), unit(0.05, -0.6, -1)),
        ]
        lean = u(-0.05, 0.2)
    elif kind == "kicking":
        legs = [
            Limb(unit(u(-0.1, 0.3), u(-0.7, 0.15), 1), unit(0.05, u(-0.8, 0.1), 1)),
            Limb(unit(0.08, -1, u(-0.05, 0.1)), unit(0.05, -1, -0.1)),
        ]
        lean = u(-0.25, 0.05)
    else:  # jumping
        legs = [
            Limb(unit(u(0.05, 0.5), -1, u(-0.3, 0.8)), unit(u(0, 0.3), u(-1.0, -0.4), u(-1.0, -0.2))) for _ in "LR"
        ]
        lean = u(-0.1, 0.2)
    if rng.random() < 0.5:
        legs.reverse()
    return legs[0], legs[1], lean


LEG_KINDS = {
    "standing": 0.5, "wide": 0.09, "walking": 0.15, "running": 0.06, "sitting": 0.07, "squatting": 0.03,
    "lunging": 0.04, "kicking": 0.02, "jumping": 0.04,
}  # fmt: skip
"""How often each kind of legs is drawn."""


def _draw(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names, weights = list(shares), np.array(list(shares.values()))
    return str(rng.choice(names, p=weights / weights.sum()))


def arm_rotations(template: Template, limb: Limb, side: str, rng: np.random.Generator) -> Rotations:
    """Rotations of clavicle, upper arm, forearm and hand that aim an arm."""
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    upper, fore = limb.first * mirror, limb.second * mirror
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
    bend = aim(rest_fore, (clavicle @ swing).T @ fore)
    wrist = turn(*(0.2 * rng.normal(size=3)))
    return {
        f"clavicle.{side}": clavicle,
        f"upperarm01.{side}": swing,
        f"lowerarm01.{side}": bend,
        f"lowerarm02.{side}": Rotation.from_rotvec(rest_fore * rng.normal(0.0, 0.45)).as_matrix(),
        f"wrist.{side}": wrist,
        **finger_rotations(template, side, rng),
    }


def finger_rotations(template: Template, side: str, rng: np.random.Generator) -> Rotations:
    """Curl the fingers of a hand: from stretched to a fist, together or each on its own."""

    def place(name: str) -> np.ndarray:
        return template.joints[template.joint(f"{name}.{side}")].astype(np.float64)

    across = np.cross(place("finger2-1") - place("wrist"), place("finger5-1") - place("wrist"))
    palm = normalized(across) * (1.0 if across[1] < 0 else -1.0)  # at rest the palms look down
    curl = rng.beta(1.3, 2.0) * 1.4
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
    template: Template, limb: Limb, side: str, trunk: Float[np.ndarray, "3 3"], rng: np.random.Generator
) -> Rotations:
    """Rotations of thigh, shank and foot that aim a leg in the world, whatever the trunk's lean."""
    mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
    thigh, shank = limb.first * mirror, limb.second * mirror
    hip, knee, ankle = (
        template.joints[template.joint(f"{name}.{side}")] for name in ("upperleg01", "lowerleg01", "foot")
    )
    turned_out = rng.normal(0.12, 0.15) * mirror[0]
    swing = trunk.T @ turn(y=turned_out) @ aim(normalized(knee - hip), turn(y=-turned_out) @ thigh)
    bend = aim(normalized(ankle - knee), (trunk @ swing).T @ shank)
    # The sole stays level unless the shank lies too flat for an ankle.
    level = (trunk @ swing @ bend).T @ turn(y=turned_out * 1.5)
    vector = Rotation.from_matrix(level).as_rotvec()
    length = np.linalg.norm(vector)
    vector *= min(1.0, 0.75 / max(float(length), 1e-6))
    foot = Rotation.from_rotvec(vector + 0.04 * rng.normal(size=3)).as_matrix()
    return {f"upperleg01.{side}": swing, f"lowerleg01.{side}": bend, f"foot.{side}": foot}


def procedural_pose(template: Template, rng: np.random.Generator, legs: str, arms: tuple[str, str]) -> Rotations:
    """Build a pose from kinds of legs and arms; trunk, head and hands vary on their own."""
    left, right, lean = _legs(rng, legs)
    trunk = turn(x=lean, z=rng.normal(0.0, 0.03))
    pose: Rotations = {"root": trunk}
    for side, limb in (("L", left), ("R", right)):
        pose |= leg_rotations(template, limb, side, trunk, rng)
    bend, twist, tilt = rng.normal(0.02, 0.05), rng.normal(0.0, 0.06), rng.normal(0.0, 0.04)
    for name in ("spine05", "spine04", "spine03", "spine02", "spine01"):
        pose[name] = turn(bend, twist, tilt)
    pose |= head_turn(rng)
    for side, kind in zip("LR", arms, strict=True):
        pose |= arm_rotations(template, _arm(rng, kind), side, rng)
    return pose


def head_turn(rng: np.random.Generator, scale: float = 1.0) -> Rotations:
    """Look around: yaw, nod and tilt shared out over neck and head."""
    yaw, nod, tilt = rng.normal(0.0, 0.28) * scale, rng.normal(-0.1, 0.14) * scale, rng.normal(0.0, 0.07) * scale
    return {name: turn(-nod / 4, yaw / 4, tilt / 4) for name in ("neck01", "neck02", "neck03", "head")}


def blend(a: Rotations, b: Rotations, share: float) -> Rotations:
    """Interpolate two poses joint by joint on the rotation group; ``share`` 0 gives ``a``."""
    mixed: Rotations = {}
    for name in a.keys() | b.keys():
        ends = Rotation.from_matrix(np.stack([a.get(name, np.eye(3)), b.get(name, np.eye(3))]))
        mixed[name] = Slerp([0.0, 1.0], ends)(share).as_matrix()
    return mixed


def jitter(pose: Rotations, rng: np.random.Generator, scale: float) -> Rotations:
    """Turn the large joints by random angles, radians of standard deviation ``scale``."""
    moved = dict(pose)
    factors = {"upperarm01": 1.6, "lowerarm01": 1.2, "wrist": 1.0, "upperleg01": 0.9, "lowerleg01": 0.7, "foot": 0.4}
    for name, factor in factors.items():
        for side in "LR":
            key = f"{name}.{side}"
            moved[key] = pose.get(key, np.eye(3)) @ turn(*(scale * factor * rng.normal(size=3)))
    for name in ("spine05", "spine03", "spine01", "neck01", "head"):
        moved[name] = pose.get(name, np.eye(3)) @ turn(*(0.5 * scale * rng.normal(size=3)))
    return moved


def to_array(template: Template, pose: Rotations) -> Float[np.ndarray, "j 3 3"]:
    """Rotations of all joints in the body's order, with the heading of the trunk turned to +Z."""
    rotations = np.broadcast_to(np.eye(3), (len(template.joint_names), 3, 3)).copy()
    for index, name in enumerate(template.joint_names):
        if name in pose:
            rotations[index] = pose[name]
    root = template.joint("root")
    forward = rotations[root] @ np.array([0.0, 0.0, 1.0])
    if np.hypot(forward[0], forward[2]) > 0.3:  # lying or upside down there is no heading
        rotations[root] = turn(y=-np.arctan2(forward[0], forward[2])) @ rotations[root]
    return rotations.astype(np.float32)


def collides(template: Template, rotations: Float[np.ndarray, "j 3 3"]) -> bool:
    """Whether limbs run through the trunk, the head or each other, judged by capsules on the mean adult."""
    transforms = joint_transforms(template.joints, template.joint_parents, rotations)
    places = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]

    def segment(start: str, end: str) -> Float[np.ndarray, "8 3"]:
        a, b = places[template.joint(start)], places[template.joint(end)]
        return a + (b - a) * np.linspace(0, 1, 8)[:, None]

    trunk = np.concatenate([segment("root", "spine01") + [0.0, 0.0, 0.0]])
    head = segment("neck03", "head")
    arms = {side: segment(f"lowerarm02.{side}", f"finger3-1.{side}") for side in "LR"}
    elbows = {side: segment(f"lowerarm01.{side}", f"lowerarm02.{side}") for side in "LR"}
    thighs = {side: segment(f"upperleg02.{side}", f"lowerleg01.{side}") for side in "LR"}
    shanks = {side: segment(f"lowerleg02.{side}", f"foot.{side}") for side in "LR"}

    def near(a: np.ndarray, b: np.ndarray, limit: float) -> bool:
        return bool((np.linalg.norm(a[:, None] - b[None], axis=-1) < limit).any())

    pairs = [(arms["L"], arms["R"], 0.09), (shanks["L"], shanks["R"], 0.13), (thighs["L"], thighs["R"], 0.14)]
    for side in "LR":
        pairs += [(arms[side], trunk, 0.17), (elbows[side], trunk, 0.17), (arms[side], head, 0.13)]
        pairs += [(arms[side], thighs[other], 0.13) for other in "LR"]
    return any(near(*pair) for pair in pairs)


def bends_legs(template: Template, transforms: Float[np.ndarray, "j 3 4"]) -> bool:
    """Whether a thigh points far from down, so that a long skirt could not hang as it is built."""
    hanging = []
    for side in "LR":
        hip, knee = (template.joint(f"{name}.{side}") for name in ("upperleg02", "lowerleg01"))
        thigh = normalized(template.joints[knee] - template.joints[hip])
        hanging.append(-(transforms[hip, :, :3] @ thigh)[1])
    return bool(min(hanging) < 0.75)


def draw_pose(
    template: Template, motions: Mapping[str, Motion], rng: np.random.Generator, *, procedural: bool
) -> tuple[Float[np.ndarray, "j 3 3"], str]:
    """Draw a pose without collisions.

    Args:
        template: The body.
        motions: MakeHuman's poses of the split.
        rng: Source of all choices.
        procedural: Whether poses that owe nothing to an asset may be drawn.

    Returns:
        Rotations of all joints, and a name for the record.
    """
    for _ in range(20):
        pose, name = _draw_candidate(template, motions, rng, procedural)
        rotations = to_array(template, pose)
        upright = (rotations[template.joint("root")] @ rotations[template.joint("spine05")])[1, 1]
        if upright < 0.6 and rng.random() < 0.8:  # flying and handstands are rare among photographs
            continue
        if not collides(template, rotations):
            return rotations, name
    pose = procedural_pose(template, rng, "standing", ("apart", "apart"))
    return to_array(template, pose), "standing"


def _random_frame(motions: Mapping[str, Motion], rng: np.random.Generator) -> tuple[Rotations, str]:
    names = sorted(motions)
    shares = np.array([4.0 if "standing" in name else 1.0 for name in names])  # as photographs have them
    name = str(rng.choice(names, p=shares / shares.sum()))
    return motion_pose(motions[name], int(rng.integers(len(motions[name].rotations)))), name


def _draw_candidate(
    template: Template, motions: Mapping[str, Motion], rng: np.random.Generator, procedural: bool
) -> tuple[Rotations, str]:
    if procedural and rng.random() < 0.72:
        legs = _draw(rng, LEG_KINDS)
        arms = (_draw(rng, ARM_KINDS), _draw(rng, ARM_KINDS))
        if legs in ("standing", "wide", "sitting") and rng.random() < 0.4:
            arms = (arms[0], arms[0])
        if legs in ("walking", "running") and rng.random() < 0.7:
            arms = ("swing_front", "swing_back") if rng.random() < 0.5 else ("swing_back", "swing_front")
        pose, name = procedural_pose(template, rng, legs, arms), f"{legs}/{arms[0]}/{arms[1]}"
        if rng.random() < 0.15:  # the arms of an asset on procedural legs
            other, other_name = _random_frame(motions, rng)
            pose |= {key: value for key, value in other.items() if key[:5] in ("clavi", "shoul", "upper", "lower")
                     and "leg" not in key}  # fmt: skip
            name += f"+{other_name}"
        return pose, name
    pose, name = _random_frame(motions, rng)
    if rng.random() < 0.5:
        other, other_name = _random_frame(motions, rng)
        pose, name = blend(pose, other, float(rng.uniform(0.15, 0.85))), f"{name}~{other_name}"
    return jitter(pose, rng, float(rng.uniform(0.03, 0.2))), name
