"""What a fitted body is judged by: landmarks, limb directions, pose and shape priors, silhouette.

Every residual is divided by the standard deviation that is expected of it, so their squares add up to a negative
log likelihood. Image coordinates are fractions of the crop's side. The frame of the optimisation is the camera's
with the axes of the world: x right, y up, z towards the camera, the camera at the origin.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.fit_freedoms import PoseSpace, left_jacobian
from humansplat.body.fit_landmarks import BONES, bone_matrix
from humansplat.body.fit_rig import ReducedRig
from humansplat.body.fit_silhouette import Silhouette, nearest_points, sample_outside
from humansplat.body.markers import ROOT_MARKER
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.structures import TensorStruct

CROP_FOV = math.radians(30.0)
FOCAL = 0.5 / math.tan(0.5 * CROP_FOV)
"""Focal length of the canonical crop camera in sides of the crop."""


class Evidence(TensorStruct):
    """What was seen of the person, one row a start (starts may read left and right differently)."""

    points: Float[Tensor, "*h 33 2"]
    """Landmarks, fractions of the crop."""
    point_stds: Float[Tensor, "*h 33"]
    """Their deviations; large where a landmark is hidden."""
    directions: Float[Tensor, "*h b 3"]
    """Unit directions of ``BONES`` by the world landmarks."""
    direction_stds: Float[Tensor, "*h b 3"]
    balance: Float[Tensor, "*h 33"]
    """Takes landmarks to the vector from the feet to the person's weight."""
    markers: Float[Tensor, "*h k 3"] | None = None
    """Markers of ``humansplat.body.markers`` in crop units, see ``LiftedMarkers``."""
    marker_stds: Float[Tensor, "*h k 3"] | None = None


