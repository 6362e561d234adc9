"""Forward kinematics and linear blend skinning, batched and differentiable, for any skeleton."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Skeleton(nn.Module):
    """A tree of joints; poses are computed in as many rounds as the number of its levels has binary digits."""

    parents: Int[Tensor, " j"]
    _ancestors: Int[Tensor, "rounds j1"]
    _identity: Float[Tensor, "4 4"]

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
        depths, level = [0] + [-1] * (len(parents) - 1), [0]
        while level:
            above = set(level)
            level = [joint for joint, parent in enumerate(parents) if parent in above]
            for joint in level:
                depths[joint] = depths[parents[joint]] + 1
        if -1 in depths:
            raise ValueError(f"joint {depths.index(-1)} does not hang from the root")
        self.register_buffer("parents", torch.tensor([0, *parents[1:]]), persistent=False)
        nothing = len(parents)  # one more place stands for what is above the root: no motion
        ancestors, rounds = torch.tensor([nothing, *parents[1:], nothing]), []
        for _ in range(max(depths).bit_length()):
            rounds.append(ancestors)
            ancestors = ancestors[ancestors]
        self.register_buffer("_ancestors", torch.stack(rounds) if rounds else ancestors[:0, None], persistent=False)
        self.register_buffer("_identity", torch.eye(4), persistent=False)

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
        moved = torch.cat([rotations, offsets[..., None]], dim=-1)  # [*b, j, 3, 4]
        identity = self._identity.to(moved).expand(*moved.shape[:-3], 1, 4, 4)
        bottom = identity[..., 3:, :].expand(*moved.shape[:-2], 1, 4)
        moved = torch.cat([torch.cat([moved, bottom], dim=-2), identity], dim=-3)
        # Each round doubles the stretch of the chain to the root that a joint's motion covers.
        for ancestors in self._ancestors:
            moved = moved[..., ancestors, :, :] @ moved
        return moved[..., :-1, :3, :3], moved[..., :-1, :3, 3]


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
