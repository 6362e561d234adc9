import pytest
import torch

from humansplat.body.skinning import Skeleton, linear_blend_skinning
from humansplat.geometry.rotations import axis_angle_to_matrix

PARENTS = [-1, 0, 4, 0, 1, 4, 3]  # a child may stand before its parent


def random_pose(rng, batch):
    joints = torch.randn(*batch, len(PARENTS), 3, generator=rng, dtype=torch.float64)
    rotations = axis_angle_to_matrix(torch.randn(*batch, len(PARENTS), 3, generator=rng, dtype=torch.float64))
    return joints, rotations, torch.randn(*batch, 3, generator=rng, dtype=torch.float64)


def chain_by_hand(joints, rotations, translation, joint):
    """World motion of one joint by recursion: ``(rotation, position)``."""
    parent = PARENTS[joint]
    if parent < 0:
        return rotations[joint], translation
    rotation, position = chain_by_hand(joints, rotations, translation, parent)
    return rotation @ rotations[joint], position + rotation @ (joints[joint] - joints[parent])


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_every_joint_follows_its_chain(rng, batch):
    joints, rotations, translation = random_pose(rng, batch)
    turned, placed = Skeleton(PARENTS)(joints, rotations, translation)
    flat = zip(joints.reshape(-1, 7, 3), rotations.reshape(-1, 7, 3, 3), translation.reshape(-1, 3), strict=True)
    for index, person in enumerate(flat):
        for joint in range(len(PARENTS)):
            rotation, position = chain_by_hand(*person, joint)
            torch.testing.assert_close(turned.reshape(-1, 7, 3, 3)[index, joint], rotation)
            torch.testing.assert_close(placed.reshape(-1, 7, 3)[index, joint], position)


@pytest.mark.parametrize("parents", [[], [0, 0], [-1, -1], [-1, 2, 1]])
def test_what_is_no_tree_is_refused(parents):
    with pytest.raises(ValueError, match=r"root|hang"):
        Skeleton(parents)


def test_a_vertex_of_one_joint_moves_rigidly_with_it(rng):
    joints, rotations, translation = random_pose(rng, ())
    turned, placed = Skeleton(PARENTS)(joints, rotations, translation)
    weights = torch.eye(len(PARENTS), dtype=torch.float64)
    offsets = torch.randn(len(PARENTS), 3, generator=rng, dtype=torch.float64)
    skinned = linear_blend_skinning(joints + offsets, joints, turned, placed, weights)
    torch.testing.assert_close(skinned, placed + (turned @ offsets[..., None])[..., 0])


def test_a_turn_of_all_joints_together_moves_every_vertex_rigidly(rng):
    joints, rotations, translation = random_pose(rng, (2,))
    rotations[:, 1:] = torch.eye(3, dtype=torch.float64)
    turned, placed = Skeleton(PARENTS)(joints, rotations, translation)
    weights = torch.rand(5, len(PARENTS), generator=rng, dtype=torch.float64)
    weights /= weights.sum(-1, keepdim=True)
    rest = torch.randn(2, 5, 3, generator=rng, dtype=torch.float64)
    expected = (rest - joints[:, :1]) @ rotations[:, 0].mT + translation[:, None]
    torch.testing.assert_close(linear_blend_skinning(rest, joints, turned, placed, weights), expected)
