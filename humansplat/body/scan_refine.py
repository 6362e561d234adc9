"""Second stage of a scan's fit: every joint moves a little, and the shape, until the skin lies within the surface."""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_freedoms import all_freedoms
from humansplat.body.markers import marker_map
from humansplat.body.scan_pose import BodyParameters, MarkerEvidence, rig_of_points
from humansplat.body.scan_surface_terms import (
    SurfacePairs,
    SurfaceTarget,
    fitted_points,
    surface_pairs,
    vertex_normals,
)
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

FINGERS = tuple(f"finger{finger}-{link}" for finger in range(1, 6) for link in range(1, 4))
ALSO_MOVING = (
    "neck01", "neck02", "neck03", "head", "jaw", "shoulder01", "lowerarm01", "lowerleg02", "toe1-1", "toe2-1",
    "toe3-1", "toe4-1", "toe5-1", *FINGERS,
)  # fmt: skip
STIFFNESS = {
    "spine": 7.0, "neck": 8.0, "head": 10.0, "jaw": 3.0, "clavicle": 10.0, "shoulder01": 5.0, "upperarm01": 15.0,
    "upperarm02": 10.0, "lowerarm01": 15.0, "lowerarm02": 12.0, "wrist": 15.0, "upperleg01": 10.0, "upperleg02": 6.0,
    "lowerleg01": 10.0, "lowerleg02": 3.0, "foot": 10.0, "toe": 5.0, "finger1": 15.0, "finger": 14.0,
}  # fmt: skip
"""Degrees by which a joint may leave the first stage's pose; the longest beginning of its name counts."""
OTHER_STIFFNESS = 5.0
"""Degrees for joints that none of these names begins."""
ROUNDS = 10
"""Each finds anew what of the surface belongs to the skin, and linearises the shape."""
STEPS = 2
"""Gauss-Newton steps a round."""
MARKER_SCALE = 4.0
"""Where a marker's error begins to lose its pull, standard deviations."""
SHAPE_TRUST = 2.0
"""How much more the shape of the first stage counts than it says: the gaps under clothes all pull one way."""
BOUND_ROUNDS = 4
"""How often a step is solved anew without the unknowns that have reached their bounds."""
TURN_STEP, PLACE_STEP, SHAPE_STEP = 0.1, 0.03, 0.05
"""Radians, metres and units of a phenotype that a step may well be long."""


