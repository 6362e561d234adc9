"""The parameters of SMPL, SMPL-H and SMPL-X under all their names and in all their layouts."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.body_files.fields import Fields
from humansplat.io.body_files.record import Family, Gender, Rotations
from humansplat.io.body_files.rotations import read_rotations

ROOT = ("global_orient", "global_pose", "root_pose", "smplx_root_pose", "root_orient", "pred_global_orient", "Rh")
BODY = ("body_pose", "pose_body", "smplx_body_pose", "pred_body_pose")
FULL = ("poses", "pose", "full_pose", "fullpose", "pred_thetas", "thetas", "pred_pose")
BETAS = ("betas", "shape", "pred_betas", "shapes", "smplx_shape", "pred_shape", "beta")
EXPRESSION = ("expression", "exp", "expr", "smplx_expr", "pred_expression", "expressions")
TRANSLATION = ("transl", "trans", "translation", "cam_trans", "Th")
GROUPS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "jaw": (1, ("jaw_pose", "smplx_jaw_pose", "pose_jaw")),
    "left eye": (1, ("leye_pose", "left_eye_pose")),
    "right eye": (1, ("reye_pose", "right_eye_pose")),
    "left hand": (15, ("left_hand_pose", "smplx_lhand_pose", "lhand_pose")),
    "right hand": (15, ("right_hand_pose", "smplx_rhand_pose", "rhand_pose")),
}
_FULL_ORDERS: Mapping[int, tuple[tuple[str, int], ...]] = {
    # SMPL-X without its head and hands comes as the first 22 joints.
    22: (("root", 1), ("body", 21)),
    24: (("root", 1), ("body", 23)),
    52: (("root", 1), ("body", 21), ("left hand", 15), ("right hand", 15)),
    55: (
        ("root", 1), ("body", 21), ("jaw", 1), ("left eye", 1), ("right eye", 1),
        ("left hand", 15), ("right hand", 15),
    ),
}  # fmt: skip
_FAMILY_NAMES = ("model", "model_type", "surface_model_type", "body_model", "smpl_type", "model_name")


def gather(fields: Fields) -> tuple[Rotations, dict[str, Float[Tensor, "n k"]]]:
    """All groups of rotations that the file has, and the hands that it has as components.

    Raises:
        UserError: If a group has a shape that fits no layout.
    """
    rotations, components = Rotations(), {}
    if (name := fields.name_of(*FULL)) is not None:
        _split_full(fields, name, rotations)
    if (name := fields.name_of(*ROOT)) is not None:
        rotations.groups["root"] = _read(fields, name, (1,))
    if (name := fields.name_of(*BODY)) is not None:
        rotations.groups["body"] = _read(fields, name, (21, 23))
    for group, (count, names) in GROUPS.items():
        if (name := fields.name_of(*names)) is None:
            continue
        if count == 15 and (rows := _components(fields, name)) is not None:
            components[group] = rows
        else:
            rotations.groups[group] = _read(fields, name, (count,))
    for name, parts in (("pose_eye", ("left eye", "right eye")), ("pose_hand", ("left hand", "right hand"))):
        if name in fields:
            both = _read(fields, name, (2,) if name == "pose_eye" else (30,))
            for part, half in zip(parts, both.chunk(2, dim=1), strict=True):
                rotations.groups.setdefault(part, half)
    return rotations, components


def _read(fields: Fields, name: str, counts: tuple[int, ...]) -> Float[Tensor, "n j 3"]:
    array = fields.array(name)
    assert array is not None
    return read_rotations(array, counts, f"{fields.path}: {name}")


def _split_full(fields: Fields, name: str, rotations: Rotations) -> None:
    whole = _read(fields, name, tuple(_FULL_ORDERS))
    first = 0
    for group, count in _FULL_ORDERS[whole.shape[1]]:
        rotations.groups[group] = whole[:, first : first + count]
        first += count


def _components(fields: Fields, name: str) -> Float[Tensor, "n k"] | None:
    """A hand as coefficients of the model's components: fewer numbers than 15 joints have, or declared so."""
    array = fields.array(name)
    assert array is not None
    if array.ndim == 0 or array.shape[-2:] == (3, 3) or array.shape[-2:-1] == (15,):
        return None
    if array.shape[-1] >= 45 and not fields.number(0, "use_pca"):
        return None
    return torch.from_numpy(array.reshape(-1, array.shape[-1])).float()


def count_people(fields: Fields, stacks: Mapping[str, Tensor]) -> int:
    """How many people, or frames, the groups stack.

    Raises:
        UserError: If they stack different numbers.
    """
    counts = {name: len(stack) for name, stack in stacks.items()}
    many = {count for count in counts.values() if count > 1}
    if len(many) > 1:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise UserError(f"{fields.path} stacks different numbers of people ({told}); give every group the same number")
    return many.pop() if many else 1


def family_of(fields: Fields, rotations: Rotations, components: Mapping[str, Tensor], stated: Family | None) -> Family:
    """The body model that the parameters belong to: stated, named in the file, or told by its groups.

    Raises:
        UserError: If nothing tells it.
    """
    if stated is not None:
        return stated
    named = fields.text(*_FAMILY_NAMES)
    if named is not None:
        plain = named.lower().replace("-", "").replace("+", "").replace("_", "")
        families: tuple[Family, ...] = ("smplx", "smplh", "smpl")
        for family in families:
            if plain.startswith(family):
                return family
        raise UserError(f"{fields.path}: a body of the model {named!r}; SMPL, SMPL-H and SMPL-X are read")
    groups = {*rotations.groups, *components}
    if groups & {"jaw", "left eye", "right eye"} or fields.name_of(*EXPRESSION) is not None:
        return "smplx"
    if "body" in rotations.groups and rotations.groups["body"].shape[1] == 23:
        return "smpl"
    full = fields.name_of(*FULL)
    if full is not None and "left hand" in rotations.groups:
        return "smplh"  # 52 joints; SMPL-X has 55
    raise UserError(
        f"{fields.path}: {', '.join(sorted(groups)) or 'no pose'} of 21 body joints fits SMPL-H and SMPL-X alike; "
        "say which with --body-model smplh or --body-model smplx"
    )


def gender_of(fields: Fields, person: int) -> Gender | None:
    """The gender that the file names; ``None`` if it names none.

    Raises:
        UserError: If it names another.
    """
    name = fields.name_of("gender", "genders")
    value = None if name is None else fields.values[name]
    if isinstance(value, list) and value:
        value = value[min(person, len(value) - 1)]
    if value is None or not isinstance(value, str):
        return None
    plain = value.strip("b'\" ").lower()
    genders: tuple[Gender, ...] = ("neutral", "male", "female")
    for gender in genders:
        if plain in {gender, gender[0]}:
            return gender
    raise UserError(f"{fields.path}: the gender {value!r} is none of neutral, male and female")
