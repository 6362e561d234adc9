"""Another body model, SMPL say, in the place of the default body that was fitted to a scan.

The canonical positions say which points of the two skins belong together. Each joint's turn follows from how the skin
that it carries is turned (Kabsch's closed form); then Gauss-Newton steps over the model's own parameters bring the
skins together, and the skin to the scan. Derivatives are differences over a batch, so that any model will do.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from humansplat.body.protocol import BodyModel
from humansplat.body.scan_surface_terms import SurfaceTarget, fitted_points, surface_pairs, vertex_normals
from humansplat.body.smpl import HAND_POSES, ROTATIONS
from humansplat.errors import UserError
from humansplat.geometry.rotations import matrix_to_axis_angle
from humansplat.structures import PosedBody

NUM_SHAPES = 10
"""Shape coefficients that are fitted."""
HELD = ("jaw_pose", "leye_pose", "reye_pose", "expression")
"""Parameters that are not: nothing here tells them."""
CORRESPONDENCE_STD = 0.012
"""Metres between points of two models' skins that have the same canonical position."""
FAR_STD = 0.03
"""Metres of canonical distance at which corresponding points count e times less."""
SHAPE_STD, TURN_STD, FINGER_STD = 1.0, math.radians(25), math.radians(10)
TORN = 0.1
"""Metres between corresponding points from which on they lose their pull."""
DAMPING = 1.0
"""Keeps parameters that no point tells where they are; points add thousands."""
DIFFERENCE = 1e-3
"""Step of the differences, in each parameter's own unit."""
ROUNDS = 5
MIN_CARRIED = 0.4
"""Skinning weight from which a vertex is carried by a joint."""


@torch.no_grad()
def transfer(model: BodyModel, body: PosedBody, target: SurfaceTarget | None = None) -> PosedBody:
    """Pose a model as the default body is.

    Args:
        model: Of the SMPL family.
        body: The default body, fitted; unbatched.
        target: The scan's surface, for the last rounds; without it the skins are brought together only.

    Returns:
        The posed model in the frame of ``body``.

    Raises:
        UserError: If the model is not of the SMPL family.
    """
    check_model(model)
    problem = _Transfer(model, body, target)
    x = problem.pack(problem.start())
    for index in range(ROUNDS):
        x = problem.step(x, index / (ROUNDS - 1))
    return model.pose(problem.unpack(x))


def check_model(model: BodyModel) -> None:
    """Refuse models that scans cannot be fitted with.

    Raises:
        UserError: If the model is neither the default body nor of the SMPL family.
    """
    known = ("anny", *ROTATIONS)
    if model.name not in known:
        raise UserError(f"a scan is fitted with one of {', '.join(known)}, not with {model.name!r}")


