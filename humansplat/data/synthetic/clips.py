"""Frames of motion clips whose skeleton rests in another pose: its bones' directions, taken over by the body's."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.limbs import Limb, Rotations, arm_rotations, leg_rotations, normalized
from humansplat.data.synthetic.makehuman import Motion

HOUSE_FROM_BVH = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)
"""MakeHuman's poses and clips are Z up and face -Y."""
BONES = {
    "upper": ("UpArm", "LoArm"),
    "fore": ("LoArm", "Hand"),
    "thigh": ("UpLeg", "LoLeg"),
    "shank": ("LoLeg", "Foot"),
}
NEEDED = {"Root", "Hips", "Spine3", "Head", *(f"{name}_{s}" for pair in BONES.values() for name in pair for s in "LR")}
"""Joints by which a clip is followed: MakeHuman's game skeleton."""
SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")


def followable(motion: Motion) -> bool:
    """Whether a motion has the joints that are looked at."""
    return set(motion.joint_names) >= NEEDED


def clip_pose(template: Template, motion: Motion, frame: int, rng: np.random.Generator) -> Rotations:
    """Follow one frame of a clip.

    Args:
        template: The body.
        motion: The clip.
        frame: Which one.
        rng: Source of fingers, wrists and how far feet turn out, which clips do not tell.
    """
    names = list(motion.joint_names)
    turned = np.empty((len(names), 3, 3))
    for joint, parent in enumerate(motion.parents):
        local = motion.rotations[frame, joint]
        turned[joint] = turned[parent] @ local if parent >= 0 else local
    house = HOUSE_FROM_BVH @ turned @ HOUSE_FROM_BVH.T

    def frame_of(name: str) -> Float[np.ndarray, "3 3"]:
        return house[names.index(name)]

    def bone(kind: str, side: str) -> Float[np.ndarray, " 3"]:
        start, end = (f"{name}_{side}" for name in BONES[kind])
        return normalized(frame_of(start) @ HOUSE_FROM_BVH @ motion.offsets[names.index(end)])

    pelvis, chest = frame_of("Hips"), frame_of("Spine3")
    pose: Rotations = {"root": pelvis}
    pose |= dict.fromkeys(SPINE, _share(pelvis.T @ chest, len(SPINE)))
    pose |= dict.fromkeys(NECK, _share(chest.T @ frame_of("Head"), len(NECK)))
    for side in "LR":
        mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
        legs = Limb(bone("thigh", side) * mirror, bone("shank", side) * mirror)
        pose |= leg_rotations(template, legs, side, pelvis, rng)
        arms = Limb(chest.T @ bone("upper", side) * mirror, chest.T @ bone("fore", side) * mirror)
        pose |= arm_rotations(template, arms, side, rng)
    return pose


def random_clip_pose(
    template: Template, clips: Mapping[str, Motion], rng: np.random.Generator
) -> tuple[Rotations, str]:
    """Any frame of any clip, and its name for the record."""
    name = sorted(clips)[int(rng.integers(len(clips)))]
    frame = int(rng.integers(len(clips[name].rotations)))
    return clip_pose(template, clips[name], frame, rng), f"clip {name} {frame}"


def _share(rotation: Float[np.ndarray, "3 3"], count: int) -> Float[np.ndarray, "3 3"]:
    return Rotation.from_rotvec(Rotation.from_matrix(rotation).as_rotvec() / count).as_matrix()
