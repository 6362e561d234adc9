"""Bodies drawn to surfaces: their own, naked, and one in clothes."""

from dataclasses import replace

import pytest
import torch

from humansplat.body.landmarks import landmark_points
from humansplat.body.scan_pose import BodyParameters, MarkerEvidence
from humansplat.body.scan_refine import SurfaceFitter, bounded_step
from humansplat.body.scan_surface_terms import SurfaceTarget, fitted_points, surface_pairs, vertex_normals


@pytest.fixture(scope="module")
def fitter(body):
    return SurfaceFitter(body)


@pytest.fixture(scope="module")
def true(body):
    parameters = body.neutral()
    for joint, turn in (("upperleg01.L", (-0.5, 0.0, 0.1)), ("upperarm01.R", (0.1, 0.3, 0.4))):
        parameters["rotations"][body.joint_names.index(joint)] = torch.tensor(turn)
    return BodyParameters(**parameters)


def evidence_of(fitter, parameters, std):
    posed = fitter.model.pose(vars(parameters))
    points = landmark_points(posed, fitter.markers)
    return MarkerEvidence(
        points=points,
        stds=torch.full_like(points[:, 0], std),
        shape=parameters.phenotypes,
        shape_stds=torch.full_like(parameters.phenotypes, 0.1),
    )


def test_a_naked_body_is_found_from_a_start_that_is_off(fitter, true, rng):
    skin = fitter.model.pose(vars(true))
    target = SurfaceTarget(skin.vertices, vertex_normals(skin.vertices, skin.faces))
    noise = torch.zeros_like(true.rotations)
    noise[fitter.rig.joint_ids] = 0.03 * torch.randn(len(fitter.rig.joint_ids), 3, generator=rng)
    shape = true.phenotypes.clone()
    shape[fitter.model.phenotype_names.index("weight")] += 0.1
    start = BodyParameters(
        phenotypes=shape,
        rotations=true.rotations + noise,
        translation=true.translation + torch.tensor([0.015, -0.01, 0.01]),
    )
    found = fitter(start, evidence_of(fitter, start, 0.03), target)
    before, after = (
        (fitter.model.pose(vars(parameters)).vertices - skin.vertices).norm(dim=-1) for parameters in (start, found)
    )
    fingers = skin.parts >= 22  # they can lie on each other's places
    assert before.mean() > 0.02
    assert after[~fingers].mean() < 0.003
    assert after.mean() < 0.006


def test_clothes_stand_off_and_hide_the_skin(fitter, true):
    skin = fitter.model.pose(vars(true))
    normals = vertex_normals(skin.vertices, skin.faces)
    bare = torch.isin(skin.parts, torch.tensor([12, 15, 20, 21, 22, 23]))  # neck, head, hands
    dressed = skin.vertices + torch.where(bare, 0.0, 0.02)[:, None] * normals
    found = fitter(true, evidence_of(fitter, true, 0.02), SurfaceTarget(dressed, normals))
    after = (fitter.model.pose(vars(found)).vertices - skin.vertices).norm(dim=-1)
    assert after.mean() < 0.006
    assert after[bare].mean() < 0.005


def test_skin_is_drawn_out_to_clothes_softly_and_back_from_outside_firmly():
    places = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 60), indexing="xy"), -1)
    plane = torch.cat([places.flatten(0, 1), torch.zeros(3600, 1)], dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0])
    target = SurfaceTarget(plane, up.expand(3600, 3))
    skin = torch.tensor([[0.0, 0.0, -0.03], [0.2, 0.0, 0.006], [0.4, 0.0, -0.001], [0.0, 0.4, -0.5]])
    pairs = surface_pairs(skin, up.expand(4, 3), target, torch.full((4,), 0.4), torch.ones(4), 1.0)
    inside, outside, on, far = pairs.weights.tolist()
    assert far == 0
    assert 0 < 20 * inside < outside
    assert on > 20 * inside
    assert pairs.points[0, 2] < -0.005  # it is left under the clothes
    turned = surface_pairs(skin, -up.expand(4, 3), target, torch.full((4,), 0.4), torch.ones(4), 1.0)
    assert not turned.weights.any()  # the surface faces the other way


def test_steps_stay_within_their_bounds_and_are_best_there(rng):
    root = torch.randn(6, 6, generator=rng)
    normal, slope = root @ root.mT + 0.1 * torch.eye(6), torch.randn(6, generator=rng)
    low, high = torch.full((6,), -torch.inf), torch.full((6,), torch.inf)
    low[:2], high[:2] = -0.01, 0.01
    step = bounded_step(normal, slope, low, high)
    assert ((step >= low) & (step <= high)).all()
    assert (normal @ step + slope)[2:].abs().max() < 1e-3
    free = bounded_step(normal, slope, torch.full((6,), -torch.inf), torch.full((6,), torch.inf))
    assert torch.allclose(normal @ free, -slope, atol=1e-4)


def test_fitted_points_are_on_both_sides_and_not_in_the_mouth(body):
    ids, bare, weights = fitted_points(body)
    assert len(ids) == len(bare) == len(weights) == len(ids.unique())
    labels = replace(body.pose({}), parameters=None).parts[ids]
    assert (labels == 20).sum() > 10
    assert (labels == 21).sum() > 10
    tip = (body.canonical[ids] - torch.tensor([0.0, 1.55, 0.23])).norm(dim=-1)
    assert bare[tip < 0.05].min() > 0.9