def project_fractions(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
    """Image coordinates, fractions of the crop, of points in the frame of the optimisation."""
    x, y, z = points.unbind(-1)
    depth = (-z).clamp(min=0.1)
    return torch.stack([0.5 + FOCAL * x / depth, 0.5 - FOCAL * y / depth], dim=-1)


def projection_rates(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2 3"]:
    """Derivatives of ``project_fractions``."""
    x, y, z = points.unbind(-1)
    depth = (-z).clamp(min=0.1)
    zero = torch.zeros_like(x)
    rows = [
        torch.stack([1 / depth, zero, x / depth.square()], -1),
        torch.stack([zero, -1 / depth, -y / depth.square()], -1),
    ]
    return FOCAL * torch.stack(rows, dim=-2)


class Unknowns:
    """Layout of the vector that is solved for: root turn, place, pose angles, shape.

    The place in a fit to a photo is the root's image position (fractions) and the logarithm of its depth.
    """

    def __init__(self, num_angles: int, num_shape: int) -> None:
        self.sizes = [3, 3, num_angles, num_shape]

    def split(self, unknowns: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Root turn, place, angles and shape offsets."""
        turn, place, angles, shape = unknowns.split(self.sizes, dim=-1)
        return turn, place, angles, shape

    @staticmethod
    def translation(place: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        """Position of the root joint."""
        u, v, log_depth = place.unbind(-1)
        ray = torch.stack([(u - 0.5) / FOCAL, (0.5 - v) / FOCAL, -torch.ones_like(u)], dim=-1)
        return log_depth.exp()[..., None] * ray


@dataclass(frozen=True)
class ShapePrior:
    """Gaussians over the free phenotypes."""

    free: tuple[str, ...] = ("gender", "muscle", "weight", "height", "proportions")
    mean: tuple[float, ...] = (0.5, 0.5, 0.5, 0.37, 0.55)
    std: tuple[float, ...] = (0.35, 0.2, 0.2, 0.06, 0.2)
    """A height of 0.37 is 1.70 m, and 0.06 are 65 mm."""


MARKER_SCALE = 6.0
"""Robust scale of a marker's error, standard deviations."""
BALANCE_STD = 0.06
"""Metres along the line of sight between a standing person's weight and feet; across it the picture shows it."""
BALANCE_SCALE = 3.0
LIMIT_STD = math.radians(4.0)
SHAPE_LIMIT_STD = 0.03
OUTSIDE_STD = 0.008
BOUNDARY_STD = 0.012


def prior_terms(
    space: PoseSpace,
    angles: Float[Tensor, "h a"],
    shape: Float[Tensor, "h q"],
    shape_mean: Float[Tensor, " q"],
    shape_std: Float[Tensor, " q"],
) -> list[tuple[Float[Tensor, "h r"], Float[Tensor, "h r d"]]]:
    """Pose prior and joint limits, shape prior and the ends of the shape's range, whitened, and their derivatives.

    Args:
        space: Pose angles.
        angles: Theirs; unknowns after the six of root turn and place.
        shape: Free phenotypes; the unknowns after the angles add to them.
        shape_mean: Prior of the phenotypes.
        shape_std: Its deviations.
    """
    start, num_unknowns = 6, 6 + angles.shape[1] + shape.shape[1]
    parts = []
    for values, mean, std, lower, upper, give in (
        (angles, space.mean, space.std, space.lower, space.upper, LIMIT_STD),
        (shape, shape_mean, shape_std, shape.new_zeros(()), shape.new_ones(()), SHAPE_LIMIT_STD),
    ):
        beyond = values - torch.minimum(torch.maximum(values, lower), upper)
        size = values.shape[1]
        by = values.new_zeros(len(values), 2 * size, num_unknowns)
        by[:, :size, start : start + size] = torch.diag(1 / std)
        by[:, size:, start : start + size] = torch.diag_embed((beyond != 0) / give)
        parts.append((torch.cat([(values - mean) / std, beyond / give], dim=1), by))
        start += size
    return parts


class BodyProblem:
    """Residuals of a pose and shape for the solver.

    Args:
        rig: Its first points must be those of ``landmarks``.
        space: Pose angles.
        landmarks: Weights of the 33 landmarks over the rig's first points.
        markers: Weights of the markers over the same points.
        evidence: One row a start.
        turns: Root orientation of every start, which the solved turn follows.
        phenotypes: Shape of every start about which it is linearised.
        free: Indices of the free phenotypes.
        prior: Shape prior.
        pitch: How far the camera looks down, radians.
        silhouette: The mask's; ``None`` leaves it out.
    """

    def __init__(
        self,
        rig: ReducedRig,
        space: PoseSpace,
        landmarks: Float[Tensor, "33 n"],
        markers: Float[Tensor, "k n"],
        evidence: Evidence,
        turns: Float[Tensor, "h 3 3"],
        phenotypes: Float[Tensor, "h p"],
        free: Int[Tensor, " q"],
        prior: ShapePrior,
        pitch: Float[Tensor, ""],
        silhouette: Silhouette | None = None,
    ) -> None:
        self.rig, self.space, self.evidence = rig, space, evidence
        self.landmarks, self.markers = landmarks, markers
        self.turns, self.silhouette = turns, silhouette
        self.unknowns = Unknowns(len(space.freedoms), len(free))
        self.shape0 = phenotypes[:, free]
        self.rest, self.rest_by_shape = rig.linearised(phenotypes, free)
        self.shape_mean, self.shape_std = torch.tensor(prior.mean), torch.tensor(prior.std)
        self.bones = bone_matrix()
        level = torch.stack([torch.zeros_like(pitch), -pitch.sin(), pitch.cos()])  # horizontal, towards the camera
        self.lean = level / BALANCE_STD
        self.num_outside = len(rig.weights) - landmarks.shape[1]

    def evaluate(
        self, x: Float[Tensor, "h d"], with_jacobian: bool
    ) -> tuple[Float[Tensor, "h r"], Float[Tensor, "h r d"] | None]:
        """All residuals, whitened, in the order of ``groups``, and their derivatives.

        The silhouette's correspondences are found anew at ``x`` and count as constant in the derivatives.
        """
        points, moved = self._points(x, with_jacobian)
        count = self.landmarks.shape[1]
        landmarks = self.landmarks @ points[:, :count]
        by_landmark = None if moved is None else torch.einsum("lp,hpad->hlad", self.landmarks, moved[:, :count])
        parts = [*self._landmark_terms(landmarks, by_landmark), *self._prior_terms(x)]
        if self.evidence.markers is not None:
            parts.append(self._marker_term(points[:, :count], None if moved is None else moved[:, :count]))
        if self.silhouette is not None:
            parts += self._silhouette_terms(points[:, count:], None if moved is None else moved[:, count:])
        residuals = torch.cat([part for part, _ in parts], dim=1)
        return residuals, None if moved is None else torch.cat([part for _, part in parts if part is not None], dim=1)

    def _points(self, x: Tensor, with_jacobian: bool) -> tuple[Float[Tensor, "h n 3"], Tensor | None]:
        """The rig's points in the frame of the optimisation, and their derivatives."""
        turn, place, angles, shape = self.unknowns.split(x)
        rest = self.rest + (self.rest_by_shape @ shape[:, None, :, None])[..., 0]
        root = self.turns @ axis_angle_to_matrix(turn)
        rotations = torch.cat([root[:, None], self.space.rotations(angles)[:, 1:]], dim=1)
        translation = Unknowns.translation(place)
        points = self.rig.place(rest, rotations, translation)
        if not with_jacobian:
            return points, None
        spins = torch.cat([angles.new_zeros(*rotations.shape[:-1], 3), self.space.spins(angles)], dim=-1)
        spins[:, 0, :, :3] = self.turns @ left_jacobian(turn)
        depth = translation[:, 2:].neg()
        by_place = torch.diag_embed(torch.cat([depth / FOCAL, -depth / FOCAL, torch.zeros_like(depth)], dim=1))
        by_place[:, :, 2] = translation
        return points, self.rig.rates(rest, self.rest_by_shape, rotations, translation, spins, by_place)

    def _landmark_terms(self, landmarks: Tensor, moved: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        """Landmarks in the picture and directions of the limbs."""
        seen = self.evidence
        place = (project_fractions(landmarks) - seen.points) / seen.point_stds[..., None]
        bones = self.bones @ landmarks
        length = bones.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        unit = bones / length
        along = (unit - seen.directions) / seen.direction_stds
        lean = torch.einsum("hl,hla,a->h", seen.balance, landmarks, self.lean)[:, None]
        if moved is None:
            return [(place.flatten(1), None), (along.flatten(1), None), (lean, None)]
        place_by = projection_rates(landmarks) @ moved / seen.point_stds[..., None, None]
        across = (torch.eye(3) - unit[..., :, None] * unit[..., None, :]) / length[..., None]
        along_by = across @ torch.einsum("bl,hlad->hbad", self.bones, moved) / seen.direction_stds[..., None]
        lean_by = torch.einsum("hl,hlad,a->hd", seen.balance, moved, self.lean)[:, None]
        return [
            (place.flatten(1), place_by.flatten(1, 2)),
            (along.flatten(1), along_by.flatten(1, 2)),
            (lean, lean_by),
        ]

    def _marker_term(self, points: Tensor, moved: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Markers in the picture and in depth against the root's."""
        seen, stds = self.evidence.markers, self.evidence.marker_stds
        assert seen is not None
        assert stds is not None
        places = self.markers @ points
        depth = places[..., 2:].neg().clamp(min=0.1)
        root = depth[:, ROOT_MARKER, None]
        along = FOCAL * (depth / root - 1)
        value = (torch.cat([project_fractions(places), along], dim=-1) - seen) / stds
        if moved is None:
            return value.flatten(1), None
        rates = torch.einsum("kp,hpad->hkad", self.markers, moved)
        nearing = rates[..., 2:, :].neg()
        along_by = FOCAL * (
            nearing / root[..., None] - (depth / root.square())[..., None] * nearing[:, ROOT_MARKER, None]
        )
        by = torch.cat([projection_rates(places) @ rates, along_by], dim=-2) / stds[..., None]
        return value.flatten(1), by.flatten(1, 2)

    def _prior_terms(self, x: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Pose prior, joint limits, shape prior and the ends of the shape's range."""
        _, _, angles, shape = self.unknowns.split(x)
        return [*prior_terms(self.space, angles, self.shape0 + shape, self.shape_mean, self.shape_std)]

    def _silhouette_terms(self, points: Tensor, moved: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        """Body points outside the mask, and contour points against the body points that belong to them."""
        assert self.silhouette is not None
        target = self.silhouette
        pixels = project_fractions(points)
        distance, slope = sample_outside(target, pixels)
        nearest = nearest_points(target.boundary, target.normals, pixels)
        rows = torch.arange(len(points))[:, None]
        gap = ((pixels[rows, nearest] - target.boundary) * target.normals).sum(-1)
        if moved is None:
            return [(distance / OUTSIDE_STD, None), (gap / BOUNDARY_STD, None)]
        rates = projection_rates(points)
        slope = slope * (distance > 0)[..., None] / OUTSIDE_STD
        outside_by = ((slope[..., None, :] @ rates) @ moved)[..., 0, :]
        gap_by = ((target.normals[:, None] / BOUNDARY_STD) @ rates[rows, nearest]) @ moved[rows, nearest]
        return [(distance / OUTSIDE_STD, outside_by), (gap / BOUNDARY_STD, gap_by[..., 0, :])]

    def groups(self, point_scale: float, direction_scale: float) -> tuple[Int[Tensor, " r"], Float[Tensor, " g"]]:
        """Robust groups of the residuals and their scales, in standard deviations."""
        angles, shape = self.unknowns.sizes[2:]
        layout = [(33, 2, point_scale), (len(BONES), 3, direction_scale), (1, 1, BALANCE_SCALE)]
        layout += [(angles, 1, 3.0), (angles, 1, math.inf), (shape, 1, math.inf), (shape, 1, math.inf)]
        if self.evidence.markers is not None:
            layout += [(len(self.markers), 3, MARKER_SCALE)]
        if self.silhouette is not None:
            layout += [(self.num_outside, 1, 8.0), (len(self.silhouette.boundary), 1, 2.0)]
        groups, scales, start = [], [], 0
        for count, width, scale in layout:
            groups.append(torch.arange(count).repeat_interleave(width) + start)
            scales.append(torch.full((count,), scale))
            start += count
        return torch.cat(groups), torch.cat(scales)