class _Transfer:
    """One model and one body."""

    def __init__(self, model: BodyModel, body: PosedBody, target: SurfaceTarget | None) -> None:
        self.model, self.target = model, target
        self.ids, self.bare, self.point_weights = fitted_points(model)
        self.few = model.subset(self.ids)
        distance, nearest = cKDTree(body.canonical.numpy()).query(model.canonical.numpy(), k=4)
        near = torch.from_numpy(distance).float().clamp(min=1e-4)
        share = (1 / near.square()) / (1 / near.square()).sum(dim=1, keepdim=True)
        self.places = (body.vertices[torch.from_numpy(nearest)] * share[..., None]).sum(dim=1)
        self.trust = (-near[:, 0] / FAR_STD).exp()
        self.names = [name for name in model.parameter_shapes if name not in HELD]
        widths = {name: model.parameter_shapes[name][0] for name in self.names}
        widths["betas"] = min(widths["betas"], NUM_SHAPES)
        self.widths = [widths[name] for name in self.names]
        self.neutral = model.neutral()
        self.precision = torch.cat([self._precision(name, widths[name]) for name in self.names])
        self.prior = self.pack(self.neutral)

    def _precision(self, name: str, width: int) -> Float[Tensor, " w"]:
        std = {"betas": SHAPE_STD, "body_pose": TURN_STD}.get(name, FINGER_STD if name in HAND_POSES else math.inf)
        return torch.full((width,), 1 / std)

    def pack(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, " d"]:
        """The fitted parameters as one vector."""
        return torch.cat([parameters[name][:width] for name, width in zip(self.names, self.widths, strict=True)])

    def unpack(self, x: Float[Tensor, "*b d"]) -> dict[str, Tensor]:
        return dict(zip(self.names, x.split(self.widths, dim=-1), strict=True))

    def start(self) -> dict[str, Tensor]:
        """Each joint turned as the skin that it carries is."""
        rest = self.model.pose(self.neutral)
        turned: list[Tensor] = []
        local: list[Tensor] = []
        for joint, parent in enumerate(self.model.joint_parents):
            carried = self.model.weights[:, joint] * (self.model.weights[:, joint] > MIN_CARRIED) * self.trust
            above = turned[parent] if parent >= 0 else torch.eye(3)
            if joint == 0:  # the root joint's skin is small and soft: all of the trunk tells the turn
                carried = self.model.weights[:, [0, *self._children(0)]].sum(dim=1) * self.trust
            enough = int((carried > 0).sum()) >= 4
            turned.append(kabsch(rest.vertices, self.places, carried) if enough else above)
            local.append(matrix_to_axis_angle(above.mT @ turned[-1]))
        parameters = dict(self.neutral)
        first = 0
        for name, joints in ROTATIONS[self.model.name].items():
            rotations = torch.stack(local[first : first + joints]).flatten()
            first += joints
            if name not in HELD and name not in HAND_POSES:
                parameters[name] = rotations
        posed = self.model.pose(parameters)
        weight = self.trust[:, None] / self.trust.sum()
        parameters["transl"] = parameters["transl"] + ((self.places - posed.vertices) * weight).sum(dim=0)
        self.prior = self.pack(parameters)
        self.prior[self._slice("betas")] = 0.0
        return parameters

    def _children(self, joint: int) -> list[int]:
        return [index for index, parent in enumerate(self.model.joint_parents) if parent == joint]

    def _slice(self, name: str) -> slice:
        index = self.names.index(name)
        begin = sum(self.widths[:index])
        return slice(begin, begin + self.widths[index])

    def step(self, x: Float[Tensor, " d"], share: float) -> Float[Tensor, " d"]:
        """One Gauss-Newton step."""
        moved = x + DIFFERENCE * torch.cat([torch.zeros(1, len(x)), torch.eye(len(x))])
        skins = self.few.pose(self.unpack(moved)).vertices
        rates = (skins[1:] - skins[0]).movedim(0, -1) / DIFFERENCE  # [n, 3, d]
        value = skins[0] - self.places[self.ids]
        weights = self.trust[self.ids] / CORRESPONDENCE_STD**2 * self.point_weights
        weights = weights / (1 + value.square().sum(dim=-1) / TORN**2)
        flat = rates.flatten(0, 1)
        normal = flat.mT @ (flat * weights.repeat_interleave(3)[:, None])
        slope = flat.mT @ (value * weights[:, None]).flatten()
        if self.target is not None:
            whole = self.model.pose(self.unpack(x)).vertices
            normals = vertex_normals(whole, self.model.faces)[self.ids]
            pairs = surface_pairs(skins[0], normals, self.target, self.bare, self.point_weights, share)
            gaps = ((skins[0] - pairs.points) * pairs.normals).sum(dim=-1)
            by = (pairs.normals[:, None] @ rates)[:, 0]
            normal = normal + by.mT @ (by * pairs.weights[:, None])
            slope = slope + by.mT @ (gaps * pairs.weights)
        squared = self.precision.square()
        normal = normal + torch.diag(squared + DAMPING)
        return x - torch.linalg.solve(normal, slope + squared * (x - self.prior))


def kabsch(
    points: Float[Tensor, "n 3"], places: Float[Tensor, "n 3"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "3 3"]:
    """The rotation that, with a shift, takes points to places best (Kabsch, 1976)."""
    share = weights[:, None] / weights.sum()
    a, b = (values - (share * values).sum(dim=0) for values in (points, places))
    u, _, vt = torch.linalg.svd((share * a).mT @ b)
    sign = torch.ones(3)
    sign[2] = torch.linalg.det(vt.mT @ u.mT).sign()
    return vt.mT @ torch.diag(sign) @ u.mT
