"""Fit a body model to what capture saw of a person: pose, shape and the canonical camera.

Damped Gauss-Newton steps over some fifty unknowns, for several readings of the picture at once: first
landmarks, lifted markers and limb directions alone, then, for the best few, with the silhouette. The camera looks
through the canonical crop (angle of view 30 degrees), which leaves the scale open; the prior on shape closes it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_freedoms import PoseSpace, all_freedoms, relaxed_hands
from humansplat.body.fit_landmarks import BONES, LANDMARK_STD, balance_row, bone_matrix, detector_map
from humansplat.body.fit_report import BodyFit, judged, world_frame
from humansplat.body.fit_rig import ReducedRig
from humansplat.body.fit_silhouette import Silhouette, silhouette_from_mask
from humansplat.body.fit_solver import minimise
from humansplat.body.fit_start import (
    camera_pitch,
    depth_reversed,
    lifted_pitch,
    lifted_world,
    readings,
    start_angles,
    start_place,
    swapped,
    torso_orientation,
)
from humansplat.body.fit_terms import BodyProblem, Evidence, ShapePrior, Unknowns
from humansplat.body.landmarks import NUM_LANDMARKS
from humansplat.body.markers import marker_map
from humansplat.body.protocol import BodyModel
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.geometry.sampling import farthest_points
from humansplat.structures import LiftedMarkers, TensorStruct


@dataclass(frozen=True)
class FitSettings:
    """How much work a fit does."""

    num_vertices: int = 700
    """Vertices that meet the silhouette."""
    pose_steps: int = 12
    contour_steps: int = 14
    num_kept: int = 3
    """Readings that reach the silhouette."""
    twin_penalty: float = 40.0
    """Cost of reading left as right: the detector is seldom wrong about that."""
    shape: ShapePrior = field(default_factory=ShapePrior)
    marker_factor: float = 1.5
    """Standard deviations of markers are so many times what the lifter says: its errors go together within a limb."""
    min_marker_std: float = 0.01
    """Crop units."""
    direction_factor: float = 10.0
    """The world landmarks' directions count so many times less beside a lifter."""


def fit_body(
    landmarks: Float[Tensor, "33 2"],
    visibility: Float[Tensor, " 33"],
    world_landmarks: Float[Tensor, "33 3"],
    mask: Float[Tensor, "s s"],
    model: BodyModel,
    settings: FitSettings | None = None,
    lifted: LiftedMarkers | None = None,
) -> BodyFit:
    """Fit a body to one picture; for many, make one ``BodyFitter`` and call it.

    Args:
        landmarks: MediaPipe's 33 landmarks, crop pixels.
        visibility: How sure each is to be seen, in ``[0, 1]``.
        world_landmarks: Metres, camera axes (x right, y down, z away); only their directions are used.
        mask: Soft mask over the canonical crop; its side gives the size of a pixel.
        model: The default body; its skeleton's names are what the table of freedoms knows.
        settings: Defaults fit in a few seconds on two cores.
        lifted: What a lifter says of the crop. Without it the depth comes from the world landmarks alone, which is
            much less true.

    Raises:
        UserError: If the mask is empty, a landmark is not a number, or the model is another.
    """
    return BodyFitter(model, settings)(landmarks, visibility, world_landmarks, mask, lifted)


