"""What all parameter files of the SMPL family share."""

from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.body_files.cameras import image_size
from humansplat.io.body_files.fields import Fields, choose
from humansplat.io.body_files.layouts import (
    BETAS,
    EXPRESSION,
    TRANSLATION,
    count_people,
    family_of,
    gather,
    gender_of,
)
from humansplat.io.body_files.record import BodyRecord, Family


def read_parameters(
    fields: Fields, person: int | None, family: Family | None, format_name: str, *, adds_mean_hand: bool = False
) -> BodyRecord:
    """Rotations, shape, gender and translation of one person; no camera yet.

    Args:
        fields: Of the file.
        person: Which one of those that are stacked; ``None`` if there is but one.
        family: The model, where the caller knows it.
        format_name: For messages.
        adds_mean_hand: Whether this format's hands are offsets from the mean hand, unless the file itself says.

    Raises:
        UserError: If there is no pose, there are several people and none is chosen, or the model cannot be told.
    """
    rotations, components = gather(fields)
    if "body" not in rotations.groups:
        raise UserError(
            f"{fields.path} names {_told(fields)}, none of which is the pose of a whole body; "
            "give body_pose (21 or 23 joints) and global_orient, or vertices and faces"
        )
    stacks = {**rotations.groups, **components}
    shifts = fields.rows(3, *TRANSLATION)
    if shifts is not None:
        stacks["translation"] = shifts
    count = count_people(fields, stacks)
    index = choose(count, person, fields.path)
    family = family_of(fields, rotations, components, family)
    if family not in {"smpl", "smplh", "smplx"}:
        raise UserError(f"{fields.path} holds rotations of SMPL's family; read it as smpl, smplh or smplx")
    turned, missing = rotations.of(family, index)
    gender, betas = gender_of(fields, index), fields.row(index, None, *BETAS)
    expression = fields.row(index, None, *EXPRESSION)
    absent = {"betas": betas is None, "gender": gender is None, "expression": expression is None and family == "smplx"}
    is_flat = fields.number(0, "flat_hand_mean")
    return BodyRecord(
        source=f"{fields.path.name} ({format_name})" + (f", person {index} of {count}" if count > 1 else ""),
        format=format_name,
        family=family,
        gender=gender or "neutral",
        person=index,
        num_people=count,
        betas=betas,
        expression=expression,
        rotations=turned,
        missing=(
            *(name for name in missing if name not in components),
            *(name for name, is_absent in absent.items() if is_absent),
        ),
        left_hand_pca=one_of(components.get("left hand"), index),
        right_hand_pca=one_of(components.get("right hand"), index),
        adds_mean_hand=not is_flat if is_flat is not None else adds_mean_hand or bool(components),
        translation=one_of(shifts, index),
        scale=fields.number(index, "scale") or 1.0,
        image_size=image_size(fields, index),
    )


def one_of(stack: Tensor | None, index: int) -> Tensor | None:
    """One person's part of a stack; a single one is everybody's."""
    return None if stack is None else stack[min(index, len(stack) - 1)]


def _told(fields: Fields) -> str:
    names = sorted(fields.values)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
