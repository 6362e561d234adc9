"""First stage of a scan's fit: the default body's angles and shape from triangulated markers."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_freedoms import PoseSpace, all_freedoms, left_jacobian, relaxed_hands
from humansplat.body.fit_rig import ReducedRig
from humansplat.body.fit_solver import minimise
from humansplat.body.fit_start import start_angles, torso_orientation
from humansplat.body.fit_terms import Unknowns, prior_terms
from humansplat.body.landmarks import LandmarkMap
from humansplat.body.markers import ROOT_MARKER, marker_map
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import TensorStruct

FREE_SHAPE = ("gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness")
"""Phenotypes that are fitted."""
MARKER_SCALE = 4.0
"""Robust scale of a marker's error, standard deviations."""
STEPS = 10
"""Of the solver, each round."""
ROUNDS = 2
"""The shape is linearised anew in each."""


class MarkerEvidence(TensorStruct):
    """What is known before the surface is looked at."""

    points: Float[Tensor, "k 3"]
    """The markers of ``humansplat.body.markers``, world frame, metres."""
    stds: Float[Tensor, " k"]
    shape: Float[Tensor, " p"]
    """Phenotypes."""
    shape_stds: Float[Tensor, " p"]


class BodyParameters(TensorStruct):
    """Parameters of the default body."""

    phenotypes: Float[Tensor, " p"]
    rotations: Float[Tensor, "j 3"]
    translation: Float[Tensor, "3"]


class MarkerFitter:
    """Fits the default body to triangulated markers; made once for all scans."""

    def __init__(self, model: AnnyBody) -> None:
        self.model, self.markers = model, marker_map(model)
        self.free = torch.tensor([model.phenotype_names.index(name) for name in FREE_SHAPE])
        moving = {joint for freedom in all_freedoms() for joint, _ in freedom.shares}
        self.relaxed = relaxed_hands(model)
        self.rig, self.weights = rig_of_points(model, moving, self.markers, torch.zeros(0).long(), self.relaxed)
        rest = self.rig.rest(model.neutral()["phenotypes"])[1]
        self.rest_joints = dict(zip(self.rig.joint_names, rest, strict=True))
        self.space = PoseSpace(self.rig.joint_names, self.rest_joints)

    @torch.no_grad()
    def __call__(self, evidence: MarkerEvidence) -> BodyParameters:
        """Fit."""
        landmarks = evidence.points[:ROOT_MARKER]
        turn = torso_orientation(landmarks)
        angles = start_angles(landmarks, turn, self.space, self.rig.joint_names, self.rest_joints)
        place, shape = evidence.points[ROOT_MARKER], evidence.shape
        for _ in range(ROUNDS):
            problem = _MarkerProblem(self, evidence, turn, shape)
            x = torch.cat([torch.zeros(3), place, angles, torch.zeros(len(self.free))])[None]
            x, _ = minimise(problem.evaluate, x, *problem.groups(), iterations=STEPS)
            spin, place, angles, change = problem.unknowns.split(x[0])
            turn = turn @ axis_angle_to_matrix(spin)
            shape = shape.clone()
            shape[self.free] = (shape[self.free] + change).clamp(0, 1)
        rotations = self.relaxed.clone()
        rotations[self.rig.joint_ids] = matrix_to_axis_angle(self.space.rotations(angles))
        rotations[0] = matrix_to_axis_angle(turn)
        return BodyParameters(phenotypes=shape, rotations=rotations, translation=place)


def rig_of_points(
    model: AnnyBody,
    moving: set[str],
    markers: LandmarkMap,
    vertex_ids: Int[Tensor, " n"],
    rest_rotations: Float[Tensor, "j 3"],
) -> tuple[ReducedRig, Float[Tensor, "k m"]]:
    """A rig of the points that make the markers, then vertices; and the markers' weights of the former."""
    joint_ids = markers.joint_weights.any(dim=0).nonzero()[:, 0]
    rig = ReducedRig(model, moving, joint_ids, torch.cat([markers.vertex_ids, vertex_ids]), rest_rotations)
    return rig, torch.cat([markers.joint_weights[:, joint_ids], markers.vertex_weights], dim=1)


class _MarkerProblem:
    """Residuals for the solver."""

    def __init__(
        self, fitter: MarkerFitter, evidence: MarkerEvidence, turn: Float[Tensor, "3 3"], shape: Float[Tensor, " p"]
    ) -> None:
        self.rig, self.space, self.weights = fitter.rig, fitter.space, fitter.weights
        self.evidence, self.turn, self.free = evidence, turn, fitter.free
        self.shape0, self.mean, self.std = (
            values[fitter.free] for values in (shape, evidence.shape, evidence.shape_stds)
        )
        self.rest, self.rest_by_shape = self.rig.linearised(shape[None], fitter.free)
        self.unknowns = Unknowns(len(self.space.freedoms), len(fitter.free))

    def evaluate(self, x: Float[Tensor, "1 d"], with_jacobian: bool) -> tuple[Tensor, Tensor | None]:
        """Whitened residuals in the order of ``groups``, and their derivatives."""
        turn, place, angles, shape = self.unknowns.split(x)
        rest = self.rest + (self.rest_by_shape @ shape[:, None, :, None])[..., 0]
        root = self.turn @ axis_angle_to_matrix(turn)
        rotations = torch.cat([root[:, None], self.space.rotations(angles)[:, 1:]], dim=1)
        stds = self.evidence.stds[:, None]
        value = (self.weights @ self.rig.place(rest, rotations, place) - self.evidence.points) / stds
        priors = prior_terms(self.space, angles, self.shape0 + shape, self.mean, self.std)
        residuals = torch.cat([value.flatten(1), *(prior for prior, _ in priors)], dim=1)
        if not with_jacobian:
            return residuals, None
        spins = torch.cat([angles.new_zeros(*rotations.shape[:-1], 3), self.space.spins(angles)], dim=-1)
        spins[:, 0, :, :3] = self.turn @ left_jacobian(turn)
        rates = self.rig.rates(rest, self.rest_by_shape, rotations, place, spins, torch.eye(3)[None])
        by = torch.einsum("km,hmad->hkad", self.weights, rates) / stds[..., None]
        return residuals, torch.cat([by.flatten(1, 2), *(prior_by for _, prior_by in priors)], dim=1)

    def groups(self) -> tuple[Int[Tensor, " r"], Float[Tensor, " g"]]:
        """Robust groups of the residuals and their scales."""
        count, rest = len(self.evidence.points), 2 * sum(self.unknowns.sizes[2:])
        groups = torch.cat([torch.arange(count).repeat_interleave(3), count + torch.arange(rest)])
        scales = torch.cat([torch.full((count,), MARKER_SCALE), torch.full((rest,), math.inf)])
        return groups, scales
