"""The body model as a fit sees it: thirty joints, a few hundred points, shape linearised.

Made from any model that poses itself by linear blend skinning. Joints that the fit does not turn move rigidly
with the nearest ancestor that it does turn, so their skinning weights are added to that one's: exact. Relaxed
fingers are part of the rest points.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.protocol import BodyModel
from humansplat.body.skinning import Skeleton, linear_blend_skinning
from humansplat.geometry.rotations import skew

SHAPE_STEP = 0.05
"""Step of the central differences by which the rest shape is linearised, in units of a phenotype."""


class ReducedRig:
    """Skinning of chosen points by the joints that a fit turns.

    Args:
        model: The whole model.
        moving: Names of the joints that turn; the root always does.
        joint_ids: Joints to be points.
        vertex_ids: Vertices to be points after the joints.
        rest_rotations: Rotations of all joints that count as rest (relaxed fingers).
    """

    def __init__(
        self,
        model: BodyModel,
        moving: set[str],
        joint_ids: Int[Tensor, " k"],
        vertex_ids: Int[Tensor, " n"],
        rest_rotations: Float[Tensor, "j 3"],
    ) -> None:
        names = model.joint_names
        self.joint_ids = torch.tensor([i for i, name in enumerate(names) if i == 0 or name in moving])
        self.joint_names = [names[i] for i in self.joint_ids.tolist()]
        owner, parents = _owners(list(model.joint_parents), self.joint_ids.tolist())
        self.skeleton = Skeleton(parents)
        self.parents = torch.tensor([0, *parents[1:]])
        self.carries = _carries(parents)
        everything = torch.cat([torch.eye(len(names))[joint_ids], model.weights[vertex_ids]])
        merged = torch.zeros(len(everything), len(self.joint_ids))
        self.weights = merged.index_add(1, torch.tensor(owner), everything)
        self.point_joints = joint_ids
        self._rest_rotations = rest_rotations
        self._model = model.subset(vertex_ids)

    def rest(self, phenotypes: Float[Tensor, "*b p"]) -> tuple[Float[Tensor, "*b n 3"], Float[Tensor, "*b j 3"]]:
        """Points and moving joints of the rest pose, the root joint at the origin."""
        rotations = self._rest_rotations.expand(*phenotypes.shape[:-1], *self._rest_rotations.shape)
        body = self._model.pose({"phenotypes": phenotypes, "rotations": rotations})
        root = body.joints[..., :1, :]
        points = torch.cat([body.joints[..., self.point_joints, :], body.vertices], dim=-2)
        return points - root, body.joints[..., self.joint_ids, :] - root

    def linearised(
        self, phenotypes: Float[Tensor, "h p"], free: Int[Tensor, " q"]
    ) -> tuple[Float[Tensor, "h m 3"], Float[Tensor, "h m 3 q"]]:
        """Points and joints at rest, one after the other, and their derivatives by the free phenotypes."""
        steps = SHAPE_STEP * torch.eye(phenotypes.shape[-1])[free]
        # Where a phenotype is at an end of its range the difference is one-sided.
        ahead, behind = ((phenotypes[:, None] + sign * steps).clamp(0, 1) for sign in (1, -1))
        samples = torch.cat([phenotypes[:, None], ahead, behind], dim=1)
        rest = torch.cat(self.rest(samples), dim=-2)  # [h, 1 + 2q, m, 3]
        center, plus, minus = rest.split([1, len(free), len(free)], dim=1)
        width = (ahead - behind).sum(dim=-1)[..., None, None]
        return center[:, 0], ((plus - minus) / width).movedim(1, -1)

    def place(
        self,
        rest: Float[Tensor, "*b m 3"],
        rotations: Float[Tensor, "*b j 3 3"],
        translation: Float[Tensor, "*b 3"],
    ) -> Float[Tensor, "*b n 3"]:
        """Pose the points; linear in ``rest`` and ``translation`` together.

        Args:
            rest: Points and moving joints at rest, as ``linearised`` gives them.
            rotations: Local rotations of the moving joints, the root's first.
            translation: Where the root joint goes.
        """
        points, joints = rest.split([len(self.weights), len(self.joint_ids)], dim=-2)
        turned, placed = self.skeleton(joints, rotations, translation)
        return linear_blend_skinning(points, joints, turned, placed, self.weights)

    def point_velocities(
        self,
        rest: Float[Tensor, "h m 3"],
        rotations: Float[Tensor, "h j 3 3"],
        translation: Float[Tensor, "h 3"],
        spins: Float[Tensor, "h j 3 d"],
    ) -> Float[Tensor, "h n 3 d"]:
        """Derivatives of ``place`` by angles.

        A joint that spins carries its subtree about itself: each point moves by ``spin x (part of it that the
        subtree carries, from the joint)``, summed over the joints.

        Args:
            rest: As for ``place``.
            rotations: As for ``place``.
            translation: As for ``place``.
            spins: Angular velocity of each joint against its parent, in the parent's frame, by each angle.
        """
        points, joints = rest.split([len(self.weights), len(self.joint_ids)], dim=-2)
        turned, placed = self.skeleton(joints, rotations, translation)
        above = turned[:, self.parents].clone()
        above[:, 0] = torch.eye(3)
        spins = above @ spins
        shift = placed - (turned @ joints[..., None])[..., 0]
        carried = torch.einsum("hkab,hnb->hnka", turned, points) + shift[:, None]
        carried = torch.einsum("hnka,nk,kj->hnja", carried, self.weights, self.carries)
        arms = carried - (self.weights @ self.carries)[:, :, None] * placed[:, None]
        crosses = skew(spins.mT).permute(0, 1, 4, 3, 2)  # [h, j, from, to, d]
        moved = arms.flatten(2) @ crosses.reshape(len(crosses), -1, 3 * spins.shape[-1])
        return moved.unflatten(-1, (3, -1))

    def rates(
        self,
        rest: Float[Tensor, "h m 3"],
        rest_by_shape: Float[Tensor, "h m 3 q"],
        rotations: Float[Tensor, "h j 3 3"],
        translation: Float[Tensor, "h 3"],
        spins: Float[Tensor, "h j 3 d"],
        by_place: Float[Tensor, "#h 3 3"],
    ) -> Float[Tensor, "h n 3 e"]:
        """Derivatives of ``place`` by the first three spins, the place, the other spins, and the shape.

        Args:
            rest: As for ``place``.
            rest_by_shape: See ``linearised``.
            rotations: As for ``place``.
            translation: As for ``place``.
            spins: As for ``point_velocities``; the first three turn the root.
            by_place: Derivatives of the translation by the three unknowns that tell it.
        """
        turned = self.point_velocities(rest, rotations, translation, spins)
        by_shape = rest_by_shape.movedim(-1, 1)  # posing is linear in the rest shape
        turns = rotations[:, None].expand(-1, by_shape.shape[1], -1, -1, -1)
        shaped = self.place(by_shape, turns, by_shape.new_zeros(*by_shape.shape[:2], 3)).movedim(1, -1)
        shifted = by_place[:, None].expand(*turned.shape[:2], 3, 3)
        return torch.cat([turned[..., :3], shifted, turned[..., 3:], shaped], dim=-1)


def _carries(parents: list[int]) -> Float[Tensor, "j j"]:
    """Entry ``(k, j)`` is 1 when joint ``k`` is joint ``j`` or hangs from it."""
    carries = torch.eye(len(parents))
    for joint, parent in enumerate(parents):
        if parent >= 0:
            carries[joint] += carries[parent]
    return carries


def _owners(parents: list[int], moving: list[int]) -> tuple[list[int], list[int]]:
    """Which moving joint (by its place among them) carries each joint, and the parent of each moving joint."""
    place = {joint: k for k, joint in enumerate(moving)}
    owner: list[int] = []
    moving_parents: list[int] = []
    for joint, parent in enumerate(parents):
        above = owner[parent] if joint else -1
        owner.append(place.get(joint, above))
        if joint in place:
            moving_parents.append(above)
    return owner, moving_parents
