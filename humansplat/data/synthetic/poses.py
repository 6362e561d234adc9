"""Poses: MakeHuman's own, mixtures of them, and procedural ones built from limb directions."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from humansplat.data.synthetic.clips import HOUSE_FROM_BVH, random_clip_pose
from humansplat.data.synthetic.figure import Template, joint_transforms
from humansplat.data.synthetic.limb_kinds import ARM_KINDS, LEG_KINDS, draw_arm, draw_kind, draw_legs
from humansplat.data.synthetic.limbs import Rotations, arm_rotations, leg_rotations, normalized, turn
from humansplat.data.synthetic.makehuman import Motion
from humansplat.data.synthetic.wide_poses import loosened, wide_pose

WIDE_SHARE = 0.45
"""Share of training people in poses that photographs show less often; see ``wide_poses``."""
CLIP_SHARE = 0.08
"""Share of the others that follow frames of motion clips."""
WIDE = "wide "
"""How the names of such poses begin."""


def motion_pose(motion: Motion, frame: int) -> Rotations:
    """One frame of a BVH motion in house axes, by MakeHuman joint name."""
    turned = HOUSE_FROM_BVH @ motion.rotations[frame] @ HOUSE_FROM_BVH.T
    return dict(zip(motion.joint_names, turned, strict=True))


def procedural_pose(template: Template, rng: np.random.Generator, legs: str, arms: tuple[str, str]) -> Rotations:
    """Build a pose from kinds of legs and arms; trunk, head and hands vary on their own."""
    left, right, lean = draw_legs(rng, legs)
    trunk = turn(x=lean, z=rng.normal(0.0, 0.03))
    pose: Rotations = {"root": trunk}
    for side, limb in (("L", left), ("R", right)):
        pose |= leg_rotations(template, limb, side, trunk, rng)
    bend, twist, tilt = rng.normal(0.02, 0.05), rng.normal(0.0, 0.06), rng.normal(0.0, 0.04)
    for name in ("spine05", "spine04", "spine03", "spine02", "spine01"):
        pose[name] = turn(bend, twist, tilt)
    pose |= head_turn(rng)
    for side, kind in zip("LR", arms, strict=True):
        pose |= arm_rotations(template, draw_arm(rng, kind), side, rng)
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


def collides(template: Template, rotations: Float[np.ndarray, "j 3 3"], *, wide: bool = False) -> bool:
    """Whether limbs run through the trunk, the head or each other, judged by capsules on the mean adult.

    Args:
        template: The body.
        rotations: Rotation of each joint against its parent.
        wide: Whether to look also at what meets only in wide poses: knees and shanks with trunk, head and other leg,
            elbows with the head, hands with shanks.
    """
    transforms = joint_transforms(template.joints, template.joint_parents, rotations)
    places = np.einsum("jab,jb->ja", transforms[..., :3], template.joints) + transforms[..., 3]

    def segment(start: str, end: str) -> Float[np.ndarray, "8 3"]:
        a, b = places[template.joint(start)], places[template.joint(end)]
        return a + (b - a) * np.linspace(0, 1, 8)[:, None]

    trunk = segment("root", "spine01")
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
    if wide:
        chest = segment("spine03", "neck01")
        pairs += [(elbows["L"], arms["R"], 0.09), (elbows["R"], arms["L"], 0.09)]
        pairs += [(shanks["L"], thighs["R"], 0.13), (shanks["R"], thighs["L"], 0.13)]
        for side in "LR":
            pairs += [(thighs[side][4:], chest, 0.19), (shanks[side], chest, 0.17), (elbows[side], head, 0.14)]
            pairs += [(arms[side], chest, 0.15), (thighs[side], head, 0.17), (shanks[side], head, 0.15)]
            pairs += [(arms[side], shanks[other], 0.1) for other in "LR"]
            pairs += [(elbows[side], thighs[other][2:], 0.12) for other in "LR"]
    return any(near(*pair) for pair in pairs)


def leg_room(template: Template, transforms: Float[np.ndarray, "j 3 4"]) -> float:
    """How far the thighs are spread or lifted, radians: what a skirt must leave room for."""
    thighs = []
    for side in "LR":
        hip, knee = (template.joint(f"{name}.{side}") for name in ("upperleg02", "lowerleg01"))
        thighs.append(transforms[hip, :, :3] @ normalized(template.joints[knee] - template.joints[hip]))
    pelvis = transforms[template.joint("root"), :, 1]
    cosines = [thighs[0] @ thighs[1], *(-thigh @ pelvis for thigh in thighs)]
    return float(np.arccos(np.clip(min(cosines), -1, 1)))


def draw_pose(
    template: Template,
    motions: Mapping[str, Motion],
    rng: np.random.Generator,
    *,
    procedural: bool,
    clips: Mapping[str, Motion] | None = None,
) -> tuple[Float[np.ndarray, "j 3 3"], str]:
    """Draw a pose without collisions.

    Args:
        template: The body.
        motions: MakeHuman's poses of the split.
        rng: Source of all choices.
        procedural: Whether poses that owe nothing to an asset may be drawn.
        clips: Motions of other skeletons to follow, for procedural poses.

    Returns:
        Rotations of all joints, and a name for the record; those of wide poses begin with ``WIDE``.
    """
    wide = procedural and bool(rng.random() < WIDE_SHARE)
    if procedural and clips and not wide and rng.random() < CLIP_SHARE:
        pose, name = random_clip_pose(template, clips, rng)
        rotations = to_array(template, jitter(pose, rng, float(rng.uniform(0.0, 0.12))))
        if not collides(template, rotations):
            return rotations, name
    for _ in range(20):
        pose, name = (_draw_wide if wide else _draw_candidate)(template, motions, rng, procedural)
        rotations = to_array(template, pose)
        upright = (rotations[template.joint("root")] @ rotations[template.joint("spine05")])[1, 1]
        if upright < 0.6 and rng.random() < 0.8:  # flying and handstands are rare among photographs
            continue
        if not collides(template, rotations, wide=wide):
            return rotations, f"{WIDE}{name}" if wide else name
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
        legs = draw_kind(rng, LEG_KINDS)
        arms = (draw_kind(rng, ARM_KINDS), draw_kind(rng, ARM_KINDS))
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


def _draw_wide(
    template: Template, motions: Mapping[str, Motion], rng: np.random.Generator, procedural: bool
) -> tuple[Rotations, str]:
    if rng.random() < 0.85:
        return wide_pose(template, rng)
    pose, name = _draw_candidate(template, motions, rng, procedural)
    return loosened(template, pose, rng, float(rng.uniform(0.15, 0.4))), name