LAPLACE_STD = 2.0**0.5
"""Standard deviation of a Laplace distribution of scale 1."""
MIN_SHAPE_STD = 0.03
SAME_POSE = 0.15
"""Starts whose angles all agree to this, radians, count as one."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread for a while: a thousand small products gain nothing by more, and wait for each other.

    Where other programs share the cores two threads made a fit three times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class BodyFitter:
    """Fits one body model to pictures; what depends only on the model is made once."""

    def __init__(self, model: BodyModel, settings: FitSettings | None = None) -> None:
        if not isinstance(model, AnnyBody):
            raise UserError(
                f"a body can be fitted with the model 'anny' only, got {model.name!r}; pass body.npz instead"
            )
        self.model, self.settings = model, settings or FitSettings()
        moving = {joint for freedom in all_freedoms() for joint, _ in freedom.shares}
        self.landmarks = detector_map(model)
        markers = marker_map(model)
        joint_weights = torch.cat([self.landmarks.joint_weights, markers.joint_weights])
        joint_ids = joint_weights.any(dim=0).nonzero()[:, 0]
        vertex_ids = torch.cat([self.landmarks.vertex_ids, markers.vertex_ids])
        vertex_weights = torch.block_diag(self.landmarks.vertex_weights, markers.vertex_weights)
        weights = torch.cat([joint_weights[:, joint_ids], vertex_weights], dim=1)
        self.landmark_weights, self.marker_weights = weights.tensor_split([NUM_LANDMARKS])
        self.relaxed = relaxed_hands(model)
        self.landmark_rig = ReducedRig(model, moving, joint_ids, vertex_ids, self.relaxed)
        contour_ids = farthest_points(model.canonical, self.settings.num_vertices, first=0)
        self.contour_rig = ReducedRig(model, moving, joint_ids, torch.cat([vertex_ids, contour_ids]), self.relaxed)
        names = self.landmark_rig.joint_names
        rest = self.landmark_rig.rest(model.neutral()["phenotypes"])[1]
        self.rest_joints = dict(zip(names, rest, strict=True))
        self.space = PoseSpace(names, self.rest_joints)

    @torch.no_grad()
    @one_thread()
    def __call__(
        self,
        landmarks: Float[Tensor, "33 2"],
        visibility: Float[Tensor, " 33"],
        world_landmarks: Float[Tensor, "33 3"],
        mask: Float[Tensor, "s s"],
        lifted: LiftedMarkers | None = None,
    ) -> BodyFit:
        """Fit; see ``fit_body``."""
        side = mask.shape[0]
        check_inputs(landmarks, visibility, world_landmarks, mask)
        world = world_landmarks * world_landmarks.new_tensor([1.0, -1.0, -1.0])  # y up, z towards the camera
        pitch, world = camera_pitch(world, landmarks / side)
        if lifted is None:
            shape, phenotypes = self.settings.shape, self.model.neutral()["phenotypes"]
            worlds = readings(world)
        else:
            shape = lifted_shape(self.settings.shape, lifted, self.model.phenotype_names)
            phenotypes = lifted.phenotypes
            pitch, worlds = lifted_pitch(lifted), [lifted_world(lifted)]
        direct = [(landmarks, visibility, reading) for reading in worlds]
        twin = (swapped(landmarks), swapped(visibility[:, None])[:, 0], depth_reversed(world))
        seen = [evidence_from(points / side, visible, world) for points, visible, world in [direct[0], twin]]
        evidence = stack([seen[0]] * len(direct) + [seen[1]])
        if lifted is not None:
            evidence = with_markers(evidence, lifted, self.settings)
        penalty = torch.tensor([0.0] * len(direct) + [self.settings.twin_penalty])

        scene = Scene(pitch=pitch, shape=shape, silhouette=None)
        state = self._start([world for _, _, world in [*direct, twin]], evidence, phenotypes)
        steps = self.settings.pose_steps // 2
        state, _ = self._solve(self.landmark_rig, evidence, state, scene, steps, point_scale=8.0)
        state, cost = self._solve(self.landmark_rig, evidence, state, scene, steps)
        kept = distinct_best(cost + penalty, state.angles, self.settings.num_kept)
        evidence, state, penalty = evidence[kept], state[kept], penalty[kept]
        scene = replace(scene, silhouette=silhouette_from_mask(mask))
        for _ in range(2):
            state, cost = self._solve(self.contour_rig, evidence, state, scene, self.settings.contour_steps // 2)
        best = int((cost + penalty).argmin())
        if kept[best] == len(direct):
            visibility = swapped(visibility[:, None])[:, 0]
        return self._report(state[best], pitch, evidence.points[best] * side, visibility, mask)

    def _start(self, worlds: list[Tensor], evidence: Evidence, phenotypes: Float[Tensor, " p"]) -> "State":
        """Closed-form poses of the readings, placed where the landmarks are seen."""
        names = self.landmark_rig.joint_names
        turns = torch.stack([torso_orientation(world) for world in worlds])
        angles = torch.stack(
            [start_angles(w, turn, self.space, names, self.rest_joints) for w, turn in zip(worlds, turns, strict=True)]
        )
        phenotypes = phenotypes.repeat(len(worlds), 1)
        rotations = torch.cat([turns[:, None], self.space.rotations(angles)[:, 1:]], dim=1)
        rest = torch.cat(self.landmark_rig.rest(phenotypes), dim=1)
        points = self.landmark_rig.place(rest, rotations, torch.zeros(len(worlds), 3))
        place = start_place(self.landmark_weights @ points, evidence.points, evidence.point_stds**-2)
        return State(turns=turns, place=place, angles=angles, phenotypes=phenotypes)

    def _solve(
        self,
        rig: ReducedRig,
        evidence: Evidence,
        state: "State",
        scene: "Scene",
        steps: int,
        point_scale: float = 4.0,
    ) -> tuple["State", Float[Tensor, " h"]]:
        """Some steps about a linearised shape."""
        free = torch.tensor([self.model.phenotype_names.index(name) for name in scene.shape.free])
        problem = BodyProblem(
            rig,
            self.space,
            self.landmark_weights,
            self.marker_weights,
            evidence,
            state.turns,
            state.phenotypes,
            free,
            scene.shape,
            scene.pitch,
            scene.silhouette,
        )
        zeros = torch.zeros_like
        x = torch.cat([zeros(state.place), state.place, state.angles, zeros(state.phenotypes[:, free])], dim=1)
        x, cost = minimise(problem.evaluate, x, *problem.groups(point_scale, 3.0), iterations=steps)
        turn, place, angles, shape = problem.unknowns.split(x)
        phenotypes = state.phenotypes.clone()
        phenotypes[:, free] = (phenotypes[:, free] + shape).clamp(0, 1)
        turns = state.turns @ axis_angle_to_matrix(turn)
        return State(turns=turns, place=place, angles=angles, phenotypes=phenotypes), cost

    def _report(
        self,
        state: "State",
        pitch: Float[Tensor, ""],
        landmarks: Float[Tensor, "33 2"],
        visibility: Float[Tensor, " 33"],
        mask: Float[Tensor, "s s"],
    ) -> BodyFit:
        """Carry the result into the world frame and judge it there."""
        rotations = self.relaxed.clone()
        local = self.space.rotations(state.angles)
        rotations[self.landmark_rig.joint_ids] = matrix_to_axis_angle(local)
        rotations[0] = matrix_to_axis_angle(state.turns)
        translation = Unknowns.translation(state.place)
        parameters = {"phenotypes": state.phenotypes, "rotations": rotations, "translation": translation}
        body, camera = world_frame(self.model, parameters, pitch, mask.shape[0])
        return judged(body, camera, self.landmarks, landmarks, visibility, mask)


@dataclass(frozen=True)
class Scene:
    """What a fit knows beside its evidence."""

    pitch: Float[Tensor, ""]
    """How far the camera looks down, radians."""
    shape: ShapePrior
    silhouette: Silhouette | None
    """The mask's; ``None`` leaves it out."""


