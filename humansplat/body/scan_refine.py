"""Second stage of a scan's fit: every joint moves a little, and the shape, until the skin lies within the surface.

Clothes stand off outwards, never inwards. So a point of the skin lies on the scan where it is bare, some way under
it where it is clothed, and above it nowhere: the distance along the scan's normal is a mixture of a sharp Gaussian at
zero and a wide one under the surface. Hands and face are nearly always bare.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_freedoms import all_freedoms
from humansplat.body.markers import marker_map
from humansplat.body.parts import PART_NAMES
from humansplat.body.scan_pose import BodyParameters, MarkerEvidence, point_rates, rig_of_points
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.geometry.sampling import farthest_points

POINTS = {"hand": 150, "head": 220, "foot": 90, "rest": 700}
"""Points of the skin that are fitted: each hand's, the head's, each foot's, all others'."""
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
ROUNDS = 10
STEPS = 2
REACH = (0.09, 0.05)
"""Metres within which the surface belongs to a point of the skin, in the first round and in the last."""
BARE_STD = (0.016, 0.004)
"""Deviation of bare skin from the surface, in the first round and in the last."""
INSIDE_STD = (0.016, 0.004)
"""The same of skin that sticks out."""
GAP, GAP_STD = 0.013, 0.013
"""Metres between skin and clothes."""
GAP_FACTOR = 3.0
"""What a gap's deviation is multiplied by: gaps of neighbouring points go together."""
BARE_SHARE = {"hand": 0.97, "face": 0.95, "head": 0.4, "foot": 0.15, "rest": 0.35}
MARKER_SCALE = 4.0
MARKER_TRUST = 1.0
SHAPE_TRUST = 1.0
STIFF = 1.0
BARE_SCALE, CLOTH_SCALE, INSIDE_SCALE = 3.0, 2.5, 4.0
"""Where distances begin to lose their pull, in their deviations."""
POINT_WEIGHT = {"hand": 0.3, "head": 0.5, "foot": 0.5, "rest": 1.0}
"""Of what is sampled more densely than the rest: neighbours err together."""
FACE_RADIUS = 0.10
BOUND_ROUNDS = 4


@dataclass(frozen=True)
class Refined:
    """A refined body and how well it lies in the surface."""

    parameters: BodyParameters
    cost: float


