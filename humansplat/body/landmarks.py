"""Where MediaPipe's 33 pose landmarks lie on a body: means of a few joints and skin vertices.

The landmarks' names and order are those of MediaPipe's BlazePose graph; left and right are the person's own.
A fit poses only the vertices that are needed:

    landmarks = landmark_map(body)
    few = body.subset(landmarks.vertex_ids)
    posed = few(phenotypes, rotations, translation)
    points = landmarks.points(posed.vertices, posed.joints)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.protocol import BodyModel
from humansplat.errors import UserError
from humansplat.structures.base import TensorStruct
from humansplat.structures.body import PosedBody

LANDMARK_NAMES = (
    "nose", "leftEyeInner", "leftEye", "leftEyeOuter", "rightEyeInner", "rightEye", "rightEyeOuter", "leftEar",
    "rightEar", "mouthLeft", "mouthRight", "leftShoulder", "rightShoulder", "leftElbow", "rightElbow", "leftWrist",
    "rightWrist", "leftPinky", "rightPinky", "leftIndex", "rightIndex", "leftThumb", "rightThumb", "leftHip",
    "rightHip", "leftKnee", "rightKnee", "leftAnkle", "rightAnkle", "leftHeel", "rightHeel", "leftFootIndex",
    "rightFootIndex",
)  # fmt: skip

NUM_LANDMARKS = len(LANDMARK_NAMES)
MIRRORED_LANDMARKS = (
    0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23, 26, 25, 28, 27,
    30, 29, 32, 31,
)  # fmt: skip
"""Where each landmark's counterpart of the other side stands."""

# Names are joints, numbers are skin vertices of the default body.
_ANNY: dict[str, tuple[str | int, ...]] = {
    "nose": (5038,),
    "leftEyeInner": (11454,), "rightEyeInner": (4852,),
    "leftEye": (13574, 13583, 13592, 13637), "rightEye": (13646, 13655, 13664, 13709),  # the pupil on the eyeball
    "leftEyeOuter": (6787,), "rightEyeOuter": (19,),
    "leftEar": (12271,), "rightEar": (5690,),
    "mouthLeft": (10373,), "mouthRight": (3721,),
    "leftShoulder": ("upperarm01.L",), "rightShoulder": ("upperarm01.R",),
    "leftElbow": ("lowerarm01.L",), "rightElbow": ("lowerarm01.R",),
    "leftWrist": ("wrist.L",), "rightWrist": ("wrist.R",),
    "leftPinky": ("finger5-1.L",), "rightPinky": ("finger5-1.R",),
    "leftIndex": ("finger2-1.L",), "rightIndex": ("finger2-1.R",),
    "leftThumb": ("finger1-2.L", "finger1-3.L"), "rightThumb": ("finger1-2.R", "finger1-3.R"),
    "leftHip": ("upperleg01.L",), "rightHip": ("upperleg01.R",),
    "leftKnee": ("lowerleg01.L",), "rightKnee": ("lowerleg01.R",),
    "leftAnkle": ("foot.L",), "rightAnkle": ("foot.R",),
    "leftHeel": (12410, 12421), "rightHeel": (5829, 5840),
    "leftFootIndex": (12724, 13101), "rightFootIndex": (6143, 6521),  # between the tips of the first two toes
}  # fmt: skip

_TABLES = {"anny": _ANNY}


class LandmarkMap(TensorStruct):
    """Landmarks, or other points, as weighted means of some vertices and of the joints of one body model."""

    vertex_ids: Int[Tensor, " k"]
    """The skin vertices that take part."""
    vertex_weights: Float[Tensor, "l k"]
    joint_weights: Float[Tensor, "l j"]

    def points(
        self, vertices: Float[Tensor, "*batch k 3"], joints: Float[Tensor, "*batch j 3"]
    ) -> Float[Tensor, "*batch l 3"]:
        """The landmarks of posed bodies, in the frame of the arguments.

        Args:
            vertices: The vertices ``vertex_ids``, in that order.
            joints: All joints of the model.
        """
        return self.vertex_weights @ vertices + self.joint_weights @ joints


def landmark_map(body: BodyModel) -> LandmarkMap:
    """How the landmarks follow from a body model's vertices and joints.

    Args:
        body: The whole body, not a subset of it.

    Raises:
        UserError: If nobody has said where the landmarks lie on this model.
    """
    if body.name not in _TABLES:
        raise UserError(f"no landmarks are known for the body model {body.name!r}; use one of {sorted(_TABLES)}")
    table = _TABLES[body.name]
    ids = sorted({source for sources in table.values() for source in sources if isinstance(source, int)})
    vertex_weights = body.weights.new_zeros(NUM_LANDMARKS, len(ids))
    joint_weights = body.weights.new_zeros(NUM_LANDMARKS, len(body.joint_names))
    for row, name in enumerate(LANDMARK_NAMES):
        for source in table[name]:
            share = 1 / len(table[name])
            if isinstance(source, int):
                vertex_weights[row, ids.index(source)] = share
            else:
                joint_weights[row, body.joint_names.index(source)] = share
    vertex_ids = torch.tensor(ids, device=body.weights.device)
    return LandmarkMap(vertex_ids=vertex_ids, vertex_weights=vertex_weights, joint_weights=joint_weights)


def landmark_points(posed: PosedBody, landmarks: LandmarkMap) -> Float[Tensor, "*batch l 3"]:
    """The landmarks of whole posed bodies, world frame, metres."""
    return landmarks.points(posed.vertices[..., landmarks.vertex_ids, :], posed.joints)
