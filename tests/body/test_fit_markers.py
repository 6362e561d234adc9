"""Fits that are given markers in depth beside what the detector says."""

import math

import pytest
import torch

from humansplat.body.fit import (
    LAPLACE_STD,
    MIN_SHAPE_STD,
    BodyFitter,
    evidence_from,
    lifted_shape,
    stack,
    with_markers,
)
from humansplat.body.fit_silhouette import draw_silhouette
from humansplat.body.fit_start import about_x, lifted_pitch, lifted_world, torso_orientation
from humansplat.body.fit_terms import BodyProblem, ShapePrior
from humansplat.body.landmarks import landmark_points
from humansplat.body.markers import ROOT_MARKER, marker_map
from humansplat.data.crops import Framing, crop_points, crop_up
from humansplat.geometry.projection import intrinsics, look_at, project
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import Cameras, LiftedMarkers

SIDE = 128
POSE = {
    "arm_forward.L": 55.0, "elbow_flexion.L": 50.0, "arm_raise.R": 30.0, "hip_flexion.R": 40.0, "knee_flexion.R": 60.0,
}  # fmt: skip
LIMB_JOINTS = ("head", "upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")


@pytest.fixture(scope="module")
def fitter(body):
    return BodyFitter(body)


class Seen:
    """A posed person, and what an exact detector and an exact lifter say of the picture."""

    def __init__(self, fitter, azimuth_deg=25.0, down_deg=0.0):
        space, model = fitter.space, fitter.model
        angles = space.mean.clone()
        for name, value in POSE.items():
            angles[space.index[name]] = math.radians(value)
        rotations = fitter.relaxed.clone()
        rotations[fitter.landmark_rig.joint_ids] = matrix_to_axis_angle(space.rotations(angles))
        self.body = model.pose({"rotations": rotations})
        middle = (self.body.vertices.amax(0) + self.body.vertices.amin(0)) / 2
        azimuth, down = math.radians(azimuth_deg), math.radians(down_deg)
        ray = [math.cos(down) * math.sin(azimuth), math.sin(down), math.cos(down) * math.cos(azimuth)]
        view = look_at(middle + 4.2 * torch.tensor(ray), middle, torch.tensor([0.0, 1.0, 0.0]))
        self.camera = Cameras(viewmats=view, Ks=intrinsics(math.radians(30), SIDE, SIDE), width=SIDE, height=SIDE)
        points = landmark_points(self.body, fitter.landmarks)
        self.landmarks = project(points, view, self.camera.Ks)[0]
        rotated = points @ view[:3, :3].mT
        self.world = rotated - rotated[[23, 24]].mean(0)
        self.mask = draw_silhouette(
            project(self.body.vertices, view, self.camera.Ks)[0], self.body.faces, SIDE
        ).float()
        self.lifted = self._lifted(model)

    def _lifted(self, model):
        middle = torch.full((1, 2), 0.5)
        whole = Framing(scale=torch.ones(1), roll=torch.zeros(1), source=middle, target=middle)
        one = self.camera.map(lambda tensor: tensor[None])
        markers = landmark_points(self.body, marker_map(model))
        points = crop_points(markers[None], ROOT_MARKER, one, whole)[0]
        phenotypes = model.neutral()["phenotypes"]
        return LiftedMarkers(
            points=points,
            point_scales=torch.full((len(points), 2), 0.005),
            phenotypes=phenotypes,
            phenotype_scales=torch.full_like(phenotypes, 0.05),
            up=crop_up(one, whole)[0],
            up_scale=torch.tensor(0.02),
        )

    def flattened(self):
        """World landmarks with the depth mostly lost, and that of the limbs that reach out reversed."""
        world = self.world.clone()
        world[:, 2] *= 0.3
        world[[13, 15, 17, 19, 21, 26, 28, 30, 32], 2] *= -1.0
        return world

    def joint_error(self, fit, names):
        """Mean distance of the limbs' joints in the camera's axes, the roots put together, metres."""
        chosen = [i for i, name in enumerate(names) if name.removesuffix(".L").removesuffix(".R") in LIMB_JOINTS]
        found, true = (
            (joints - joints[0]) @ camera.viewmats[:3, :3].mT
            for joints, camera in ((fit.body.joints, fit.camera), (self.body.joints, self.camera))
        )
        return (found - true)[chosen].norm(dim=-1).mean().item()


