"""One record for the bodies of all estimators, and the cameras that they speak of."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.structures import PosedBody, TensorStruct

Family = Literal["smpl", "smplh", "smplx", "mhr", "anny", "mesh"]
Gender = Literal["neutral", "male", "female"]
Placement = Literal["smpl", "root", "origin"]
Frame = Literal["camera", "world", "y_up", "z_up", "unknown"]

NUM_BODY_JOINTS = {"smpl": 23, "smplh": 21, "smplx": 21}
"""Joints of the trunk and the limbs, without the root."""
SKELETONS: dict[str, dict[str, slice]] = {
    "smpl": {"root": slice(0, 1), "body": slice(1, 24)},
    "smplh": {"root": slice(0, 1), "body": slice(1, 22), "left hand": slice(22, 37), "right hand": slice(37, 52)},
    "smplx": {
        "root": slice(0, 1), "body": slice(1, 22), "jaw": slice(22, 23), "left eye": slice(23, 24),
        "right eye": slice(24, 25), "left hand": slice(25, 40), "right hand": slice(40, 55),
    },
}  # fmt: skip
"""Where each group of joints stands in the order of the family's skeleton."""
NUM_JOINTS = {"smpl": 24, "smplh": 52, "smplx": 55}


class PinholeCamera(TensorStruct):
    """Full perspective, in pixels of the photo."""

    K: Float[Tensor, "3 3"]
    """Intrinsics; pixel centres at +0.5."""


class FocalCamera(TensorStruct):
    """Focal lengths and principal point, in pixels of the photo."""

    focal: Float[Tensor, "2"]
    principal: Float[Tensor, "2"] | None = None
    """``None`` is the centre of the photo, whose size the file may not know."""


class WeakCamera(TensorStruct):
    """Weak perspective in a square crop: ``(x, y)`` of the body shows at ``scale * (x + shift)`` in [-1, 1]."""

    scale: float
    shift: Float[Tensor, "2"]
    """Metres."""
    center: Float[Tensor, "2"]
    """Of the crop, pixels of the photo."""
    side: float
    """Of the crop, pixels of the photo."""


FileCamera: TypeAlias = PinholeCamera | FocalCamera | WeakCamera


class BodyRecord(TensorStruct):
    """One person of one file. Metres and radians; rotations are relative to the parent joint.

    Either ``rotations`` or ``vertices`` is there, or ``posed`` for a file of this library.
    """

    source: str
    """What messages call it: file and person."""
    format: str
    family: Family
    gender: Gender = "neutral"
    person: int = 0
    num_people: int = 1
    """People, or frames, that the file holds."""
    betas: Float[Tensor, " s"] | None = None
    expression: Float[Tensor, " e"] | None = None
    rotations: Float[Tensor, "j 3"] | None = None
    """Axis times angle of every joint of the family's skeleton (:data:`SKELETONS`); zero where missing."""
    missing: tuple[str, ...] = ()
    """What the file does not say: groups of joints (left at rest), ``betas``, ``gender`` and so on."""
    left_hand_pca: Float[Tensor, " k"] | None = None
    """Coefficients of the model's own hand components, in place of rotations."""
    right_hand_pca: Float[Tensor, " k"] | None = None
    adds_mean_hand: bool = False
    """Whether the hands are offsets from the model's relaxed hand rather than from the flat one."""
    translation: Float[Tensor, "3"] | None = None
    placement: Placement = "smpl"
    """``smpl``: turned about the root joint, then shifted by the translation. ``root``: the root joint lies at
    the translation. ``origin``: turned about the model's origin, then shifted (EasyMocap)."""
    scale: float = 1.0
    """Factor on the body before it is shifted."""
    frame: Frame = "camera"
    """Of the body: the camera's (x right, y down, z ahead), the world of ``viewmat``, a world
    with that axis up and no camera, or not known."""
    camera: FileCamera | None = None
    viewmat: Float[Tensor, "4 4"] | None = None
    """World -> camera, where ``frame`` is ``world``."""
    image_size: tuple[int, int] | None = None
    """Width and height of the picture that the camera's pixels belong to."""
    vertices: Float[Tensor, "v 3"] | None = None
    faces: Int[Tensor, "f 3"] | None = None
    torso: Float[Tensor, "4 3"] | None = None
    """Left hip, right hip, left shoulder and right shoulder of a body that is known by its vertices."""
    root: Float[Tensor, "3"] | None = None
    """Pelvis of a body that is known by its vertices."""
    posed: PosedBody | None = None
    warnings: tuple[str, ...] = ()
    """Sentences about what was left out or supposed."""


@dataclass
class Rotations:
    """Groups of joints while they are gathered; ``Rotations.of`` a family is its skeleton's."""

    groups: dict[str, Float[Tensor, "n k 3"]] = field(default_factory=dict)

    def of(self, family: str, person: int) -> tuple[Float[Tensor, "j 3"], tuple[str, ...]]:
        """The rotations of one person in the order of a family, and the groups that are missing.

        SMPL's two hand joints are dropped for, or left at rest from, families whose hands have fingers.
        """
        rotations = torch.zeros(NUM_JOINTS[family], 3)
        missing = []
        for name, place in SKELETONS[family].items():
            if name not in self.groups:
                missing.append(name)
                continue
            stack = self.groups[name]
            given = stack[min(person, len(stack) - 1)]
            count = min(len(given), place.stop - place.start)
            rotations[place.start : place.start + count] = given[:count]
        return rotations, tuple(missing)
