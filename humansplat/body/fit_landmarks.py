"""The detector's landmarks on the body, where its habits differ from anatomy, and how far they are to be trusted.

All figures: median and spread of the detector's errors on people rendered by ``humansplat synthesize``, against
the points of ``humansplat.body.landmarks``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.landmarks import LANDMARK_NAMES, LandmarkMap, landmark_map
from humansplat.body.protocol import BodyModel

# The detector sees shoulders 30 mm above the joint (towards the skin over it), hips 24 mm below theirs, ankles 28 mm
# above, elbows 17 mm up the arm and knees 18 mm down the leg: shares of the landmark's own point and of another.
_ANNY_HABITS: dict[str, tuple[float, str | int]] = {
    "leftShoulder": (0.6, 8220), "rightShoulder": (0.6, 1558),
    "leftElbow": (0.06, "upperarm01.L"), "rightElbow": (0.06, "upperarm01.R"),
    "leftHip": (0.06, "lowerleg01.L"), "rightHip": (0.06, "lowerleg01.R"),
    "leftKnee": (0.045, "foot.L"), "rightKnee": (0.045, "foot.R"),
    "leftAnkle": (0.065, "lowerleg01.L"), "rightAnkle": (0.065, "lowerleg01.R"),
}  # fmt: skip
_HABITS = {"anny": _ANNY_HABITS}

# Deviations in the picture, fractions of the crop, in MediaPipe's order.
_FACE, _EARS, _SHOULDERS, _ELBOWS, _WRISTS, _HANDS, _HIPS, _KNEES, _ANKLES, _HEELS, _TOES = (
    0.009, 0.014, 0.011, 0.014, 0.010, 0.014, 0.013, 0.014, 0.010, 0.014, 0.017,
)  # fmt: skip
LANDMARK_STD = (
    *[_FACE] * 7, *[_EARS] * 2, *[_FACE] * 2, *[_SHOULDERS] * 2, *[_ELBOWS] * 2, *[_WRISTS] * 2, *[_HANDS] * 6,
    *[_HIPS] * 2, *[_KNEES] * 2, *[_ANKLES] * 2, *[_HEELS] * 2, *[_TOES] * 2,
)  # fmt: skip


@dataclass(frozen=True)
class Bone:
    """A direction between two means of landmarks, and the deviations of its unit vector."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    std: float
    """Across the line of sight."""
    depth_std: float
    """Along it."""


# Two thirds of the spreads as measured: fits were best so, since the pose prior pulls on the same limbs.
BONES = (
    Bone((24,), (23,), 0.09, 0.10), Bone((12,), (11,), 0.09, 0.10), Bone((23, 24), (11, 12), 0.08, 0.11),
    Bone((11,), (13,), 0.09, 0.17), Bone((13,), (15,), 0.11, 0.21), Bone((12,), (14,), 0.09, 0.17),
    Bone((14,), (16,), 0.11, 0.21), Bone((23,), (25,), 0.09, 0.13), Bone((25,), (27,), 0.09, 0.13),
    Bone((24,), (26,), 0.09, 0.13), Bone((26,), (28,), 0.09, 0.13), Bone((29,), (31,), 0.25, 0.19),
    Bone((30,), (32,), 0.25, 0.19), Bone((15,), (17, 19), 0.16, 0.22), Bone((16,), (18, 20), 0.16, 0.22),
    Bone((8,), (7,), 0.10, 0.12), Bone((7, 8), (0,), 0.16, 0.13),
)  # fmt: skip

_WEIGHT = ((0.40, (23, 24)), (0.40, (11, 12)), (0.20, (7, 8)))
"""Where a standing person's weight is: shares of the mean of landmarks."""
_FEET = ((29, 31), (30, 32))
_RAISED = 0.03
"""A foot this much higher in the picture than the other, a fraction of the crop, carries e times less."""


def detector_map(model: BodyModel) -> LandmarkMap:
    """``landmark_map``, moved to where the detector puts the points.

    Raises:
        UserError: If nobody has said where the landmarks lie on this model.
    """
    anatomy = landmark_map(model)
    habits = _HABITS.get(model.name, {})
    ids = anatomy.vertex_ids.tolist()
    ids += sorted({source for _, source in habits.values() if isinstance(source, int)} - set(ids))
    vertex_weights = torch.nn.functional.pad(anatomy.vertex_weights, (0, len(ids) - anatomy.vertex_weights.shape[1]))
    joint_weights = anatomy.joint_weights.clone()
    for name, (share, source) in habits.items():
        row = LANDMARK_NAMES.index(name)
        vertex_weights[row] *= 1 - share
        joint_weights[row] *= 1 - share
        if isinstance(source, int):
            vertex_weights[row, ids.index(source)] += share
        else:
            joint_weights[row, model.joint_names.index(source)] += share
    return LandmarkMap(vertex_ids=torch.tensor(ids), vertex_weights=vertex_weights, joint_weights=joint_weights)


def bone_matrix() -> Float[Tensor, "b 33"]:
    """Takes landmarks to the vectors of ``BONES``."""
    matrix = torch.zeros(len(BONES), len(LANDMARK_NAMES))
    for row, bone in enumerate(BONES):
        matrix[row, list(bone.start)] -= 1 / len(bone.start)
        matrix[row, list(bone.end)] += 1 / len(bone.end)
    return matrix


def balance_row(points: Float[Tensor, "33 2"]) -> Float[Tensor, "33"]:
    """Takes landmarks to the vector from what carries a standing person to the person's weight.

    Args:
        points: In the picture, fractions of the crop: the lower foot carries more.
    """
    row = torch.zeros(len(LANDMARK_NAMES))
    for share, members in _WEIGHT:
        row[list(members)] += share / len(members)
    heights = torch.stack([points[list(foot), 1].max() for foot in _FEET])
    for foot, share in zip(_FEET, (heights / _RAISED).softmax(dim=0), strict=True):
        row[list(foot)] -= share / len(foot)
    return row