@pytest.fixture(scope="module")
def seen(fitter):
    return Seen(fitter)


@pytest.fixture(scope="module")
def seen_from_above(fitter):
    return Seen(fitter, down_deg=12.0)


def pitch_deg(camera):
    return math.degrees(math.asin(-camera.viewmats[2, 1]))


def problem_with_markers(fitter, seen):
    """Two starts whose evidence has markers, at a pose that is not the true one."""
    row = evidence_from(seen.landmarks / SIDE, torch.ones(33), seen.world)
    evidence = with_markers(stack([row, row]), seen.lifted, fitter.settings)
    free = torch.tensor([fitter.model.phenotype_names.index(name) for name in fitter.settings.shape.free])
    problem = BodyProblem(
        fitter.landmark_rig,
        fitter.space,
        fitter.landmark_weights,
        fitter.marker_weights,
        evidence,
        axis_angle_to_matrix(torch.tensor([[0.1, -0.4, 0.05], [-0.2, 0.6, 0.0]])),
        fitter.model.neutral(2)["phenotypes"],
        free,
        fitter.settings.shape,
        torch.tensor(0.0),
    )
    generator = torch.Generator().manual_seed(2)
    x = torch.cat(
        [
            0.1 * torch.randn(2, 3, generator=generator),
            torch.tensor([[0.5, 0.45, math.log(4.2)], [0.48, 0.5, math.log(3.5)]]),
            fitter.space.mean + 0.2 * torch.randn(2, len(fitter.space.mean), generator=generator),
            0.05 * torch.randn(2, len(free), generator=generator),
        ],
        dim=1,
    )
    return problem, x


def test_the_marker_terms_derivatives_are_those_of_its_values(fitter, seen):
    problem, x = problem_with_markers(fitter, seen)
    points, moved = problem._points(x, True)
    _, by = problem._marker_term(points[:, : problem.landmarks.shape[1]], moved[:, : problem.landmarks.shape[1]])

    def value(at):
        return problem._marker_term(problem._points(at, False)[0][:, : problem.landmarks.shape[1]], None)[0]

    step = 3e-3
    for column in range(x.shape[1]):
        offset = torch.zeros_like(x)
        offset[:, column] = step
        numeric = (value(x + offset) - value(x - offset)) / (2 * step)
        error = (by[..., column] - numeric).norm() / numeric.norm().clamp(min=1.0)
        assert error < 1e-2, f"unknown {column}: {error:.4f}"  # single precision alone makes 0.006 of it
    assert (by[0].view(-1, 3, x.shape[1]).abs().amax(dim=(0, 2)) > 0.1).all()


def test_groups_and_residuals_agree_in_number(fitter, seen):
    problem, x = problem_with_markers(fitter, seen)
    residuals, jacobian = problem.evaluate(x, True)
    groups, scales = problem.groups(4.0, 3.0)
    assert len(groups) == residuals.shape[1] == jacobian.shape[1]
    assert groups.max() == len(scales) - 1
    markers = len(fitter.marker_weights)
    without = len(residuals[0]) - 3 * markers
    assert groups[without:].unique().shape == (markers,)


def test_the_rigs_markers_are_those_of_the_whole_body(fitter, seen):
    problem, x = problem_with_markers(fitter, seen)
    turn, place, angles, shape = problem.unknowns.split(x)
    x[:, -shape.shape[1] :] = 0.0
    rotations = fitter.relaxed.repeat(2, 1, 1)
    rotations[:, fitter.landmark_rig.joint_ids] = matrix_to_axis_angle(fitter.space.rotations(angles))
    rotations[:, 0] = matrix_to_axis_angle(problem.turns @ axis_angle_to_matrix(turn))
    body = fitter.model.pose({"rotations": rotations, "translation": torch.zeros(2, 3)})
    true = landmark_points(body, marker_map(fitter.model)) - body.joints[:, :1]
    placed = fitter.marker_weights @ problem._points(x, False)[0]
    torch.testing.assert_close(placed[:, ROOT_MARKER], problem.unknowns.translation(place), atol=1e-5, rtol=0)
    torch.testing.assert_close(placed - placed[:, ROOT_MARKER, None], true, atol=2e-4, rtol=0)


