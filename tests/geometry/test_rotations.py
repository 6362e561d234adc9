import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from humansplat.geometry import rotations as rot

coordinate = st.floats(-4.0, 4.0, allow_nan=False, width=32)
vectors = st.tuples(coordinate, coordinate, coordinate)


def random_matrices(count):
    return torch.from_numpy(Rotation.random(count, random_state=np.random.default_rng(0)).as_matrix()).float()


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_axis_angle_agrees_with_scipy(vector):
    ours = rot.axis_angle_to_matrix(torch.tensor(vector, dtype=torch.float64))
    np.testing.assert_allclose(ours.numpy(), Rotation.from_rotvec(vector).as_matrix(), atol=1e-9)


def test_axis_angle_is_smooth_at_zero():
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rot.axis_angle_to_matrix, vector)
    torch.testing.assert_close(rot.axis_angle_to_matrix(torch.zeros(2, 3)), torch.eye(3).expand(2, 3, 3))


def test_the_two_branches_of_axis_angle_meet():
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    for angle in (0.9e-3, 1.1e-3):
        expected = Rotation.from_rotvec((angle * axis).numpy()).as_matrix()
        np.testing.assert_allclose(rot.axis_angle_to_matrix(angle * axis).numpy(), expected, atol=1e-12)


def test_skew_is_the_cross_product(rng):
    a, b = torch.randn(2, 5, 3, generator=rng)
    torch.testing.assert_close((rot.skew(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


def test_quaternions_agree_with_scipy(rng):
    quaternion = torch.randn(50, 4, generator=rng, dtype=torch.float64)
    expected = Rotation.from_quat(quaternion.numpy(), scalar_first=True).as_matrix()
    np.testing.assert_allclose(rot.quaternion_to_matrix(quaternion).numpy(), expected, atol=1e-12)


def test_matrix_to_quaternion_inverts_and_has_positive_w():
    matrix = random_matrices(200)
    quaternion = rot.matrix_to_quaternion(matrix)
    assert (quaternion[..., 0] >= 0).all()
    torch.testing.assert_close(rot.quaternion_to_matrix(quaternion), matrix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.0, 0.8]])
def test_half_turns_survive_every_form(axis):
    matrix = torch.from_numpy(Rotation.from_rotvec(math.pi * np.array(axis)).as_matrix()).float()
    torch.testing.assert_close(rot.quaternion_to_matrix(rot.matrix_to_quaternion(matrix)), matrix, atol=1e-5, rtol=0)
    torch.testing.assert_close(rot.axis_angle_to_matrix(rot.matrix_to_axis_angle(matrix)), matrix, atol=1e-5, rtol=0)


def test_matrix_to_axis_angle_inverts_below_half_a_turn(rng):
    vector = torch.randn(100, 3, generator=rng)
    vector = vector / vector.norm(dim=-1, keepdim=True) * torch.linspace(0.0, 3.1, 100)[:, None]
    torch.testing.assert_close(rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(vector)), vector, atol=2e-4, rtol=0)


def test_the_6d_form_inverts():
    matrix = random_matrices(50)
    torch.testing.assert_close(rot.rotation_6d_to_matrix(rot.matrix_to_rotation_6d(matrix)), matrix, atol=1e-5, rtol=0)


def test_any_six_numbers_give_a_rotation(rng):
    matrix = rot.rotation_6d_to_matrix(torch.randn(2, 30, 6, generator=rng))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).expand_as(matrix), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(2, 30), atol=1e-5, rtol=0)


def test_rotations_between_directions(rng):
    for a, b in torch.randn(20, 2, 3, generator=rng):
        turned = rot.rotation_between(a, b) @ a
        torch.testing.assert_close(turned / turned.norm(), b / b.norm(), atol=1e-5, rtol=0)
    for a in (torch.tensor([0.0, 1.0, 0.0]), torch.ones(3)):
        torch.testing.assert_close(rot.rotation_between(a, 2 * a), torch.eye(3))
        torch.testing.assert_close(rot.rotation_between(a, -2 * a) @ a, -a, atol=1e-5, rtol=0)
