"""First stage of a scan's fit: the default body's angles and shape from triangulated markers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_freedoms import PoseSpace, all_freedoms, left_jacobian, relaxed_hands
from humansplat.body.fit_rig import ReducedRig
from humansplat.body.fit_solver import minimise
from humansplat.body.fit_start import start_angles, torso_orientation
from humansplat.body.landmarks import LandmarkMap
from humansplat.body.markers import ROOT_MARKER, marker_map
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import TensorStruct

FREE_SHAPE = ("gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness")
"""Phenotypes that are fitted."""
LIMIT_STD = math.radians(4.0)
SHAPE_LIMIT_STD = 0.03
MARKER_SCALE = 4.0
"""Robust scale of a marker's error, standard deviations."""
STEPS = 10
ROUNDS = 2


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


@dataclass(frozen=True)
class _Layout:
    """Where the unknowns are: turn, translation, angles, shape."""

    angles: int
    shape: int

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        turn, place, angles, shape = x.split([3, 3, self.angles, self.shape], dim=-1)
        return turn, place, angles, shape


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
    def __call__(self, evidence: MarkerEvidence) -> tuple[BodyParameters, float]:
        """Fit.

        Returns:
            The parameters, and the cost: half the squared deviations, robust.
        """
        landmarks = evidence.points[:ROOT_MARKER]
        turn = torso_orientation(landmarks)
        angles = start_angles(landmarks, turn, self.space, self.rig.joint_names, self.rest_joints)
        place, shape = evidence.points[ROOT_MARKER], evidence.shape
        cost = torch.zeros(1)
        for _ in range(ROUNDS):
            problem = _MarkerProblem(self, evidence, turn, shape)
            x = torch.cat([torch.zeros(3), place, angles, torch.zeros(len(self.free))])[None]
            x, cost = minimise(problem.evaluate, x, *problem.groups(), iterations=STEPS)
            spin, place, angles, change = problem.layout.split(x[0])
            turn = turn @ axis_angle_to_matrix(spin)
            shape = shape.clone()
            shape[self.free] = (shape[self.free] + change).clamp(0, 1)
        rotations = self.relaxed.clone()
        rotations[self.rig.joint_ids] = matrix_to_axis_angle(self.space.rotations(angles))
        rotations[0] = matrix_to_axis_angle(turn)
        return BodyParameters(phenotypes=shape, rotations=rotations, translation=place), float(cost[0])


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
        self.layout = _Layout(len(self.space.freedoms), len(fitter.free))

    def evaluate(self, x: Float[Tensor, "1 d"], with_jacobian: bool) -> tuple[Tensor, Tensor | None]:
        """Whitened residuals in the order of ``groups``, and their derivatives."""
        turn, place, angles, shape = self.layout.split(x)
        rest = self.rest + (self.rest_by_shape @ shape[:, None, :, None])[..., 0]
        root = self.turn @ axis_angle_to_matrix(turn)
        rotations = torch.cat([root[:, None], self.space.rotations(angles)[:, 1:]], dim=1)
        stds = self.evidence.stds[:, None]
        value = (self.weights @ self.rig.place(rest, rotations, place) - self.evidence.points) / stds
        prior, prior_by = self._priors(x)
        residuals = torch.cat([value.flatten(1), prior], dim=1)
        if not with_jacobian:
            return residuals, None
        spins = torch.cat([angles.new_zeros(*rotations.shape[:-1], 3), self.space.spins(angles)], dim=-1)
        spins[:, 0, :, :3] = self.turn @ left_jacobian(turn)
        rates = point_rates(self.rig, rest, self.rest_by_shape, rotations, place, spins)
        turned, moved, posed = rates[..., :3], rates[..., 3:6], rates[..., 6:]
        rates = torch.cat([turned, moved, posed], dim=-1)
        by = torch.einsum("km,hmad->hkad", self.weights, rates) / stds[..., None]
        return residuals, torch.cat([by.flatten(1, 2), prior_by], dim=1)

    def _priors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pose prior, joint limits, shape prior, the ends of the shape's range."""
        _, _, angles, change = self.layout.split(x)
        space, value, start = self.space, self.shape0 + change, 6
        values, rows = [], []
        for now, mean, std, low, high, give in (
            (angles, space.mean, space.std, space.lower, space.upper, LIMIT_STD),
            (value, self.mean, self.std, torch.zeros(()), torch.ones(()), SHAPE_LIMIT_STD),
        ):
            beyond = now - torch.minimum(torch.maximum(now, low), high)
            size = now.shape[1]
            by = x.new_zeros(len(x), 2 * size, x.shape[1])
            by[:, :size, start : start + size] = torch.diag(1 / std)
            by[:, size:, start : start + size] = torch.diag_embed((beyond != 0) / give)
            values += [(now - mean) / std, beyond / give]
            rows.append(by)
            start += size
        return torch.cat(values, dim=1), torch.cat(rows, dim=1)

    def groups(self) -> tuple[Int[Tensor, " r"], Float[Tensor, " g"]]:
        """Robust groups of the residuals and their scales."""
        count, rest = len(self.evidence.points), 2 * (self.layout.angles + self.layout.shape)
        groups = torch.cat([torch.arange(count).repeat_interleave(3), count + torch.arange(rest)])
        scales = torch.cat([torch.full((count,), MARKER_SCALE), torch.full((rest,), math.inf)])
        return groups, scales


def point_rates(
    rig: ReducedRig,
    rest: Float[Tensor, "h m 3"],
    rest_by_shape: Float[Tensor, "h m 3 q"],
    rotations: Float[Tensor, "h j 3 3"],
    translation: Float[Tensor, "h 3"],
    spins: Float[Tensor, "h j 3 d"],
) -> Float[Tensor, "h n 3 e"]:
    """Derivatives of a rig's points: by the first three spins, the translation, the other spins, and the shape."""
    turned = rig.point_velocities(rest, rotations, translation, spins)
    rates = rest_by_shape.movedim(-1, 1)  # posing is linear in the rest shape
    turns = rotations[:, None].expand(-1, rates.shape[1], -1, -1, -1)
    by_shape = rig.place(rates, turns, rates.new_zeros(*rates.shape[:2], 3)).movedim(1, -1)
    shifted = torch.eye(3).expand(*turned.shape[:2], 3, 3)
    return torch.cat([turned[..., :3], shifted, turned[..., 3:], by_shape], dim=-1)