class SurfaceFitter:
    """Refines bodies in scans; made once for all scans."""

    def __init__(self, model: AnnyBody) -> None:
        self.model, self.markers = model, marker_map(model)
        sided = [f"{name}.{side}" for name in ALSO_MOVING for side in "LR"]
        moving = {joint for freedom in all_freedoms() for joint, _ in freedom.shares} | {*sided, *ALSO_MOVING}
        self.vertex_ids, self.bare, self.point_weights = fitted_points(model)
        self.rig, self.weights = rig_of_points(
            model, moving, self.markers, self.vertex_ids, torch.zeros(len(model.joint_names), 3)
        )
        self.stds = torch.deg2rad(torch.tensor([stiffness(name) for name in self.rig.joint_names]))
        self.num_marker_points = self.weights.shape[1]
        self.free = torch.arange(len(model.phenotype_names))

    @torch.no_grad()
    def __call__(
        self,
        start: BodyParameters,
        evidence: MarkerEvidence,
        target: SurfaceTarget,
    ) -> BodyParameters:
        """Refine.

        Args:
            start: What the first stage found.
            evidence: What it was made of.
            target: The scan.
        """
        reference = axis_angle_to_matrix(start.rotations)[self.rig.joint_ids]
        turns, place, shape = reference, start.translation, start.phenotypes
        for index in range(ROUNDS):
            share = index / (ROUNDS - 1)
            now = BodyParameters(
                phenotypes=shape, rotations=self._rotations(start.rotations, turns), translation=place
            )
            pairs = self._pairs(now, target, share)
            rest, by_shape = self.rig.linearised(shape[None], self.free)
            change = torch.zeros_like(shape)
            for _ in range(STEPS):
                turns, place, change = self._step(
                    rest, by_shape, turns, place, change, shape, pairs, evidence, reference
                )
            shape = (shape + change).clamp(0, 1)
        rotations = self._rotations(start.rotations, turns)
        return BodyParameters(phenotypes=shape, rotations=rotations, translation=place)

    def _rotations(self, base: Float[Tensor, "j 3"], turns: Float[Tensor, "m 3 3"]) -> Float[Tensor, "j 3"]:
        rotations = base.clone()
        rotations[self.rig.joint_ids] = matrix_to_axis_angle(turns)
        return rotations

    def _pairs(self, now: BodyParameters, target: SurfaceTarget, share: float) -> SurfacePairs:
        body = self.model.pose(vars(now))
        normals = vertex_normals(body.vertices, self.model.faces)[self.vertex_ids]
        skin = body.vertices[self.vertex_ids]
        return surface_pairs(skin, normals, target, self.bare, self.point_weights, share)

    def _step(
        self,
        rest: Tensor,
        by_shape: Tensor,
        turns: Float[Tensor, "m 3 3"],
        place: Float[Tensor, "3"],
        change: Float[Tensor, " p"],
        shape: Float[Tensor, " p"],
        pairs: SurfacePairs,
        evidence: MarkerEvidence,
        reference: Float[Tensor, "m 3 3"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One Gauss-Newton step; unknowns are the root's turn, the translation, the other turns, the shape."""
        count, joints = self.num_marker_points, len(turns)
        formed = rest + by_shape @ change
        points = self.rig.place(formed, turns[None], place[None])[0]
        spins = torch.eye(3 * joints).unflatten(0, (joints, 3))[None]
        rates = self.rig.rates(formed, by_shape, turns[None], place[None], spins, torch.eye(3)[None])[0]

        stds = evidence.stds[:, None]
        value = (self.weights @ points[:count] - evidence.points) / stds
        robust = (MARKER_SCALE**2 / (MARKER_SCALE**2 + value.square().sum(dim=-1))).repeat_interleave(3)
        by = (self.weights @ rates[:count].flatten(1)).unflatten(1, rates.shape[1:]) / stds[..., None]
        gaps = ((points[count:] - pairs.points) * pairs.normals).sum(dim=-1)
        gaps_by = (pairs.normals[:, None] @ rates[count:])[:, 0]

        precision, pull = self._priors(turns, shape + change, reference, evidence)
        steps = torch.tensor(
            [TURN_STEP] * 3 + [PLACE_STEP] * 3 + [TURN_STEP] * (3 * joints - 3) + [SHAPE_STEP] * len(change)
        )
        cautious = steps**-2
        normal = by.flatten(0, 1).mT @ (by.flatten(0, 1) * robust[:, None].square())
        normal = normal + gaps_by.mT @ (gaps_by * pairs.weights[:, None]) + torch.diag(precision.square() + cautious)
        slope = by.flatten(0, 1).mT @ (value.flatten() * robust.square()) + gaps_by.mT @ (gaps * pairs.weights)
        slope = slope + precision * pull
        start = 3 + 3 * joints
        low = torch.full_like(slope, -torch.inf)
        high = torch.full_like(slope, torch.inf)
        low[start:], high[start:] = -(shape + change), 1 - (shape + change)
        move = bounded_step(normal, slope, low, high)
        turn = torch.cat([move[:3], move[6 : 3 + 3 * joints]]).unflatten(0, (joints, 3))
        turns = axis_angle_to_matrix(turn) @ turns
        return turns, place + move[3:6], change + move[start:]

    def _priors(
        self,
        turns: Float[Tensor, "m 3 3"],
        shape: Float[Tensor, " p"],
        reference: Float[Tensor, "m 3 3"],
        evidence: MarkerEvidence,
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """Inverse deviations of the unknowns, and how many deviations off they are; root and place are free."""
        shape_stds = evidence.shape_stds / SHAPE_TRUST
        bent = matrix_to_axis_angle(turns @ reference.mT) / self.stds[:, None]
        stiff = (1 / self.stds).repeat_interleave(3)
        precision = torch.cat([torch.zeros(6), stiff[3:], 1 / shape_stds])
        return precision, torch.cat([torch.zeros(6), bent[1:].flatten(), (shape - evidence.shape) / shape_stds])


def bounded_step(
    normal: Float[Tensor, "d d"], slope: Float[Tensor, " d"], low: Float[Tensor, " d"], high: Float[Tensor, " d"]
) -> Float[Tensor, " d"]:
    """The Gauss-Newton step within bounds: what would leave them stays at them, and the others make up for it.

    Cutting the step off afterwards instead would leave the others where they balance what is not there.
    """
    fixed = torch.zeros_like(low, dtype=torch.bool)
    move = torch.zeros_like(slope)
    for _ in range(BOUND_ROUNDS):
        free = ~fixed
        pull = slope[free] + normal[free][:, fixed] @ move[fixed]
        move[free] = -torch.linalg.solve(normal[free][:, free], pull)
        beyond = (move < low) | (move > high)
        if not bool((beyond & free).any()):
            break
        fixed |= beyond
        move = torch.minimum(torch.maximum(move, low), high)
    return torch.minimum(torch.maximum(move, low), high)


def stiffness(joint: str) -> float:
    """Degrees; the root is free."""
    matches = [name for name in STIFFNESS if joint.startswith(name)]
    return STIFFNESS[max(matches, key=len)] if matches else OTHER_STIFFNESS
