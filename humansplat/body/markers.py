"""Points on a body that a network predicts: landmarks, main joints, and vertices spread over the skin.

They say more than joints: where a forearm's or a trunk's skin is tells how it is twisted.
"""

import torch

from humansplat.body.landmarks import MIRRORED_LANDMARKS, NUM_LANDMARKS, LandmarkMap, landmark_map
from humansplat.body.parts import PART_NAMES
from humansplat.body.protocol import BodyModel
from humansplat.geometry.sampling import farthest_points

MAIN_JOINTS = (
    "root", "spine03", "spine01", "neck01", "head", "clavicle.L", "clavicle.R", "finger3-1.L", "finger3-1.R",
    "toe2-1.L", "toe2-1.R",
)  # fmt: skip
"""Joints beside those that are landmarks; the first is what depth is measured from."""
ROOT_MARKER = NUM_LANDMARKS
"""Index of the root joint among the markers, after the landmarks."""
MIRRORED_MARKERS = (*MIRRORED_LANDMARKS, *(NUM_LANDMARKS + index for index in (0, 1, 2, 3, 4, 6, 5, 8, 7, 10, 9)))
"""Where each landmark's and main joint's counterpart of the other side stands; skin markers have none."""
NUM_SKIN_MARKERS = 48
_UNSTEADY_PARTS = ("leftHand", "rightHand", "leftHandIndex1", "rightHandIndex1")
"""Parts without skin markers: fingers are not fitted."""


def marker_map(body: BodyModel) -> LandmarkMap:
    """The 33 landmarks, then ``MAIN_JOINTS``, then skin vertices, each the farthest from those before.

    Args:
        body: The whole body, not a subset of it.

    Raises:
        UserError: If nobody has said where the landmarks lie on this model.
    """
    landmarks = landmark_map(body)
    unsteady = torch.tensor([PART_NAMES.index(name) for name in _UNSTEADY_PARTS])
    candidates = (~torch.isin(body.parts, unsteady)).nonzero()[:, 0]
    skin = candidates[farthest_points(body.canonical[candidates], NUM_SKIN_MARKERS, first=0)]
    ids = torch.cat([landmarks.vertex_ids, skin])
    vertex_weights = torch.zeros(NUM_LANDMARKS + len(MAIN_JOINTS) + NUM_SKIN_MARKERS, len(ids))
    joint_weights = torch.zeros(len(vertex_weights), len(body.joint_names))
    vertex_weights[:NUM_LANDMARKS, : len(landmarks.vertex_ids)] = landmarks.vertex_weights
    joint_weights[:NUM_LANDMARKS] = landmarks.joint_weights
    for row, name in enumerate(MAIN_JOINTS, start=NUM_LANDMARKS):
        joint_weights[row, body.joint_names.index(name)] = 1.0
    vertex_weights[-NUM_SKIN_MARKERS:, len(landmarks.vertex_ids) :] = torch.eye(NUM_SKIN_MARKERS)
    return LandmarkMap(vertex_ids=ids, vertex_weights=vertex_weights, joint_weights=joint_weights)
