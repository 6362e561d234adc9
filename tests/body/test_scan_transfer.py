"""SMPL and its family in the place of another body of the same skin."""

import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.models import load_body_model
from humansplat.body.scan_surface_terms import SurfaceTarget, vertex_normals
from humansplat.body.scan_transfer import check_model, kabsch, transfer
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix


@pytest.mark.parametrize("name", ["smpl", "smplh", "smplx"])
def test_a_posed_body_comes_back(smpl_folder, rng, name):
    model = load_body_model(name, folder=smpl_folder)
    parameters = model.neutral()
    parameters["global_orient"] = torch.tensor([0.1, 2.8, 0.0])
    parameters["body_pose"] = 0.25 * torch.randn(parameters["body_pose"].shape, generator=rng)
    parameters["betas"] = torch.randn(parameters["betas"].shape, generator=rng)
    parameters["betas"][10:] = 0.0
    parameters["transl"] = torch.tensor([1.0, 0.5, -3.0])
    true = model.pose(parameters)
    found = transfer(model, true)
    assert found.model == name
    assert (found.vertices - true.vertices).norm(dim=-1).mean() < 0.006
    assert (found.joints - true.joints).norm(dim=-1).mean() < 0.01
    again = model.pose(found.parameters)
    assert torch.allclose(again.vertices, found.vertices, atol=1e-5)


def test_the_surface_draws_it(smpl_folder):
    model = load_body_model("smpl", folder=smpl_folder)
    true = model.pose({})
    target = SurfaceTarget(true.vertices, vertex_normals(true.vertices, true.faces))
    assert (transfer(model, true, target).vertices - true.vertices).norm(dim=-1).mean() < 0.006


def test_the_default_body_is_followed(body, smpl_folder):
    parameters = body.neutral()
    parameters["rotations"][0, 1] = -1.2
    posed = body.pose(parameters)
    found = transfer(load_body_model("smplx", folder=smpl_folder), posed)
    assert (found.vertices.mean(dim=0) - posed.joints.mean(dim=0)).norm() < 0.3
    left = [found.joints[model_joint] for model_joint in (1, 2)]  # the hips
    true = [posed.joints[body.joint_names.index(f"upperleg01.{side}")] for side in "LR"]
    assert torch.cosine_similarity(left[0] - left[1], true[0] - true[1], dim=0) > 0.9


def test_a_rotation_is_found_in_closed_form(rng):
    points = torch.randn(20, 3, generator=rng)
    turn = axis_angle_to_matrix(torch.tensor([0.4, -2.0, 1.0]))
    found = kabsch(points, points @ turn.mT + 3.0, torch.rand(20, generator=rng))
    assert torch.allclose(found, turn, atol=1e-5)


def test_other_models_are_refused(body, monkeypatch):
    monkeypatch.setattr(AnnyBody, "name", "star")
    with pytest.raises(UserError, match="smplx, not with 'star'"):
        check_model(body)
