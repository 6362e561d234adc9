"""Body parts: one of 24 labels for every vertex, named after the joints of SMPL and in their order.

A vertex belongs to the part whose joints together pull it most. So the labels follow from the
skinning weights of whatever model the user has, and nobody's segmentation file is needed.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.structures import PosedBody

PART_NAMES = (
    "hips", "leftUpLeg", "rightUpLeg", "spine", "leftLeg", "rightLeg", "spine1", "leftFoot", "rightFoot",
    "spine2", "leftToeBase", "rightToeBase", "neck", "leftShoulder", "rightShoulder", "head", "leftArm",
    "rightArm", "leftForeArm", "rightForeArm", "leftHand", "rightHand", "leftHandIndex1", "rightHandIndex1",
)  # fmt: skip
"""Label ``k`` is stored as ``k + 1`` in part maps, where 0 is the background."""

NUM_PARTS = len(PART_NAMES)

_TRUNK = {
    "root": "hips", "pelvis": "hips", "spine05": "hips", "spine04": "spine", "spine03": "spine1",
    "spine02": "spine2", "spine01": "spine2", "breast": "spine2", "neck": "neck",
}  # fmt: skip
_LIMBS = {
    "upperleg": "UpLeg", "lowerleg": "Leg", "foot": "Foot", "toe": "ToeBase", "clavicle": "Shoulder",
    "shoulder": "Shoulder", "upperarm": "Arm", "lowerarm": "ForeArm", "wrist": "Hand", "metacarpal": "Hand",
    "finger": "HandIndex1",
}  # fmt: skip


def makehuman_joint_part(joint: str) -> int:
    """Label of a joint of MakeHuman's skeleton; everything that is neither trunk nor limb sits on the head."""
    for prefix, part in _TRUNK.items():
        if joint.startswith(prefix):
            return PART_NAMES.index(part)
    for prefix, part in _LIMBS.items():
        if joint.startswith(prefix):
            return PART_NAMES.index(("left" if joint.endswith(".L") else "right") + part)
    return PART_NAMES.index("head")


def parts_from_weights(weights: Float[Tensor, "v j"], joint_parts: Sequence[int]) -> Int[Tensor, " v"]:
    """The part that pulls each vertex most.

    Args:
        weights: Skinning weights.
        joint_parts: Part label of each joint, in ``[0, 24)``.
    """
    groups = torch.tensor(list(joint_parts), device=weights.device)
    pull = weights.new_zeros(weights.shape[0], NUM_PARTS).index_add(1, groups, weights)
    return pull.argmax(dim=1)


def part_vertices(body: PosedBody, name: str) -> Float[Tensor, "*batch n 3"]:
    """The vertices of one part of :data:`PART_NAMES`, world frame."""
    return body.vertices[..., body.parts == PART_NAMES.index(name), :]
