"""The default body inside a rigged character: fitted to it as bound, moved along with its skeleton, fitted again."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from humansplat.body.anny import AnnyBody
from humansplat.data.rigged.character import Character
from humansplat.data.rigged.retarget import Retarget, local_rotations, world_turns
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, ScanFit


@runtime_checkable
class BodyFitter(Protocol):
    """What fits the default body to meshes: ``ScanFitter``."""

    def __call__(self, meshes: Sequence[ShadedMesh], *, start: PosedBody | None = None) -> ScanFit: ...


def fit_bound(character: Character, body: AnnyBody, fitter: BodyFitter) -> ScanFit:
    """Fit the default body to a character as it was bound, which tells its shape.

    The landmarks of a drawing-like face may not be found, but the skeleton tells the pose as well; so a fit that is
    not trusted is tried again from there.
    """
    meshes = character.skinned(character.rest)
    fit = fitter(meshes)
    if fit.flags and character.retarget is not None:
        again = fitter(meshes, start=guessed_body(character.retarget, body))
        return again if len(again.flags) < len(fit.flags) else fit
    return fit


def guessed_body(retarget: Retarget, body: AnnyBody) -> PosedBody:
    """The default body of mean shape, of the character's size, in the pose in which the character is bound."""
    turns = retarget.alignment_of().swapaxes(1, 2)
    neutral = body.neutral()
    place = retarget.rest[retarget.humanoid["hips"], :3, 3]
    legs = [retarget.rest[retarget.humanoid[f"{side}_upper_leg"], :3, 3] for side in ("left", "right")]
    posed = _posed(body, neutral["phenotypes"], turns, place)
    hips = [posed.joints[body.joint_names.index(f"upperleg01.{side}")].numpy() for side in "LR"]
    return _posed(body, neutral["phenotypes"], turns, place + np.mean(legs, 0) - np.mean(hips, 0))


def moved_along(
    fitted: PosedBody, retarget: Retarget, frames: Float[np.ndarray, "n 4 4"], body: AnnyBody
) -> PosedBody:
    """Move a body that fits a character as bound along with the character's skeleton.

    Args:
        fitted: The default body, fitted to the character as bound.
        retarget: The character's skeleton.
        frames: Its nodes in the new pose.
        body: The default body.
    """
    assert fitted.parameters is not None
    local = Rotation.from_rotvec(fitted.parameters["rotations"].numpy()).as_matrix()
    at_rest = world_turns(local, retarget.template.joint_parents)
    moved = retarget.turns(frames) @ retarget.alignment_of()  # of each joint, from bound to posed
    hips = retarget.humanoid["hips"]
    root = fitted.parameters["translation"].numpy().astype(np.float64)
    place = frames[hips, :3, 3] + moved[0] @ (root - retarget.rest[hips, :3, 3])
    return _posed(body, fitted.parameters["phenotypes"], moved @ at_rest, place)


def _posed(
    body: AnnyBody,
    phenotypes: torch.Tensor,
    turns: Float[np.ndarray, "j 3 3"],
    place: Float[np.ndarray, " 3"],
) -> PosedBody:
    local = local_rotations(turns, body.joint_parents)
    rotations = torch.from_numpy(Rotation.from_matrix(local).as_rotvec()).float()
    with torch.no_grad():
        return body(phenotypes, rotations, torch.from_numpy(np.asarray(place)).float())
