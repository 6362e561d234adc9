import pytest
import torch

from humansplat.body.fit_freedoms import all_freedoms
from humansplat.body.fit_rig import ReducedRig
from humansplat.geometry.rotations import axis_angle_to_matrix

MOVING = {joint for freedom in all_freedoms() for joint, _ in freedom.shares}


@pytest.fixture(scope="module")
def rig(body):
    vertex_ids = torch.arange(0, len(body.canonical), 900)
    return ReducedRig(body, MOVING, torch.tensor([5, 60, 140]), vertex_ids, torch.zeros(len(body.joint_names), 3))


def random_pose(rig, rng, batch=2):
    vectors = 0.6 * torch.randn(batch, len(rig.joint_ids), 3, generator=rng)
    return vectors, axis_angle_to_matrix(vectors), torch.randn(batch, 3, generator=rng)


def test_placed_points_are_those_of_the_whole_model(body, rig, rng):
    vectors, rotations, translation = random_pose(rig, rng)
    phenotypes = torch.rand(2, len(body.phenotype_names), generator=rng)
    whole = torch.zeros(2, len(body.joint_names), 3)
    whole[:, rig.joint_ids] = vectors
    posed = body(phenotypes, whole, translation)
    expected = torch.cat([posed.joints[:, [5, 60, 140]], posed.vertices[:, ::900]], dim=1)
    placed = rig.place(torch.cat(rig.rest(phenotypes), dim=1), rotations, translation)
    torch.testing.assert_close(placed, expected, atol=1e-5, rtol=0)


def test_point_velocities_are_the_derivative_of_place(body, rig, rng):
    _, rotations, translation = random_pose(rig, rng)
    rest = torch.cat(rig.rest(body.neutral(2)["phenotypes"]), dim=1)
    spins = torch.randn(2, len(rig.joint_ids), 3, 2, generator=rng)
    velocities = rig.point_velocities(rest, rotations, translation, spins)
    step = 1e-3
    for column in range(2):
        ahead, behind = (axis_angle_to_matrix(sign * step * spins[..., column]) @ rotations for sign in (1, -1))
        numeric = (rig.place(rest, ahead, translation) - rig.place(rest, behind, translation)) / (2 * step)
        torch.testing.assert_close(velocities[..., column], numeric, atol=3e-3, rtol=1e-3)


def test_the_linearised_shape_is_exact_nearby(body, rig):
    free = torch.tensor([body.phenotype_names.index(name) for name in ("weight", "height")])
    phenotypes = body.neutral(1)["phenotypes"].clone()
    rest, rates = rig.linearised(phenotypes, free)
    change = torch.tensor([0.03, -0.02])
    phenotypes[:, free] += change
    expected = torch.cat(rig.rest(phenotypes), dim=1)
    torch.testing.assert_close(rest + rates @ change, expected, atol=2e-3, rtol=0)
    assert rates[..., 1].abs().max() > 0.1  # metres a unit of height
