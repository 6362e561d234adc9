"""Units and axes: what is told from the numbers, what from the pictures, and what is refused."""

import numpy as np
import pytest
import torch
import toy_scans
from numpy.testing import assert_allclose

from humansplat.data.scans.layouts import UPS, Up
from humansplat.data.scans.orientation import given_unit, seen_up, to_y_up, unit_of, up_by_extent
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh

STANDING = np.array([[-0.4, 0.0, -0.1], [0.4, 1.7, 0.2]])


@pytest.mark.parametrize(("factor", "metres"), [(1, 1.0), (0.5, 1.0), (100, 0.01), (60, 0.01), (1000, 0.001)])
def test_heights_tell_units(factor: float, metres: float):
    assert unit_of(factor * STANDING, "y", "scan") == metres
    assert unit_of(factor * STANDING @ to_y_up("z"), "z", "scan") == metres


@pytest.mark.parametrize("size", [0.01, 0.3, 4.0, 17.0, 1e4])
def test_other_heights_are_refused(size: float):
    with pytest.raises(UserError, match="--unit"):
        unit_of(size / 1.7 * STANDING, "y", "scan")


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_normalised_scans_are_refused(size: float):
    with pytest.raises(UserError, match="size was lost"):
        unit_of(size / 1.7 * STANDING, "y", "scan")


def test_units_can_be_given():
    assert [given_unit(unit) for unit in ("auto", "m", "cm", "mm", "0.0254")] == [None, 1.0, 0.01, 0.001, 0.0254]
    for wrong in ("inch", "0", "-1", "nan", ""):
        with pytest.raises(UserError, match="unit is"):
            given_unit(wrong)


def test_axes_are_rotations_that_take_up_to_y():
    for up in UPS:
        turn = to_y_up(up)
        assert_allclose(turn @ turn.T, np.eye(3))
        assert np.linalg.det(turn) == pytest.approx(1.0)
        axis = np.eye(3)["xyz".index(up[0])] * (-1 if up.endswith("down") else 1)
        assert_allclose(turn @ axis, [0, 1, 0])
    assert up_by_extent(STANDING) == "y"
    assert up_by_extent(STANDING[:, [0, 2, 1]]) == "z"
    assert up_by_extent(STANDING * [1, 0.2, 1]) is None


@pytest.mark.parametrize("up", UPS)
def test_the_axis_along_which_somebody_is_seen_is_chosen(up: Up):
    vertices, faces, _, _ = toy_scans.surface()
    mesh = ShadedMesh(vertices=vertices @ to_y_up(up), faces=faces)

    def detect(rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sees people whose legs are in the lower half: the picture is narrower there than at the arms."""
        covered = rgba[:, 3] > 0.5
        rows = covered.sum(dim=2)
        tall = covered.any(dim=2).sum(dim=1) > 1.1 * covered.any(dim=1).sum(dim=1)
        upper = rows[:, : rows.shape[1] // 2].amax(dim=1) > rows[:, rows.shape[1] // 2 :].amax(dim=1)
        landmarks = torch.zeros(len(rgba), 33, 2)
        landmarks[:, 25:, 1] = 200.0
        return landmarks, torch.ones(len(rgba), 33), (tall & upper).float()

    assert seen_up([mesh], mesh.vertices, "y", detect) == up


def test_nobody_is_seen_in_a_ball():
    vertices, faces, _, _ = toy_scans.surface()
    mesh = ShadedMesh(vertices=vertices, faces=faces)

    def detect(rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.zeros(len(rgba), 33, 2), torch.zeros(len(rgba), 33), torch.zeros(len(rgba))

    assert seen_up([mesh], vertices, "y", detect) is None
