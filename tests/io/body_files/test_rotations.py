import numpy as np
import pytest
import torch

from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion, matrix_to_rotation_6d
from humansplat.io.body_files.rotations import read_rotations


@pytest.fixture
def turns(rng):
    """Two people's joints, as in real poses mostly turned by less than a right angle."""
    return 0.5 * torch.randn(2, 21, 3, generator=rng)


def forms(turns):
    matrices = axis_angle_to_matrix(turns.double())
    quaternions = matrix_to_quaternion(matrices)
    return {
        "axis-angle": turns,
        "axis-angle, flat": turns.flatten(1),
        "matrices": matrices,
        "matrices, flat": matrices.flatten(1),
        "two columns": matrices[..., :2],
        "two columns, interleaved": matrices[..., :2].flatten(2),
        "two columns, one after the other": matrix_to_rotation_6d(matrices),
        "6D, flat": matrix_to_rotation_6d(matrices).flatten(1),
        "quaternions, scalar first": quaternions,
        "quaternions, scalar last": quaternions.roll(-1, dims=-1),
        "with another leading axis": matrices[:, None],
    }


@pytest.mark.parametrize("form", forms(torch.zeros(2, 21, 3)))
def test_every_form_is_read(form, turns):
    read = read_rotations(forms(turns)[form].numpy(), (21, 23), "pose")
    torch.testing.assert_close(axis_angle_to_matrix(read), axis_angle_to_matrix(turns), atol=1e-5, rtol=0)


def test_one_joint_may_lack_its_axis(turns):
    matrices = axis_angle_to_matrix(turns[:, 0])
    for array in (turns[:, 0], matrices, matrices[0], turns[0, 0], matrices[:, None]):
        read = read_rotations(array.numpy(), (1,), "root")
        assert read.shape[1:] == (1, 3)
        torch.testing.assert_close(read[0, 0], turns[0, 0], atol=1e-5, rtol=0)
    assert read_rotations(turns[0, :3].numpy(), (1,), "root").shape == (3, 1, 3)  # three people


def test_body_poses_of_both_sizes_are_told_apart():
    assert read_rotations(np.zeros((4, 63)), (21, 23), "pose").shape == (4, 21, 3)
    assert read_rotations(np.zeros((4, 69)), (21, 23), "pose").shape == (4, 23, 3)
    assert read_rotations(np.zeros(165), (22, 24, 52, 55), "pose").shape == (1, 55, 3)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((1, 70)), r"shape \(1, 70\); needed are 21 or 23 joints"),
        (np.full((1, 63), np.nan), "not finite"),
        (np.full((1, 63), 90.0), "turns a joint by 156 radians"),
        (np.zeros((1, 21, 3, 3)), "matrices that are not rotations"),
        (-np.eye(3)[None].repeat(21, axis=0), "matrices that are not rotations"),
        (np.ones((1, 21, 6)), "not two columns of a rotation"),
        (np.ones((1, 21, 4)), "not unit quaternions"),
        (np.full((1, 21, 4), 0.5), "whose order, scalar first or last, cannot be told"),
    ],
)
def test_what_is_no_rotation_is_refused(array, complaint):
    with pytest.raises(UserError, match=complaint):
        read_rotations(array, (21, 23), "pose")