def test_deviations_follow_the_scales(fitter, seen):
    scales = torch.tensor([0.001, 0.02]).expand(92, 2)
    lifted = seen.lifted.map(lambda tensor: tensor)
    lifted = type(lifted)(**(vars(lifted) | {"point_scales": scales}))
    row = evidence_from(seen.landmarks / SIDE, torch.ones(33), seen.world)
    evidence = with_markers(stack([row, row]), lifted, fitter.settings)
    least, factor = fitter.settings.min_marker_std, fitter.settings.marker_factor
    expected = torch.tensor([least, least, 0.02 * factor]).expand(2, 92, 3)
    torch.testing.assert_close(evidence.marker_stds, expected)
    torch.testing.assert_close(evidence.markers[1], lifted.points)
    torch.testing.assert_close(evidence.direction_stds[1], row.direction_stds * fitter.settings.direction_factor)


def test_the_shapes_prior_is_what_the_lifter_says(body, seen):
    names = body.phenotype_names
    phenotypes, scales = seen.lifted.phenotypes.clone(), seen.lifted.phenotype_scales.clone()
    phenotypes[names.index("height")], scales[names.index("height")] = 0.61, 0.04
    scales[names.index("weight")] = 0.001
    lifted = type(seen.lifted)(**(vars(seen.lifted) | {"phenotypes": phenotypes, "phenotype_scales": scales}))
    prior = lifted_shape(ShapePrior(), lifted, names)
    at = prior.free.index("height")
    assert prior.mean[at] == pytest.approx(0.61)
    assert prior.std[at] == pytest.approx(0.04 * LAPLACE_STD)
    assert prior.std[prior.free.index("weight")] == pytest.approx(MIN_SHAPE_STD)


def test_exact_markers_mend_a_pose_whose_depth_is_lost(fitter, seen):
    names, visible = fitter.model.joint_names, torch.ones(33)
    without = seen.joint_error(fitter(seen.landmarks, visible, seen.flattened(), seen.mask), names)
    fit = fitter(seen.landmarks, visible, seen.flattened(), seen.mask, seen.lifted)
    error = seen.joint_error(fit, names)
    assert error < 0.02
    assert without > 3 * error
    assert fit.silhouette_iou > 0.9
    assert pitch_deg(fit.camera) == pytest.approx(0.0, abs=1e-3)


def test_a_camera_that_looks_down_is_found(fitter, seen_from_above):
    seen = seen_from_above
    assert math.degrees(lifted_pitch(seen.lifted)) == pytest.approx(12.0, abs=1e-3)
    fit = fitter(seen.landmarks, torch.ones(33), seen.flattened(), seen.mask, seen.lifted)
    assert pitch_deg(fit.camera) == pytest.approx(12.0, abs=1e-2)
    assert seen.joint_error(fit, fitter.model.joint_names) < 0.02


def test_lifted_landmarks_orient_the_torso_as_true_ones(seen):
    true = seen.world * torch.tensor([1.0, -1.0, -1.0])
    turn = torso_orientation(lifted_world(seen.lifted)) @ torso_orientation(true).mT
    assert matrix_to_axis_angle(turn).norm() < math.radians(8.0)


def test_up_turned_by_the_lifted_pitch_is_the_lifted_up(seen_from_above):
    up = about_x(lifted_pitch(seen_from_above.lifted)) @ torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(up * torch.tensor([1.0, -1.0, -1.0]), seen_from_above.lifted.up, atol=1e-5, rtol=0)


def test_the_told_pitch_stays_within_what_the_convention_says():
    straight_down = LiftedMarkers(
        points=torch.zeros(1, 3),
        point_scales=torch.ones(1, 2),
        phenotypes=torch.zeros(1),
        phenotype_scales=torch.ones(1),
        up=torch.tensor([0.0, 0.0, -1.0]),
        up_scale=torch.tensor(1.0),
    )
    assert math.degrees(lifted_pitch(straight_down).item()) == pytest.approx(35.0, abs=1e-3)
