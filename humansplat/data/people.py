"""A batch of people as the training tasks see it, and the body's left-right symmetry."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.protocol import BodyModel
from humansplat.structures import Cameras, PosedBody, TensorStruct


class PeopleBatch(TensorStruct):
    """Pictures of ``b`` people. Straight alpha; what lies under alpha 0 is arbitrary."""

    images: Float[Tensor, "b v 4 h w"]
    """The first ``v`` views of the rig, sRGB and alpha in ``[0, 1]``; ``images[:, 0]`` is the photograph."""
    cameras: Cameras
    """All four views of the rig, ``[b, 4]``, whatever ``v`` is."""
    targets: Float[Tensor, "b t 4 h w"]
    """Pictures to be matched, sRGB and alpha in ``[0, 1]``."""
    target_cameras: Cameras
    """``[b, t]``."""
    body: PosedBody
    """True body, ``[b]``; ``parameters`` holds the model's own, one row a person."""
    people: Int[Tensor, " b"]
    """Places in the pool."""
    mirrored: Bool[Tensor, " b"] | None = None
    """Whose left and right were swapped; ``None``: nobody's."""
    latents: Float[Tensor, "b v c g g2"] | None = None
    """Of ``images``, if they were kept (``training.kept_latents``)."""


class BodyTemplate(TensorStruct):
    """What all bodies of one model share."""

    canonical: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    parts: Int[Tensor, " v"]
    mirrored_vertices: Int[Tensor, " v"]
    """For each vertex its counterpart on the other side."""
    mirrored_joints: Int[Tensor, " j"]
    """For each joint its counterpart on the other side."""
    model: str = "anny"
    gender: str | None = None

    def body(self) -> PosedBody:
        """The rest pose of the mean adult, for readers that want any body of the model; it has no joints."""
        return self.posed(self.canonical, self.canonical[:0])

    def posed(
        self,
        vertices: Float[Tensor, "*b v 3"],
        joints: Float[Tensor, "*b j 3"],
        parameters: dict[str, Tensor] | None = None,
    ) -> PosedBody:
        """Bodies of the model from what they do not share."""
        return PosedBody(
            vertices=vertices,
            joints=joints,
            canonical=self.canonical,
            faces=self.faces,
            parts=self.parts,
            model=self.model,
            gender=self.gender,
            parameters=parameters,
        )

    @staticmethod
    def of(body: BodyModel) -> "BodyTemplate":
        """Take the shared parts of a body model and find its symmetry."""
        return BodyTemplate(
            canonical=body.canonical.detach(),
            faces=body.faces,
            parts=body.parts,
            mirrored_vertices=mirrored_vertices(body.canonical.detach()),
            mirrored_joints=mirrored_joints(body.joint_names),
            model=body.name,
            gender=body.pose({}).gender,
        )


def mirrored_vertices(canonical: Float[Tensor, "v 3"]) -> Int[Tensor, " v"]:
    """For each vertex the one nearest to its mirror image across the plane ``x = 0``."""
    points = canonical.double().cpu().numpy()
    _, nearest = cKDTree(points).query(points * [-1.0, 1.0, 1.0])
    return torch.from_numpy(nearest.astype(np.int64)).to(canonical.device)


def mirrored_joints(names: tuple[str, ...]) -> Int[Tensor, " j"]:
    """For each joint the one of the same name on the other side; joints without a side stay.

    Sides are ``.L``/``.R`` endings or the words left and right in any of the usual spellings.

    Raises:
        ValueError: If a name with a side has no counterpart.
    """
    places = {name: place for place, name in enumerate(names)}
    try:
        return torch.tensor([places[_other_side(name)] for name in names])
    except KeyError as error:
        raise ValueError(f"no joint is named {error}, so the skeleton is not symmetric") from error


def _other_side(name: str) -> str:
    for left, right in ((".L", ".R"), ("_l", "_r"), ("_L", "_R")):
        if name.endswith(left):
            return name.removesuffix(left) + right
        if name.endswith(right):
            return name.removesuffix(right) + left
    for left, right in (("left", "right"), ("Left", "Right")):
        if left in name:
            return name.replace(left, right)
        if right in name:
            return name.replace(right, left)
    return name
