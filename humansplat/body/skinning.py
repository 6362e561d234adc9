"""Forward kinematics and linear blend skinning, batched and differentiable, for any skeleton."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Skeleton(nn.Module):
    """A tree of joints; poses are computed in as many rounds as the number of its levels has binary digits."""

    parents: Int[Tensor, " j"]
    _order: Int[Tensor, " j"]
    _rank: Int[Tensor, " j"]
    _bottom: Float[Tensor, "1 4"]

    def __init__(self, parents: Sequence[int]) -> None:
        """Sort the joints by depth.

        Args:
            parents: Parent of each joint; -1 marks the root, which is joint 0.

        Raises:
            ValueError: If joint 0 is not the only root, or a joint does not hang from it.
        """
        super().__init__()
        if not parents or parents[0] != -1 or any(parent < 0 for parent in parents[1:]):
            raise ValueError(f"joint 0 must be the only root (-1), got parents {list(parents[:4])}...")
        depths = [0] + [-1] * (len(parents) - 1)
        order, level = [0], [0]
        while level:
            above = set(level)
            level = [joint for joint, parent in enumerate(parents) if parent in above]
            order += level
            for joint in level:
                depths[joint] = depths[parents[joint]] + 1
        if len(order) < len(parents):
            raise ValueError(f"joint {min(set(range(len(parents))) - set(order))} does not hang from the root")
        self.register_buffer("parents", torch.tensor([0, *parents[1:]]), persistent=False)
        self.register_buffer("_order", torch.tensor(order), persistent=False)
        self.register_buffer("_rank", torch.argsort(torch.tensor(order)), persistent=False)
        self.register_buffer("_bottom", torch.tensor([[0.0, 0.0, 0.0, 1.0]]), persistent=False)
        self._num_rounds = max(depths).bit_length()
        place = {joint: index for index, joint in enumerate(order)}
        ancestors = {joint: parents[joint] for joint in order[1:]}
        for number in range(self._num_rounds):
            rest = [joint for joint in order if depths[joint] >= 2**number]  # the last of the order
            indices = torch.tensor([place[ancestors[joint]] for joint in rest])
            self.register_buffer(f"_above_{number}", indices, persistent=False)
            ancestors = {j: ancestors[ancestors[j]] for j in rest if depths[j] >= 2 ** (number + 1)}

    def forward(
        self,
        rest_joints: Float[Tensor, "*batch j 3"],
        rotations: Float[Tensor, "*batch j 3 3"],
        translation: Float[Tensor, "*batch 3"],
    ) -> tuple[Float[Tensor, "*batch j 3 3"], Float[Tensor, "*batch j 3"]]:
        """Turn every joint by its own rotation and then by its parents', from the leaves to the root.

        Each rotation acts in axes that are parallel to the world's while the body is at rest. The
        root joint lands on ``translation``.

        Args:
            rest_joints: Joint positions of the rest pose, metres.
            rotations: Rotation of each joint relative to its parent.
            translation: World position of the root joint, metres.

        Returns:
            World rotation of each joint, relative to the rest pose, and its world position.
        """
        offsets = rest_joints - rest_joints[..., self.parents, :]
        offsets = torch.cat([translation[..., None, :], offsets[..., 1:, :]], dim=-2)
        moved = torch.cat([rotations, offsets[..., None]], dim=-1)[..., self._order, :, :]  # [*b, j, 3, 4]
        moved = torch.cat([moved, self._bottom.to(moved).expand(*moved.shape[:-2], 1, 4)], dim=-2)
        # Each round doubles the stretch of the chain to the root that a joint's motion covers.
        for number in range(self._num_rounds):
            above: Tensor = getattr(self, f"_above_{number}")
            done = moved.shape[-3] - len(above)
            moved = torch.cat([moved[..., :done, :, :], moved[..., above, :, :] @ moved[..., done:, :, :]], dim=-3)
        posed = moved[..., self._rank, :, :]
        return posed[..., :3, :3], posed[..., :3, 3]


def linear_blend_skinning(
    rest_vertices: Float[Tensor, "*batch v 3"],
    rest_joints: Float[Tensor, "*batch j 3"],
    joint_rotations: Float[Tensor, "*batch j 3 3"],
    joint_positions: Float[Tensor, "*batch j 3"],
    weights: Float[Tensor, "v j"],
) -> Float[Tensor, "*batch v 3"]:
    """Move each vertex by the weighted mean of its joints' rigid motions.

    One dense product mixes the motions: with a few hundred joints it beats gathering the few
    that act on each vertex.

    Args:
        rest_vertices: Surface of the rest pose, metres.
        rest_joints: Joints of the rest pose, metres.
        joint_rotations: World rotations that ``Skeleton`` returns.
        joint_positions: World positions that ``Skeleton`` returns.
        weights: Non-negative, each row sums to 1.
    """
    shift = joint_positions - (joint_rotations @ rest_joints[..., None])[..., 0]
    motions = torch.cat([joint_rotations, shift[..., None]], dim=-1)
    blended = (weights @ motions.flatten(-2)).unflatten(-1, (3, 4))  # [*b, v, 3, 4]
    return (blended[..., :3] @ rest_vertices[..., None])[..., 0] + blended[..., 3]