class SurfaceFitter:
    """Refines bodies in scans; made once for all scans."""

    def __init__(self, model: AnnyBody) -> None:
        self.model, self.markers = model, marker_map(model)
        sided = [f"{name}.{side}" for name in ALSO_MOVING for side in "LR"]
        moving = {joint for freedom in all_freedoms() for joint, _ in freedom.shares} | {*sided, *ALSO_MOVING}
        self.vertex_ids, self.bare, self.point_weights = chosen_points(model)
        self.rig, self.weights = rig_of_points(
            model, moving, self.markers, self.vertex_ids, torch.zeros(len(model.joint_names), 3)
        )
        self.stds = torch.deg2rad(torch.tensor([stiffness(name) for name in self.rig.joint_names]))
        self.num_marker_points = self.weights.shape[1]
        self.free = torch.arange(len(model.phenotype_names))

    def __call__(
        self,
        start: BodyParameters,
        evidence: MarkerEvidence,
        points: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
    ) -> Refined:
        """Refine.

        Args:
            start: What the first stage found.
            evidence: What it was made of.
            points: Of the scan's outer surface, world frame, metres.
            normals: Unit, outwards.
        """
        target = SurfaceTarget(points, normals)
        reference = axis_angle_to_matrix(start.rotations)[self.rig.joint_ids]
        turns, place, shape = reference, start.translation, start.phenotypes
        rest_turns, cost = start.rotations, 0.0
        for index in range(ROUNDS):
            share = index / (ROUNDS - 1)
            now = BodyParameters(phenotypes=shape, rotations=self._rotations(rest_turns, turns), translation=place)
            pairs = self._pairs(now, target, share)
            rest, by_shape = self.rig.linearised(shape[None], self.free)
            change = torch.zeros_like(shape)
            for _ in range(STEPS):
                turns, place, change, cost = self._step(
                    rest, by_shape, turns, place, change, shape, pairs, evidence, reference
                )
            shape = (shape + change).clamp(0, 1)
        rotations = self._rotations(rest_turns, turns)
        return Refined(BodyParameters(phenotypes=shape, rotations=rotations, translation=place), cost)

    def _rotations(self, base: Float[Tensor, "j 3"], turns: Float[Tensor, "m 3 3"]) -> Float[Tensor, "j 3"]:
        rotations = base.clone()
        rotations[self.rig.joint_ids] = matrix_to_axis_angle(turns)
        return rotations

    def _pairs(self, now: BodyParameters, target: "SurfaceTarget", share: float) -> "Pairs":
        """For each point of the skin its point of the surface, and how much it pulls which way."""
        body = self.model.pose(vars(now))
        normals = vertex_normals(body.vertices, self.model.faces)[self.vertex_ids]
        skin = body.vertices[self.vertex_ids]
        reach = REACH[0] + share * (REACH[1] - REACH[0])
        found, nearest = target.nearest(skin, normals, reach)
        gap = ((target.points[nearest] - skin) * target.normals[nearest]).sum(dim=-1)
        bare_std, inside_std = (ends[0] * (ends[1] / ends[0]) ** share for ends in (BARE_STD, INSIDE_STD))
        bare_chance = self.bare * (-0.5 * (gap / bare_std).square()).exp() / bare_std
        cloth_std = math.hypot(GAP_STD, bare_std)
        cloth_chance = (1 - self.bare) * (-0.5 * ((gap - GAP) / cloth_std).square()).exp() / cloth_std
        is_bare = bare_chance / (bare_chance + cloth_chance + 1e-12)
        share_of_weight = self.point_weights
        bare_weight = share_of_weight * is_bare / bare_std**2 * redescending(gap / (BARE_SCALE * bare_std))
        cloth_weight = share_of_weight * (1 - is_bare) / (GAP_FACTOR * cloth_std) ** 2
        cloth_weight = cloth_weight * redescending((gap - GAP) / (CLOTH_SCALE * cloth_std))
        sticking = share_of_weight * (gap < 0) / inside_std**2 * redescending(gap / (INSIDE_SCALE * inside_std))
        weight = bare_weight + cloth_weight + sticking
        wanted = cloth_weight * GAP / weight.clamp(min=1e-9)  # where the three pulls balance
        return Pairs(
            points=target.points[nearest] - wanted[:, None] * target.normals[nearest],
            normals=target.normals[nearest],
            weights=torch.where(found, weight, torch.zeros_like(weight)),
        )

    def _step(
        self,
        rest: Tensor,
        by_shape: Tensor,
        turns: Float[Tensor, "m 3 3"],
        place: Float[Tensor, "3"],
        change: Float[Tensor, " p"],
        shape: Float[Tensor, " p"],
        pairs: "Pairs",
        evidence: MarkerEvidence,
        reference: Float[Tensor, "m 3 3"],
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """One Gauss-Newton step."""
        count, joints = self.num_marker_points, len(turns)
        formed = rest + by_shape @ change
        points = self.rig.place(formed, turns[None], place[None])[0]
        spins = torch.eye(3 * joints).unflatten(0, (joints, 3))[None]
        rates = point_rates(self.rig, formed, by_shape, turns[None], place[None], spins)[0]

        stds, shape_stds = evidence.stds[:, None] / MARKER_TRUST, evidence.shape_stds / SHAPE_TRUST
        value = (self.weights @ points[:count] - evidence.points) / stds
        robust = (MARKER_SCALE**2 / (MARKER_SCALE**2 + value.square().sum(dim=-1))).repeat_interleave(3)
        by = (self.weights @ rates[:count].flatten(1)).unflatten(1, rates.shape[1:]) / stds[..., None]
        gaps = ((points[count:] - pairs.points) * pairs.normals).sum(dim=-1)
        gaps_by = (pairs.normals[:, None] @ rates[count:])[:, 0]

        bent = matrix_to_axis_angle(turns @ reference.mT) * STIFF / self.stds[:, None]
        bent[0] = 0.0  # the root turns freely
        stiff = (STIFF / self.stds).repeat_interleave(3)
        stiff[:3] = 0.0
        # Unknowns: root turn, translation, other turns, shape.
        precision = torch.cat([stiff[:3], torch.zeros(3), stiff[3:], 1 / shape_stds])
        pull = torch.cat([torch.zeros(6), bent[1:].flatten(), (shape + change - evidence.shape) / shape_stds])
        normal = by.flatten(0, 1).mT @ (by.flatten(0, 1) * robust[:, None].square())
        normal = normal + gaps_by.mT @ (gaps_by * pairs.weights[:, None]) + torch.diag(precision.square() + 1e-6)
        slope = by.flatten(0, 1).mT @ (value.flatten() * robust.square()) + gaps_by.mT @ (gaps * pairs.weights)
        slope = slope + precision * pull
        start = 3 + 3 * joints
        low = torch.full_like(slope, -torch.inf)
        high = torch.full_like(slope, torch.inf)
        low[start:], high[start:] = -(shape + change), 1 - (shape + change)
        move = bounded_step(normal, slope, low, high)
        turn = torch.cat([move[:3], move[6 : 3 + 3 * joints]]).unflatten(0, (joints, 3))
        turns = axis_angle_to_matrix(turn) @ turns
        change = change + move[start:]
        cost = float(pull.square().sum() + (gaps.square() * pairs.weights).sum())
        return turns, place + move[3:6], change, cost


@dataclass(frozen=True)
class Pairs:
    """Points of the surface that points of the skin are drawn to, along its normals."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    weights: Float[Tensor, " n"]
    """Inverse variances."""


class SurfaceTarget:
    """The scan's outer surface."""

    NEIGHBOURS = 10
    MIN_AGREEMENT = 0.35
    """Cosine between the normals of skin and surface that belong together."""

    def __init__(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> None:
        self.points, self.normals = points, normals
        self.tree = cKDTree(points.numpy())

    def nearest(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], reach: float
    ) -> tuple[Tensor, Int[Tensor, " n"]]:
        """Whether there is a point within reach that faces the same way, and the nearest one."""
        # Behind the skin as well as before it: what is found one cell away would hide the other side of a thin limb.
        distance, index = self.tree.query(points.numpy(), k=self.NEIGHBOURS, distance_upper_bound=reach)
        index = np.minimum(index, len(self.points) - 1)
        agreeing = (self.normals[torch.from_numpy(index)] * normals[:, None]).sum(dim=-1) > self.MIN_AGREEMENT
        distance = torch.where(agreeing, torch.from_numpy(distance), torch.inf)
        best = distance.argmin(dim=1)
        rows = torch.arange(len(points))
        return distance[rows, best].isfinite(), torch.from_numpy(index)[rows, best]


def redescending(ratio: Tensor) -> Tensor:
    """Geman and McClure's weight: far outliers lose their pull."""
    return 1 / (1 + ratio.square()).square()


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


def chosen_points(model: AnnyBody) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Vertices of the skin that are fitted, the chance that each is bare, and how much each counts."""
    kinds = torch.tensor([_kind(name) for name in PART_NAMES])[model.parts]
    outer = outer_skin(model)
    ids, bare, weights = [], [], []
    for kind, (name, count) in enumerate(POINTS.items()):
        for left in (True, False):
            if name in ("head", "rest") and not left:
                continue
            side = torch.ones_like(outer) if name in ("head", "rest") else (model.canonical[:, 0] > 0) == left
            candidates = (outer & side & (kinds == kind)).nonzero()[:, 0]
            ids.append(candidates[farthest_points(model.canonical[candidates], count, first=0)])
            bare.append(torch.full((count,), BARE_SHARE[name]))
            weights.append(torch.full((count,), POINT_WEIGHT[name]))
    together, chance = torch.cat(ids), torch.cat(bare)
    eyes = model.canonical[[13574, 13646]].mean(dim=0)
    head = kinds[together] == list(POINTS).index("head")
    face = head & ((model.canonical[together] - eyes + torch.tensor([0.0, 0.03, 0.0])).norm(dim=-1) < FACE_RADIUS)
    chance[face] = BARE_SHARE["face"]
    return together, chance, torch.cat(weights)


def outer_skin(model: AnnyBody) -> Tensor:
    """Vertices that can be seen: not the tongue, the teeth or the back of the eyes, which are pieces of their own."""
    labels = torch.arange(len(model.canonical))
    edges = torch.cat([model.faces[:, [0, 1]], model.faces[:, [1, 2]], model.faces[:, [2, 0]]])
    while True:
        lower = labels.clone()
        for a, b in ((0, 1), (1, 0)):
            lower = lower.scatter_reduce(0, edges[:, a], labels[edges[:, b]], "amin")
        lower = lower[lower]
        if bool((lower == labels).all()):
            break
        labels = lower
    return labels == labels.mode().values


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit normals, averaged over the faces by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    of_faces = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(0, faces[:, corner], of_faces)
    return F.normalize(total, dim=-1)


def stiffness(joint: str) -> float:
    """Degrees; the root is free."""
    matches = [name for name in STIFFNESS if joint.startswith(name)]
    return STIFFNESS[max(matches, key=len)] if matches else 5.0


def _kind(part: str) -> int:
    for kind, endings in enumerate((("Hand", "HandIndex1"), ("head",), ("Foot", "ToeBase"))):
        if part.endswith(endings):
            return kind
    return len(POINTS) - 1
