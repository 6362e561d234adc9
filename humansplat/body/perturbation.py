"""Wrong bodies of any model: its parameters in the terms of ``humansplat.body.noise`` and back, or plainly noised."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.body.noise import BodyNoise
from humansplat.body.protocol import BodyModel
from humansplat.body.smpl import HAND_POSES, ROTATIONS, SmplBody
from humansplat.config import NoiseLevels
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import PosedBody

SHAPE_RANGE = 8.0
"""A phenotype's range of 1 in standard deviations of a shape coefficient: people lie within four of the mean."""
_COUNTERPARTS = {
    "pelvis": "root", "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "spine1": "spine04",
    "spine2": "spine03", "spine3": "spine01", "neck": "neck02", "head": "head", "shoulder": "upperarm01",
    "elbow": "lowerarm01", "wrist": "wrist", "foot": "toe1-1",
}  # fmt: skip
"""The default body's joint that a joint of the SMPL family is nearest to, without sides; of five spines three."""
_FINGERS = ("index", "middle", "pinky", "ring", "thumb")


class Perturbation(nn.Module):
    """Poses people wrongly as a fit from one picture does; see ``BodyNoise``.

    Args:
        levels: Standard deviations.
        body: The model of the people: the default body or one of the SMPL family.

    Raises:
        UserError: If the model is neither.
    """

    def __init__(self, levels: NoiseLevels, body: BodyModel) -> None:
        super().__init__()
        skeleton = getattr(body, "skeleton", None)
        if (
            not isinstance(body, nn.Module)
            or skeleton is None
            or not (isinstance(body, SmplBody) or body.name == "anny")
        ):
            raise UserError(f"there is no noise for bodies of the model {body.name!r}: set wrong_bodies to 0")
        names = [counterpart(name) for name in body.joint_names] if isinstance(body, SmplBody) else body.joint_names
        self.levels, self.body = levels, body
        self.noise = BodyNoise(levels, names, skeleton)

    def forward(
        self,
        posed: PosedBody,
        centers: Float[Tensor, "b 3"],
        amount: Float[Tensor, " b"],
        generator: torch.Generator,
    ) -> PosedBody:
        """Draw one wrong body for each true one; no synchronisation with the device.

        Args:
            posed: True bodies ``[b]`` with their parameters.
            centers: Of the cameras that took the photographs, world frame, metres.
            amount: What the levels are multiplied by for each body, >= 0; at 0 a body stays as it is.
            generator: On the tensors' device.

        Raises:
            UserError: If the parameters are not known.
        """
        given = posed.parameters
        if not given:
            raise UserError(f"these {posed.model} bodies have no parameters to perturb: set wrong_bodies to 0")
        root = posed.joints[:, 0]
        how = {"viewing": F.normalize(root - centers, dim=-1), "amount": amount, "generator": generator}
        body = self.body
        if not isinstance(body, SmplBody):
            return body.pose(self.noise(**given, **how))
        rotations = torch.cat([given[name] for name in ROTATIONS[body.name]], dim=-1).unflatten(-1, (-1, 3))
        shape = given["betas"] / SHAPE_RANGE + 0.5
        wrong = self.noise(phenotypes=shape, rotations=rotations, translation=root, **how)
        return body.pose(smpl_parameters(body, given, wrong))


@torch.no_grad()
def noised_body(body: BodyModel, posed: PosedBody, amount: float, generator: torch.Generator) -> PosedBody:
    """A body with normal noise of one standard deviation on all its parameters, as published comparisons perturb it.

    Each joint is turned further, in its own frame, by a rotation vector of ``amount`` radians an axis; coefficients
    of shape change by ``amount`` (phenotypes stay from 0 to 1), as do those of SMPL's hands, and the translation by
    ``amount`` metres an axis. Expressions stay.

    Args:
        body: The model of ``posed``.
        posed: With its parameters, of any batch shape.
        amount: Standard deviation, >= 0.
        generator: On the parameters' device.

    Raises:
        UserError: If the parameters are not known.
    """
    if not posed.parameters:
        raise UserError("this body has no parameters to perturb; take bodies true or fitted")
    rotations = ROTATIONS.get(body.name, {"rotations": len(body.joint_names)})
    wrong = dict(posed.parameters)
    for name in body.parameter_shapes:
        if name not in wrong or name == "expression":
            continue
        value = wrong[name]
        noise = amount * torch.randn(value.shape, generator=generator, device=value.device)
        if name in rotations and name not in HAND_POSES:
            turn = axis_angle_to_matrix(value.reshape(-1, 3)) @ axis_angle_to_matrix(noise.reshape(-1, 3))
            wrong[name] = matrix_to_axis_angle(turn).reshape(value.shape)
        else:
            wrong[name] = (value + noise).clamp(0.0, 1.0) if name == "phenotypes" else value + noise
    return body.pose(wrong)


def counterpart(name: str) -> str:
    """The joint of the default body that a joint of the SMPL family stands for; unknown ones go with their parents."""
    base = name.removeprefix("left_").removeprefix("right_")
    if base.startswith(_FINGERS):
        return f"finger-{name}"
    return _COUNTERPARTS.get(base, base)


def smpl_parameters(body: SmplBody, given: Mapping[str, Tensor], wrong: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Back from shape in [0, 1], one row of rotations and the place of the pelvis."""
    widths = [3 * joints for joints in ROTATIONS[body.name].values()]
    turns = dict(zip(ROTATIONS[body.name], wrong["rotations"].flatten(-2).split(widths, dim=-1), strict=True))
    betas = (wrong["phenotypes"] - 0.5) * SHAPE_RANGE
    shape = {name: value for name, value in given.items() if name == "expression"} | {"betas": betas}
    at_rest = body.joints_only({**shape, "transl": torch.zeros_like(given["transl"])})[..., 0, :]
    return {**given, **turns, **shape, "transl": wrong["translation"] - at_rest}
