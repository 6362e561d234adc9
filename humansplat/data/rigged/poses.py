"""Poses that rigged characters take: the library's own, or frames of their own animations."""

import numpy as np
from jaxtyping import Float

from humansplat.data.rigged.character import Character
from humansplat.data.rigged.retarget import world_turns
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.limb_kinds import ARM_KINDS, LEG_KINDS, draw_kind
from humansplat.data.synthetic.limbs import turn
from humansplat.data.synthetic.poses import WIDE, WIDE_SHARE, collides, procedural_pose, to_array
from humansplat.data.synthetic.wide_poses import wide_pose

ANIMATION_SHARE = 0.3
"""Of poses, for rigs that are understood and have animations; other rigs take no other poses."""


def draw_turns(template: Template, rng: np.random.Generator) -> tuple[Float[np.ndarray, "j 3 3"], str]:
    """Draw a pose of the default body that owes nothing to an asset, without collisions.

    Returns:
        Rotation of each joint from rest to the world, and the pose's name.
    """
    wide = bool(rng.random() < WIDE_SHARE)
    for _ in range(20):
        if wide:
            pose, name = wide_pose(template, rng)
        else:
            legs, arms = draw_kind(rng, LEG_KINDS), (draw_kind(rng, ARM_KINDS), draw_kind(rng, ARM_KINDS))
            pose, name = procedural_pose(template, rng, legs, arms), f"{legs}/{arms[0]}/{arms[1]}"
        rotations = to_array(template, pose)
        if not collides(template, rotations, wide=wide):
            return world_turns(rotations, template.joint_parents), f"{WIDE}{name}" if wide else name
    return standing(template, rng), "standing/apart/apart"


def standing(template: Template, rng: np.random.Generator) -> Float[np.ndarray, "j 3 3"]:
    """The plainest pose: standing, the arms away from the trunk."""
    rotations = to_array(template, procedural_pose(template, rng, "standing", ("apart", "apart")))
    return world_turns(rotations, template.joint_parents)


def draw_frames(
    character: Character, template: Template, rng: np.random.Generator, *, plain: bool = False
) -> tuple[Float[np.ndarray, "n 4 4"], str]:
    """Pose a character.

    Args:
        character: Who is posed.
        template: The default body.
        rng: Source of all choices.
        plain: Stand, or as bound if the rig is not understood: what is easiest to fit.

    Returns:
        Frames of its nodes, facing +Z, and the pose's name.
    """
    retarget = character.retarget
    animations = [index for index, animation in enumerate(character.animations) if animation.duration > 0]
    if plain or not (retarget is not None or animations):
        if retarget is None:
            return character.rest, "bound"
        return retarget.frames(standing(template, rng)), "standing/apart/apart"
    if animations and (retarget is None or rng.random() < ANIMATION_SHARE):
        index = animations[int(rng.integers(len(animations)))]
        animation = character.animations[index]
        time = float(rng.uniform(0.0, animation.duration))
        frames = character.animated(index, time)
        if retarget is not None:
            frames = _facing_front(frames, retarget.turns(frames)[template.joint("root")])
        return frames, f"animation {animation.name} at {time:.2f} s"
    assert retarget is not None
    turns, name = draw_turns(template, rng)
    return retarget.frames(turns), name


def _facing_front(frames: Float[np.ndarray, "n 4 4"], hips: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 4 4"]:
    forward = hips[:, 2]
    if np.hypot(forward[0], forward[2]) < 0.3:  # lying there is no heading
        return frames
    back = np.eye(4)
    back[:3, :3] = turn(y=-float(np.arctan2(forward[0], forward[2])))
    return back @ frames
