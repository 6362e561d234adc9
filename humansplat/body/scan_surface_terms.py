"""What draws a body's skin to a scan's surface, for any body model.

Clothes stand off outwards, never inwards. So a point of the skin lies on the scan where it is bare, some way under it
where it is clothed, and above it nowhere: the distance along the scan's normal is a mixture of a sharp Gaussian at
zero and a wide one under the surface. Hands and face are nearly always bare.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.parts import PART_NAMES
from humansplat.body.protocol import BodyModel
from humansplat.geometry.sampling import farthest_points

POINTS = {"hand": 150, "head": 220, "foot": 90, "rest": 700}
"""Points of the skin that are fitted: each hand's, the head's, each foot's, all others'."""
POINT_WEIGHT = {"hand": 0.3, "head": 0.5, "foot": 0.5, "rest": 1.0}
"""What is sampled more densely counts less: neighbours err together."""
BARE_SHARE = {"hand": 0.97, "face": 0.95, "head": 0.4, "foot": 0.15, "rest": 0.35}
"""Chance that a point is bare."""
FACE = (0.0, 1.54, 0.21)
"""Canonical position of the middle of the face, and metres about it that count as face."""
FACE_RADIUS = 0.10

# First and last round of a fit. Gaps: of 24 synthetic people in all kinds of clothes, quartiles 7 and 23 mm on the
# trunk and the limbs, 98 % below 60 mm; bare skin within 3 mm.
REACH = (0.09, 0.05)
"""Metres within which the surface belongs to a point of the skin."""
BARE_STD = (0.016, 0.004)
"""Deviation of bare skin from the surface, metres."""
INSIDE_STD = (0.016, 0.004)
"""The same of skin that sticks out."""
GAP, GAP_STD = 0.013, 0.013
"""Metres between skin and clothes."""
GAP_FACTOR = 3.0
"""What a gap's deviation is multiplied by: gaps of neighbouring points go together."""
SURELY_BARE = 0.9
BARE_SCALE, CLOTH_SCALE, INSIDE_SCALE = 3.0, 2.5, 4.0
"""Where distances begin to lose their pull, in their deviations."""


@dataclass(frozen=True)
class SurfacePairs:
    """Points of the surface that points of the skin are drawn to, along its normals."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    weights: Float[Tensor, " n"]
    """Inverse variances, metres^-2."""


class SurfaceTarget:
    """The scan's outer surface.

    Args:
        points: World frame, metres; what no view from outside sees is not among them.
        normals: Unit, outwards.
    """

    NEIGHBOURS = 10
    MIN_AGREEMENT = 0.35
    """Cosine between the normals of skin and surface that belong together."""

    def __init__(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]) -> None:
        self.points, self.normals = points, normals
        self.tree = cKDTree(points.numpy())

    def nearest(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], reach: float
    ) -> tuple[Bool[Tensor, " n"], Int[Tensor, " n"]]:
        """Whether there is a point within reach that faces the same way, and the nearest one."""
        distance, index = self.tree.query(points.numpy(), k=self.NEIGHBOURS, distance_upper_bound=reach)
        index = np.minimum(index, len(self.points) - 1)
        agreeing = (self.normals[torch.from_numpy(index)] * normals[:, None]).sum(dim=-1) > self.MIN_AGREEMENT
        distance = torch.where(agreeing, torch.from_numpy(distance).float(), torch.inf)
        best = distance.argmin(dim=1)
        rows = torch.arange(len(points))
        return distance[rows, best].isfinite(), torch.from_numpy(index)[rows, best]


def surface_pairs(
    skin: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    target: SurfaceTarget,
    bare: Float[Tensor, " n"],
    point_weights: Float[Tensor, " n"],
    share: float,
) -> SurfacePairs:
    """For each point of the skin its point of the surface, and how much it pulls which way.

    Args:
        skin: Points of the skin.
        normals: Theirs, outwards.
        target: The scan.
        bare: Chance that each is bare.
        point_weights: How much each counts.
        share: How far the fit has come, in ``[0, 1]``: deviations and reach shrink.
    """
    found, nearest = target.nearest(skin, normals, REACH[0] + share * (REACH[1] - REACH[0]))
    at, outwards = target.points[nearest], target.normals[nearest]
    gap = ((at - skin) * outwards).sum(dim=-1)
    bare_std, inside_std = (ends[0] * (ends[1] / ends[0]) ** share for ends in (BARE_STD, INSIDE_STD))
    cloth_std = math.hypot(GAP_STD, bare_std)
    bare_chance = bare * (-0.5 * (gap / bare_std).square()).exp() / bare_std
    cloth_chance = (1 - bare) * (-0.5 * ((gap - GAP) / cloth_std).square()).exp() / cloth_std
    is_bare = bare_chance / (bare_chance + cloth_chance + 1e-12)
    # While deviations are wide, clothed skin cannot be told from bare skin: it counts as gaps do.
    unsure = torch.where(bare > SURELY_BARE, 1.0, GAP_FACTOR ** (1 - share))
    on_skin = is_bare / (unsure * bare_std).square() * redescending(gap / (BARE_SCALE * bare_std))
    in_clothes = (1 - is_bare) / (GAP_FACTOR * cloth_std) ** 2 * redescending((gap - GAP) / (CLOTH_SCALE * cloth_std))
    sticking = (gap < 0) / inside_std**2 * redescending(gap / (INSIDE_SCALE * inside_std))
    weights = on_skin + in_clothes + sticking
    wanted = in_clothes * GAP / weights.clamp(min=1e-9)  # where the three pulls balance
    return SurfacePairs(
        points=at - wanted[:, None] * outwards,
        normals=outwards,
        weights=torch.where(found, point_weights * weights, torch.zeros_like(weights)),
    )


def redescending(ratio: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Geman and McClure's weight: far outliers lose their pull."""
    return 1 / (1 + ratio.square()).square()


