"""Poses and shapes from markers that lie where a body has them, a little noisy."""

import pytest
import torch

from humansplat.body.landmarks import landmark_points
from humansplat.body.scan_pose import MarkerEvidence, MarkerFitter


@pytest.fixture(scope="module")
def fitter(body):
    return MarkerFitter(body)


@pytest.fixture(scope="module")
def walking(body):
    """A tall person who walks away from the camera, off the origin."""
    parameters = body.neutral()
    turns = {
        "root": (0.0, 2.5, 0.0), "upperleg01.L": (-0.6, 0.0, 0.1), "upperleg01.R": (0.4, 0.0, 0.0),
        "lowerleg01.R": (0.7, 0.0, 0.0), "upperarm01.L": (0.5, 0.0, -0.3), "lowerarm01.R": (0.1, -0.5, 0.3),
        "spine03": (0.2, 0.0, 0.0), "head": (0.0, 0.3, 0.0),
    }  # fmt: skip
    for joint, turn in turns.items():
        parameters["rotations"][body.joint_names.index(joint)] = torch.tensor(turn)
    parameters["phenotypes"][body.phenotype_names.index("height")] = 0.5
    parameters["translation"] += torch.tensor([1.0, 0.2, -2.0])
    return body.pose(parameters)


@pytest.mark.parametrize(("noise", "limit"), [(0.0, 0.012), (0.01, 0.02)])
def test_a_pose_comes_back(fitter, walking, rng, noise, limit):
    points = landmark_points(walking, fitter.markers)
    points = points + noise * torch.randn(points.shape, generator=rng)
    neutral = fitter.model.neutral()["phenotypes"]
    stds = torch.full_like(neutral, 0.15)
    evidence = MarkerEvidence(
        points=points, stds=torch.full_like(points[:, 0], 0.005 + noise), shape=neutral, shape_stds=stds
    )
    found = fitter(evidence)
    body = fitter.model.pose(vars(found))
    hands = torch.tensor([name.startswith(("finger", "metacarpal")) for name in fitter.model.joint_names])
    assert (body.joints - walking.joints).norm(dim=-1)[~hands].mean() < limit
    assert abs(float(found.phenotypes[fitter.model.phenotype_names.index("height")]) - 0.5) < 0.05