class State(TensorStruct):
    """Where the optimisation stands, one row a start."""

    turns: Float[Tensor, "*h 3 3"]
    """Root orientation in the frame of the optimisation."""
    place: Float[Tensor, "*h 3"]
    """See ``Unknowns``."""
    angles: Float[Tensor, "*h d"]
    phenotypes: Float[Tensor, "*h p"]


def check_inputs(landmarks: Tensor, visibility: Tensor, world_landmarks: Tensor, mask: Tensor) -> None:
    """Refuse what cannot be fitted.

    Raises:
        UserError: If a landmark is not a finite number or the mask is empty.
    """
    if not all(bool(values.isfinite().all()) for values in (landmarks, visibility, world_landmarks, mask)):
        raise UserError("a landmark or the mask holds values that are not numbers; detect them again")
    if not bool((mask > 0.5).any()) or bool((mask > 0.5).all()):
        raise UserError("the mask is empty or full; give one that is 1 on the person and 0 elsewhere")


def evidence_from(
    points: Float[Tensor, "33 2"], visibility: Float[Tensor, " 33"], world: Float[Tensor, "33 3"]
) -> Evidence:
    """Landmarks with deviations that grow as visibility falls; fractions of the crop, y up and z to the camera."""
    visible = visibility.clamp(0.0, 1.0)
    stds = torch.tensor(LANDMARK_STD) * (1.0 + 3.0 * (1.0 - visible))
    directions = F.normalize(bone_matrix() @ world, dim=-1)
    ends = torch.stack([visible[list({*bone.start, *bone.end})].min() for bone in BONES])
    direction_stds = torch.tensor([(bone.std, bone.std, bone.depth_std) for bone in BONES]) * (2.0 - ends)[:, None]
    return Evidence(
        points=points,
        point_stds=stds,
        directions=directions,
        direction_stds=direction_stds,
        balance=balance_row(points),
    )


def with_markers(evidence: Evidence, lifted: LiftedMarkers, settings: FitSettings) -> Evidence:
    """Evidence with what the lifter says beside it, in every row; it knows better than balance how a body leans."""
    scales = settings.marker_factor * lifted.point_scales
    stds = torch.cat([scales[:, :1], scales], dim=-1).clamp(min=settings.min_marker_std)
    count = len(evidence.points)
    return replace(
        evidence,
        direction_stds=settings.direction_factor * evidence.direction_stds,
        balance=torch.zeros_like(evidence.balance),
        markers=lifted.points.expand(count, -1, -1),
        marker_stds=stds.expand(count, -1, -1),
    )


def lifted_shape(prior: ShapePrior, lifted: LiftedMarkers, names: Sequence[str]) -> ShapePrior:
    """The lifter's opinion of the free phenotypes as their prior: it knows the spread of the people it learned on."""
    chosen = [names.index(name) for name in prior.free]
    stds = (LAPLACE_STD * lifted.phenotype_scales[chosen]).clamp(min=MIN_SHAPE_STD)
    return replace(prior, mean=tuple(lifted.phenotypes[chosen].tolist()), std=tuple(stds.tolist()))


def stack(rows: list[Evidence]) -> Evidence:
    """One row a start."""
    return Evidence(
        points=torch.stack([row.points for row in rows]),
        point_stds=torch.stack([row.point_stds for row in rows]),
        directions=torch.stack([row.directions for row in rows]),
        direction_stds=torch.stack([row.direction_stds for row in rows]),
        balance=torch.stack([row.balance for row in rows]),
    )


def distinct_best(cost: Float[Tensor, " h"], angles: Float[Tensor, "h d"], count: int) -> Int[Tensor, " k"]:
    """The cheapest starts that did not end in the same pose."""
    kept: list[int] = []
    for index in cost.argsort().tolist():
        if all((angles[index] - angles[other]).abs().max() > SAME_POSE for other in kept):
            kept.append(index)
        if len(kept) == count:
            break
    return torch.tensor(kept)