def fitted_points(model: BodyModel) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Vertices of the skin that are fitted, the chance that each is bare, and how much each counts."""
    kinds = torch.tensor([_kind(name) for name in PART_NAMES])[model.parts]
    outer, canonical = outer_skin(model), model.canonical
    ids, bare, weights = [], [], []
    for kind, (name, count) in enumerate(POINTS.items()):
        sides = [canonical[:, 0] > 0, canonical[:, 0] <= 0] if name in ("hand", "foot") else [outer]
        for side in sides:
            candidates = (outer & side & (kinds == kind)).nonzero()[:, 0]
            ids.append(candidates[farthest_points(canonical[candidates], count, first=0)])
            bare.append(torch.full((len(ids[-1]),), BARE_SHARE[name]))
            weights.append(torch.full((len(ids[-1]),), POINT_WEIGHT[name]))
    together, chance = torch.cat(ids), torch.cat(bare)
    head = kinds[together] == list(POINTS).index("head")
    chance[head & ((canonical[together] - torch.tensor(FACE)).norm(dim=-1) < FACE_RADIUS)] = BARE_SHARE["face"]
    return together, chance, torch.cat(weights)


def outer_skin(model: BodyModel) -> Bool[Tensor, " v"]:
    """Vertices of the largest connected piece: not the tongue or the eyes."""
    labels = torch.arange(len(model.canonical))
    edges = torch.cat([model.faces[:, [0, 1]], model.faces[:, [1, 2]], model.faces[:, [2, 0]]])
    while True:
        lower = labels
        for a, b in ((0, 1), (1, 0)):
            lower = lower.scatter_reduce(0, edges[:, a], lower[edges[:, b]], "amin")
        lower = lower[lower]
        if bool((lower == labels).all()):
            return labels == labels.mode().values
        labels = lower


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit normals, averaged over the faces by area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    of_faces = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(0, faces[:, corner], of_faces)
    return F.normalize(total, dim=-1)


def _kind(part: str) -> int:
    for kind, endings in enumerate((("Hand", "HandIndex1"), ("head",), ("Foot", "ToeBase"))):
        if part.endswith(endings):
            return kind
    return len(POINTS) - 1
