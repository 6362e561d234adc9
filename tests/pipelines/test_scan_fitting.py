"""Scans of known bodies, fitted: from a start that is off, and from nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.body.scan_check import checked_vertices
from humansplat.capture.graph import graph_path
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.pipelines.scan_fitting import ScanFitter, judged, scan_surface
from humansplat.pipelines.scan_views import merged_points
from humansplat.pipelines.weights import shipped_lifter
from humansplat.render.shaded_mesh import ShadedMesh

YAW = 2.0


@pytest.fixture(scope="module")
def fitter():
    return ScanFitter()


@pytest.fixture(scope="module")
def true(fitter):
    """Somebody who walks to the right, two metres off the origin."""
    parameters = fitter.base.neutral()
    index = fitter.base.joint_names.index
    parameters["rotations"][0] = torch.tensor([0.0, YAW, 0.0])
    parameters["rotations"][index("upperleg01.L")] = torch.tensor([-0.4, 0.0, 0.0])
    parameters["rotations"][index("upperarm01.R")] = torch.tensor([-0.3, 0.0, 0.3])
    parameters["translation"] += torch.tensor([2.0, 0.5, -1.0])
    return fitter.base.pose(parameters)


@pytest.fixture(scope="module")
def meshes(true):
    return [ShadedMesh(vertices=true.vertices.numpy(), faces=true.faces.numpy(), color=(0.6, 0.4, 0.3))]


def error(fit, true):
    return float((fit.body.vertices - true.vertices).norm(dim=-1).mean())


def test_a_start_is_brought_onto_the_scan(fitter, true, meshes):
    off = {name: values.clone() for name, values in true.parameters.items()}
    turn = axis_angle_to_matrix(torch.tensor([0.0, 0.1, 0.05])) @ axis_angle_to_matrix(off["rotations"][0])
    off["rotations"][0] = matrix_to_axis_angle(turn)
    off["translation"] += torch.tensor([0.02, 0.0, 0.02])
    start = fitter.base.pose(off)
    fit = fitter(meshes, start=start)
    assert float((start.vertices - true.vertices).norm(dim=-1).mean()) > 0.03
    assert error(fit, true) < 0.006
    assert fit.flags == ()
    assert fit.outside == 0
    assert abs(fit.facing - YAW) < 0.1


@pytest.mark.skipif(not graph_path().exists(), reason="the pose graph is not in the cache")
@pytest.mark.skipif(not shipped_lifter("anny").exists(), reason="the lifter's weights are not there")
def test_a_scan_is_fitted_from_nothing(fitter, true, meshes):
    pytest.importorskip("ai_edge_litert")
    fit = fitter(meshes)
    assert error(fit, true) < 0.02
    assert fit.coverage == 1
    assert abs(math.remainder(fit.facing - YAW, 2 * math.pi)) < 0.15


def test_a_body_that_sticks_out_is_flagged(fitter, true, meshes):
    checked = checked_vertices(true)
    shifted = replace(true, vertices=true.vertices + torch.tensor([0.0, 0.0, 0.1]))
    right, wrong = (judged(body, scan_surface(meshes)[0], checked, 0.01, ()) for body in (true, shifted))
    assert right.flags == ()
    assert right.outside == 0
    assert wrong.flags
    assert wrong.outside > 0.2


def test_starts_of_other_models_are_refused(fitter, true, meshes, smpl_folder):
    start = load_body_model("smpl", folder=smpl_folder).pose({})
    with pytest.raises(UserError, match="'smpl'"):
        fitter(meshes, start=start)


@pytest.mark.parametrize(("scale", "height"), [(1000.0, r"e\+03 m high"), (0.01, r"0\.01\d* m high")])
def test_scans_in_other_units_are_refused(meshes, scale, height):
    scaled = ShadedMesh(vertices=(scale * meshes[0].vertices).astype(np.float32), faces=meshes[0].faces)
    with pytest.raises(UserError, match=height):
        scan_surface([scaled])


def test_no_mesh_is_refused():
    with pytest.raises(UserError, match="no mesh"):
        scan_surface([])


def test_a_scan_that_no_camera_sees_is_refused():
    with pytest.raises(UserError, match="sees its surface"):
        merged_points([torch.zeros(0, 7)])
